//! The peers: other systems that do part of what the relay does, started from their Debian packages on loopback, each in a
//! directory of its own, and driven as tightly.

pub(crate) mod mosquitto;
pub(crate) mod nats;
pub(crate) mod redis;

use crate::children::{self, Running};
use crate::failure::Failure;
use crate::loopback::{free_address, is_listening};
use crate::wire::WireError;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a peer may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// Debian puts servers where not every user looks for programs.
const PROGRAM_DIRECTORIES: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// Ends the lines of NATS and Redis, and the payloads among them.
const LINE_END: &[u8] = b"\r\n";

/// A running peer.
#[derive(Debug)]
pub(crate) struct Peer {
    running: Running,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its files; removed with it.
    _directory: tempfile::TempDir,
}

/// What a file holds, for the address at which the peer is to listen and the directory for its files.
pub(crate) type Content = dyn Fn(SocketAddr, &Path) -> String;

/// How a peer is started.
pub(crate) struct Recipe<'a> {
    /// The program.
    pub(crate) program: &'a str,
    /// Its arguments, for the address at which it is to listen and the directory for its files.
    pub(crate) arguments: &'a dyn Fn(SocketAddr, &Path) -> Vec<String>,
    /// A file to write into the directory first: its name and what is in it.
    pub(crate) file: Option<(&'a str, &'a Content)>,
}

/// Where a program is; `None` if it is not installed.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let listed = std::env::split_paths(&path).collect::<Vec<_>>();
    let usual = PROGRAM_DIRECTORIES.iter().map(std::path::PathBuf::from);
    listed.into_iter().chain(usual).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// The first line that a program prints of its version.
pub(crate) fn version(program: &str, argument: &str) -> String {
    let output = find(program).and_then(|path| Command::new(path).arg(argument).output().ok());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("version unknown").trim().to_owned()
}

impl Peer {
    /// Starts it in a directory below `parent` and waits until it listens.
    ///
    /// # Errors
    /// [`Failure`], also if it is not installed or ends at once.
    pub(crate) fn start(parent: &Path, recipe: &Recipe<'_>) -> Result<Self, Failure> {
        let program = recipe.program;
        let path = find(program).ok_or_else(|| missing(program))?;
        let directory =
            children::temporary_directory(parent).map_err(Failure::system("temporary directory"))?;
        let address = free_address().map_err(Failure::system("free port"))?;
        if let Some((name, content)) = recipe.file {
            std::fs::write(directory.path().join(name), content(address, directory.path()))
                .map_err(Failure::system(name))?;
        }
        let mut command = Command::new(path);
        command.args((recipe.arguments)(address, directory.path())).current_dir(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running::start(&mut command).map_err(Failure::system(program))?;
        let began = Instant::now();
        while !is_listening(address) {
            if let Some(status) = running.ended() {
                return Err(Failure::Wrong(format!("{program} ended: {status}")));
            }
            if began.elapsed() > START_PATIENCE {
                return Err(Failure::Wrong(format!("{program} did not listen in time")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { running, address, _directory: directory })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }
}

fn missing(program: &str) -> Failure {
    let error = io::Error::new(io::ErrorKind::NotFound, "not installed");
    Failure::System { what: program.to_owned(), error }
}

/// The bytes of `input` up to the next CR LF, and how many bytes that is with it.
fn line(input: &[u8]) -> Option<(&[u8], usize)> {
    let end = input.iter().position(|&byte| byte == b'\n')?;
    Some((input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]), end + 1))
}

/// Takes whole commands off the front of `input`: a line, and as many bytes after it as `take` says, which is given the line
/// and what follows; `None` from it if not all of that is there. Returns how many bytes were used.
fn take_lines(
    input: &[u8],
    mut take: impl FnMut(&[u8], &[u8]) -> Result<Option<usize>, WireError>,
) -> Result<usize, WireError> {
    let mut used = 0;
    while let Some((words, length)) = line(&input[used..]) {
        let Some(more) = take(words, &input[used + length..])? else { break };
        used += length + more;
    }
    Ok(used)
}

/// A payload of so many bytes at the front of `rest`, if it is there with the line end of its own.
fn block(rest: &[u8], bytes: usize) -> Option<&[u8]> {
    (rest.len() >= bytes + LINE_END.len()).then(|| &rest[..bytes])
}

/// Appends a payload with its length before it and a line end after each.
fn put_block(payload: &[u8], out: &mut Vec<u8>) {
    put_decimal(payload.len(), out);
    out.extend_from_slice(LINE_END);
    out.extend_from_slice(payload);
    out.extend_from_slice(LINE_END);
}

/// Decimal digits as a number.
fn decimal(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Appends a number in decimal digits.
fn put_decimal(mut number: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Bytes as text, for an error.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
pub(crate) mod heard {
    //! A witness that remembers.

    use crate::wire::Witness;

    /// What was heard.
    #[derive(Default)]
    pub(crate) struct Heard {
        /// Messages acknowledged.
        pub(crate) acknowledged: u64,
        /// Messages received.
        pub(crate) messages: Vec<Vec<u8>>,
    }

    impl Witness for Heard {
        fn acknowledged(&mut self, count: u64) {
            self.acknowledged += count;
        }
        fn begin(&mut self) {
            self.messages.push(Vec::new());
        }
        fn piece(&mut self, bytes: &[u8]) {
            self.messages.last_mut().expect("a message has begun").extend_from_slice(bytes);
        }
        fn end(&mut self) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [0, 9, 10, 104, usize::MAX] {
            let mut out = Vec::new();
            put_decimal(number, &mut out);
            assert_eq!(decimal(&out), Some(number));
        }
        assert_eq!(decimal(b"1x"), None);
    }

    #[test]
    fn a_line_ends_with_lf() {
        assert_eq!(line(b"+OK\r\nrest"), Some((&b"+OK"[..], 5)));
        assert_eq!(line(b"+OK\r"), None);
    }
}
