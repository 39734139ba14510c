//! Descriptor tables: with `shards.own_descriptors` the thread of each shard has a table of its own, so that shards do not
//! share the table's lock and each has the whole RLIMIT_NOFILE for itself.
//!
//! A descriptor is then a number that only its shard knows. What shards still do through descriptors of each other goes
//! over two sockets for each shard, opened before the tables part and therefore there under the same numbers in all of them:
//! the *bell*, a byte on which wakes the shard, and the *hatch*, through which sockets are passed (SCM_RIGHTS). Owns these
//! sockets; never looks into what is passed.

use crate::events;
use crate::letter::{Letter, Passed};
use crate::mesh::{Mesh, Sender};
use crate::tls::TlsSession;
use bytes::Bytes;
use futures_lite::AsyncRead;
use relay_core::relay::ShardId;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Gives the calling thread a descriptor table of its own: a copy of the one that it shared. What it opens from now on, no
/// other thread has; what was open already stays open, under its number, in both.
///
/// To be called first of all in a shard's thread, before it opens anything.
///
/// # Errors
/// What the system says.
#[expect(unsafe_code, reason = "a descriptor of one table must not be used with another")]
pub fn own_table() -> io::Result<()> {
    // SAFETY: whoever calls it has opened nothing yet, and what a shard opens later stays with it: other threads get its
    // sockets through the hatch, under a new number, and wake it through the bell. All else that is shared (the user
    // database, the log, these lines) was open before and has the same number in each table until the process ends.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }?)
}

/// The bells and hatches of all shards. To be opened before any table parts from the others.
#[derive(Debug)]
pub struct Lines(Vec<Line>);

/// Each pair: where to send, and where to receive.
#[derive(Debug)]
struct Line {
    bell: (OwnedFd, OwnedFd),
    hatch: (OwnedFd, OwnedFd),
}

impl Lines {
    /// Opens four descriptors for each shard.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(shards: u16) -> io::Result<Self> {
        let pair = |kind| {
            rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
                .map_err(io::Error::from)
        };
        let line = |_| Ok(Line { bell: pair(SocketType::STREAM)?, hatch: pair(SocketType::SEQPACKET)? });
        Ok(Self((0..shards).map(line).collect::<io::Result<_>>()?))
    }

    fn line(&self, shard: ShardId) -> &Line {
        &self.0[usize::from(shard.0)]
    }

    /// Wakes a shard.
    pub fn ring(&self, to: ShardId) {
        // A bell that is full of bytes wakes without this one; a shard that has ended needs no waking.
        let _ = rustix::net::send(&self.line(to).bell.0, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Passes a descriptor through the hatch of a shard, by the name `token`. `false` if the hatch is full for now.
    ///
    /// # Errors
    /// What the system says.
    pub fn pass(&self, to: ShardId, token: u64, descriptor: BorrowedFd<'_>) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        let fits = rights.push(SendAncillaryMessage::ScmRights(&descriptors));
        debug_assert!(fits, "the space is for one descriptor");
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let token = token.to_le_bytes();
        match rustix::net::sendmsg(&self.line(to).hatch.0, &[IoSlice::new(&token)], &mut rights, flags) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::TOOMANYREFS | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The next descriptor that was passed to a shard, with its token. `None` if none is there; one that the shard's table had
    /// no room for has come without itself.
    ///
    /// # Errors
    /// What the system says.
    pub fn receive(&self, shard: ShardId) -> io::Result<Option<(u64, Option<OwnedFd>)>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut token = [0; 8];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let room = &mut [IoSliceMut::new(&mut token)];
        match rustix::net::recvmsg(&self.line(shard).hatch.1, room, &mut rights, flags) {
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let descriptor = rights.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        Ok(Some((u64::from_le_bytes(token), descriptor)))
    }
}

/// Where a shard hears its bell.
#[derive(Debug)]
pub struct Ear(glommio::net::UnixStream);

impl Ear {
    /// Of this shard. On its own executor.
    ///
    /// # Errors
    /// The shard's table is full.
    #[expect(unsafe_code, reason = "glommio takes a socket of ours only as a number")]
    pub fn of(lines: &Lines, shard: ShardId) -> io::Result<Self> {
        let ear = lines.line(shard).bell.1.try_clone()?;
        // SAFETY: `into_raw_fd` gives up the ownership that the stream takes.
        Ok(Self(unsafe { FromRawFd::from_raw_fd(ear.into_raw_fd()) }))
    }

    /// Takes in all rings so far, and has the task woken at the next one.
    pub fn listen(&mut self, context: &mut Context<'_>) {
        let mut rings = [0; 64];
        // Nobody closes a bell; an error would come again with every ring.
        while let Poll::Ready(Ok(1..)) = Pin::new(&mut self.0).poll_read(context, &mut rings) {}
    }
}

/// A connection on its way to its home.
#[derive(Debug)]
pub struct Parcel {
    /// The home.
    pub to: ShardId,
    /// The socket.
    pub socket: Passed,
    /// Its TLS, if it has one.
    pub tls: Option<TlsSession>,
    /// It speaks HTTP.
    pub http: bool,
    /// What was received.
    pub bytes: Bytes,
}

/// How one shard gives connections away and takes them in.
#[derive(Debug)]
pub struct Handover {
    shard: ShardId,
    next_token: Cell<u64>,
    /// What came through the hatch before its letter.
    arrived: RefCell<HashMap<u64, Option<OwnedFd>>>,
}

impl Handover {
    /// For the shard of this number.
    pub fn new(shard: ShardId) -> Self {
        Self { shard, next_token: Cell::new(u64::from(shard.0) << 48), arrived: RefCell::default() }
    }

    /// Posts a connection to its home, and its socket through the hatch if tables are not shared.
    ///
    /// # Errors
    /// Gives it back if the hatch or the queue is full: to be tried again.
    pub fn post(&self, mesh: &Mesh<Letter>, mut parcel: Parcel) -> Result<(), Parcel> {
        if let (Some(lines), Passed::Open(socket)) = (mesh.lines(), &parcel.socket) {
            let token = self.next_token.get();
            match lines.pass(parcel.to, token, socket.as_fd()) {
                Ok(true) => parcel.socket = Passed::ThroughHatch(token),
                Ok(false) => return Err(parcel),
                Err(error) => {
                    tracing::warn!(
                        event = events::HAND_OVER_FAILED,
                        shard = self.shard.0,
                        %error,
                        "a connection could not be handed over"
                    );
                    return Ok(());
                }
            }
            self.next_token.set(token + 1);
        }
        let Parcel { to, socket, tls, http, bytes } = parcel;
        match mesh.push(Sender::Shard(self.shard), to, Letter::HandOff { socket, tls, http, bytes }) {
            Err(Letter::HandOff { socket, tls, http, bytes }) => Err(Parcel { to, socket, tls, http, bytes }),
            _ => {
                mesh.ring(to);
                Ok(())
            }
        }
    }

    /// Sends a socket ahead of its letter, if tables are not shared. What the letter is to say of it; `None` if it did not go.
    pub fn send_ahead(&self, mesh: &Mesh<Letter>, to: ShardId, socket: OwnedFd) -> Option<Passed> {
        let Some(lines) = mesh.lines() else { return Some(Passed::Open(socket)) };
        let token = self.next_token.get();
        let went = lines.pass(to, token, socket.as_fd()).is_ok_and(|went| went);
        self.next_token.set(token + u64::from(went));
        went.then_some(Passed::ThroughHatch(token))
    }

    /// The socket that a letter brought, or announced. It is in the hatch by then.
    ///
    /// # Errors
    /// This shard's table had no room for it.
    pub fn unpack(&self, mesh: &Mesh<Letter>, socket: Passed) -> io::Result<OwnedFd> {
        let (wanted, lines) = match (socket, mesh.lines()) {
            (Passed::Open(socket), _) => return Ok(socket),
            (Passed::ThroughHatch(token), Some(lines)) => (token, lines),
            (Passed::ThroughHatch(_), None) => return Err(io::ErrorKind::NotFound.into()),
        };
        let mut arrived = self.arrived.borrow_mut();
        while !arrived.contains_key(&wanted) {
            let (token, socket) = lines.receive(self.shard)?.ok_or(io::ErrorKind::NotFound)?;
            arrived.insert(token, socket);
        }
        let full = || io::Error::other("no descriptor is left in the shard's table");
        arrived.remove(&wanted).flatten().ok_or_else(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);

    fn parcel(file: File) -> Parcel {
        carry(Passed::Open(file.into()))
    }

    fn carry(socket: Passed) -> Parcel {
        Parcel { to: B, socket, tls: None, http: false, bytes: Bytes::from_static(b"so far") }
    }

    fn text(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        file
    }

    fn read(descriptor: OwnedFd) -> String {
        let mut text = String::new();
        File::from(descriptor).read_to_string(&mut text).unwrap();
        text
    }

    /// What is open under a number in the table of this thread.
    fn opened(number: i32) -> Option<std::path::PathBuf> {
        std::fs::read_link(format!("/proc/thread-self/fd/{number}")).ok()
    }

    fn letters(mesh: &Mesh<Letter>) -> Vec<Passed> {
        let mut passed = Vec::new();
        mesh.take(Sender::Shard(A), B, 100, |letter| match letter {
            Letter::HandOff { socket, bytes, .. } => {
                assert_eq!(bytes, "so far");
                passed.push(socket);
            }
            _ => panic!("nothing else was posted"),
        });
        passed
    }

    #[test]
    fn a_thread_with_its_own_table_gets_descriptors_through_the_hatch_and_knows_no_others() {
        let mesh = Mesh::with_lines(2, 16, Some(Lines::open(2).unwrap()));
        let receiver = mesh.clone();
        let (parted, has_parted) = mpsc::channel();
        let (posted, were_posted) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            own_table().unwrap();
            parted.send(()).unwrap();
            let (number, file) = were_posted.recv().unwrap();
            // Under its number there may be what other tests had open when this table was copied.
            assert_ne!(opened(number), file, "what was opened since is not in this table");
            let handover = Handover::new(B);
            // The second letter first: its socket lies behind the other one in the hatch.
            let sockets = letters(&receiver).into_iter().rev();
            sockets.map(|socket| read(handover.unpack(&receiver, socket).unwrap())).collect::<Vec<_>>()
        });
        has_parted.recv().unwrap();
        let handover = Handover::new(A);
        handover.post(&mesh, parcel(text("first"))).unwrap();
        handover.post(&mesh, parcel(text("second"))).unwrap();
        let here = text("not passed");
        let number = here.as_raw_fd();
        let file = opened(number);
        assert!(file.is_some());
        posted.send((number, file)).unwrap();
        assert_eq!(thread.join().unwrap(), ["second", "first"]);
    }

    #[test]
    fn a_passed_socket_closes_when_its_receiver_closes_it() {
        let mesh = Mesh::with_lines(2, 16, Some(Lines::open(2).unwrap()));
        let (near, mut far) = UnixStream::pair().unwrap();
        let handover = Handover::new(A);
        let socket = Passed::Open(near.into());
        handover.post(&mesh, carry(socket)).unwrap();
        let home = Handover::new(B);
        let taken = letters(&mesh).pop().map(|socket| home.unpack(&mesh, socket).unwrap());
        drop(taken);
        assert_eq!(far.read(&mut [0]).unwrap(), 0, "no other copy is open");
    }

    #[test]
    fn a_full_hatch_and_a_full_queue_give_the_connection_back_and_take_it_later() {
        let mesh = Mesh::with_lines(2, 16, Some(Lines::open(2).unwrap()));
        let handover = Handover::new(A);
        let mut back = None;
        for _ in 0..17 {
            back = handover.post(&mesh, parcel(text("x"))).err();
        }
        let back = back.expect("the queue holds 16");
        assert!(matches!(back.socket, Passed::ThroughHatch(_)), "its socket has gone ahead");
        assert_eq!(letters(&mesh).len(), 16);
        handover.post(&mesh, back).unwrap();
        let home = Handover::new(B);
        let last = letters(&mesh).pop().map(|socket| read(home.unpack(&mesh, socket).unwrap()));
        assert_eq!(last.as_deref(), Some("x"));
        let lines = Lines::open(1).unwrap();
        let file = text("y");
        let passed = (0..100_000).take_while(|token| lines.pass(A, *token, file.as_fd()).unwrap()).count();
        assert!((16..100_000).contains(&passed), "the hatch is bounded: {passed}");
        assert!(lines.receive(A).unwrap().is_some());
        assert!(lines.pass(A, 0, file.as_fd()).unwrap(), "there is room again");
    }

    #[test]
    fn descriptors_and_bells_are_shared_where_tables_are() {
        let mesh = Mesh::new(2, 16);
        Handover::new(A).post(&mesh, parcel(text("one table"))).unwrap();
        let home = Handover::new(B);
        let read = letters(&mesh).pop().map(|socket| read(home.unpack(&mesh, socket).unwrap()));
        assert_eq!(read.as_deref(), Some("one table"));
    }
}
