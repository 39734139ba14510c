//! What `sstp send` sends: a file or standard input, with a count of what has gone.

use super::failure::Failure;
use client::{Body, BodySource, Read};
use std::fs::File;
use std::io::Seek;
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// A body that tells how far it has been read.
pub(crate) struct Upload {
    body: Body,
    position: watch::Sender<u64>,
}

impl Upload {
    /// Opens what the argument names. Standard input is kept in a file without a name until it is sent: a message knows its length and may have
    /// to be sent again.
    pub(crate) async fn open(file: Option<PathBuf>) -> Result<(Self, watch::Receiver<u64>), Failure> {
        let body = match file.filter(|path| path != Path::new("-")) {
            Some(path) => Body::file(&path).map_err(Failure::about(&path.display())),
            None => tokio::task::spawn_blocking(spooled_input)
                .await
                .unwrap_or_else(|error| Err(std::io::Error::other(error)))
                .and_then(Body::opened_file)
                .map_err(Failure::about(&"standard input")),
        }?;
        let (position, watched) = watch::channel(0);
        Ok((Self { body, position }, watched))
    }
}

fn spooled_input() -> std::io::Result<File> {
    let mut spool = tempfile::tempfile()?;
    std::io::copy(&mut std::io::stdin().lock(), &mut spool)?;
    spool.rewind()?;
    Ok(spool)
}

impl BodySource for Upload {
    fn length(&self) -> u64 {
        self.body.length()
    }

    fn read(&self, offset: u64, max: usize) -> Read<'_> {
        self.position.send_replace(offset);
        self.body.read(offset, max)
    }
}
