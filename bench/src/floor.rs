//! The floor under everybody: what the machine's loopback and disk do when a system adds nothing.

use crate::children;
use crate::clock;
use crate::failure::Failure;
use crate::link::{Epoll, Link, Ready};
use crate::ring_echo;
use crate::tally::{Latency, Tally};
use crate::wire::{Wire, WireError, Witness};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Token of the listener; links have smaller ones.
const LISTENER: usize = usize::MAX;
/// What one small write of the disk test writes.
const BLOCK: usize = 4096;
/// What one large write of the disk test writes.
const CHUNK: usize = 1 << 20;
/// How large the disk test's file is; it is written again from its beginning.
const FILE_BYTES: u64 = 256 << 20;

/// By what an [`Echo`] is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// epoll and nothing else.
    Epoll,
    /// io_uring through glommio's streams, which is what the relay's transport stands on.
    Ring,
}

/// A thread that sends back whatever it receives.
#[derive(Debug)]
pub(crate) struct Echo {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Echo {
    /// Starts it.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn start(driver: Driver) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let (told, address) = mpsc::channel();
        let serve = move || match driver {
            Driver::Epoll => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                listener.set_nonblocking(true)?;
                // Whoever waits for the address is there.
                let _ = told.send(listener.local_addr()?);
                echo(&listener, &seen)
            }
            Driver::Ring => ring_echo::serve(&told, &seen),
        };
        let thread = std::thread::Builder::new().name("echo".into()).spawn(serve)?;
        match address.recv() {
            Ok(address) => Ok(Self { address, over, thread: Some(thread) }),
            Err(_) => match thread.join() {
                Ok(result) => Err(result.err().unwrap_or_else(|| io::ErrorKind::Other.into())),
                Err(panic) => std::panic::resume_unwind(panic),
            },
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // What went wrong there showed itself on the other side.
            let _ = thread.join();
        }
    }
}

/// Bytes a second through one loopback connection, in writes of 1 MiB, for `time`: what the kernel's copies cost at their best.
///
/// # Errors
/// What the system says.
pub(crate) fn loopback(time: Duration) -> io::Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while receiver.read(&mut buffer)? > 0 {}
        io::Result::Ok(())
    });
    let chunk = vec![7; CHUNK];
    let start = clock::now();
    let mut sent = 0u64;
    while clock::now() - start < clock::nanoseconds(time) {
        sender.write_all(&chunk)?;
        sent += CHUNK as u64;
    }
    drop(sender);
    reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(sent as f64 * 1e9 / (clock::now() - start) as f64)
}

fn echo(listener: &TcpListener, over: &AtomicBool) -> io::Result<()> {
    let mut epoll = Epoll::new()?;
    epoll.add_source(listener, LISTENER)?;
    let mut links: Vec<Option<Link>> = Vec::new();
    let mut ready: Vec<Ready> = Vec::new();
    let mut scratch = Vec::new();
    while !over.load(Ordering::SeqCst) {
        epoll.wait(Duration::from_millis(20), &mut ready)?;
        for event in &ready {
            if event.token == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    let link = Link::adopt(stream)?;
                    epoll.add(&link, links.len())?;
                    links.push(Some(link));
                }
            } else if let Some(link) = &mut links[event.token]
                && !serve(link, event, &mut scratch, &epoll)
            {
                links[event.token] = None;
            }
        }
    }
    Ok(())
}

/// `false` if the link is of no more use.
fn serve(link: &mut Link, event: &Ready, scratch: &mut Vec<u8>, epoll: &Epoll) -> bool {
    let received = link.receive(scratch, |input, out| {
        out.extend_from_slice(input);
        Ok::<usize, io::Error>(input.len())
    });
    let sent = if event.writable { link.unblock(epoll, event.token) } else { link.flush(epoll, event.token) };
    received.is_ok_and(|open| open) && sent.is_ok()
}

/// Counts what comes back.
#[derive(Debug)]
pub(crate) struct EchoWire {
    length: usize,
}

impl EchoWire {
    /// For messages of `length` bytes.
    pub(crate) fn new(length: usize) -> Self {
        Self { length }
    }
}

impl Wire for EchoWire {
    fn greet(&mut self, _out: &mut Vec<u8>) {}

    fn is_ready(&self) -> bool {
        true
    }

    fn put(&mut self, payload: &[u8], _prompt: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(payload);
    }

    fn take(
        &mut self,
        input: &[u8],
        _out: &mut Vec<u8>,
        witness: &mut impl Witness,
    ) -> Result<usize, WireError> {
        let whole = input.len() / self.length;
        witness.acknowledged(whole as u64);
        Ok(whole * self.length)
    }
}

/// What the disk does.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Disk {
    /// Writes of 4 KiB with fdatasync after each, a second.
    pub(crate) syncs_per_second: f64,
    /// How long one takes.
    pub(crate) sync: Latency,
    /// Bytes a second in writes of 1 MiB, one after the other, flushed at the end.
    pub(crate) sequential_bytes_per_second: f64,
    /// Bytes a second in writes of 64 KiB with fdatasync after each.
    pub(crate) committed_bytes_per_second: f64,
}

/// Measures the disk under `directory`, each thing for `time`. Writes go past the page cache, as the relay's do.
///
/// # Errors
/// What the system says; in particular where the file system has no direct I/O.
pub(crate) fn disk(directory: &Path, time: Duration) -> Result<Disk, Failure> {
    let failed = || Failure::system(format!("measuring the disk under {}", directory.display()));
    let directory = children::temporary_directory(directory).map_err(failed())?;
    let path = directory.path().join("disk");
    let file = prepare(&path).map_err(failed())?;
    let mut latencies = Tally::default();
    let syncs = write(&file, BLOCK, time, Some(&mut latencies)).map_err(failed())?;
    let committed = write(&file, 16 * BLOCK, time, Some(&mut Tally::default())).map_err(failed())?;
    let sequential = write(&file, CHUNK, time, None).map_err(failed())?;
    Ok(Disk {
        syncs_per_second: syncs / BLOCK as f64,
        sync: latencies.acknowledgement_latency(),
        sequential_bytes_per_second: sequential,
        committed_bytes_per_second: committed,
    })
}

/// A file whose every block has been written, so that the tests change no metadata.
fn prepare(path: &Path) -> io::Result<File> {
    let mut file = File::create(path)?;
    let chunk = vec![1; CHUNK];
    for _ in 0..FILE_BYTES / CHUNK as u64 {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path)
}

/// Bytes a second in writes of `size`, with fdatasync after each if its time is asked for, else at the end.
fn write(file: &File, size: usize, time: Duration, mut each: Option<&mut Tally>) -> io::Result<f64> {
    let buffer = vec![7u8; size + BLOCK];
    // Direct I/O wants its memory aligned.
    let from = buffer.as_ptr().align_offset(BLOCK);
    let aligned = &buffer[from..from + size];
    let start = clock::now();
    let mut written = 0u64;
    while clock::now() - start < clock::nanoseconds(time) {
        let began = clock::now();
        file.write_all_at(aligned, written % (FILE_BYTES - size as u64 + 1) / BLOCK as u64 * BLOCK as u64)?;
        if let Some(tally) = &mut each {
            file.sync_data()?;
            tally.acknowledgement(clock::now() - began);
        }
        written += size as u64;
    }
    file.sync_data()?;
    Ok(written as f64 * 1e9 / (clock::now() - start) as f64)
}
