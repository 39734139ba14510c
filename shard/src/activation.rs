//! Listening sockets that the service manager holds open while the relay restarts, so that nobody is refused meanwhile: who
//! connects waits in the kernel's queue until the relay accepts again.
//!
//! Owns how they are received (`LISTEN_FDS`, sd_listen_fds(3)) and checked. It never binds, and never accepts.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};

/// What is spoken on an inherited socket; its name (`FileDescriptorName=` of the socket unit) says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// SSTP: the name `sstp`.
    Sstp,
    /// SSTP inside TLS: the name `tls`.
    Tls,
    /// SSTP inside HTTP: the name `http`.
    Http,
}

impl Spoken {
    fn named(name: &str) -> Option<Self> {
        match name {
            "sstp" => Some(Self::Sstp),
            "tls" => Some(Self::Tls),
            "http" => Some(Self::Http),
            _ => None,
        }
    }
}

/// A listening socket from the service manager.
#[derive(Debug)]
pub struct Inherited {
    /// What is spoken there.
    pub spoken: Spoken,
    /// Where it listens.
    pub address: SocketAddr,
    /// The socket.
    pub socket: OwnedFd,
}

/// Why inherited sockets cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivationError {
    /// The variables of the protocol contradict each other, or the descriptors are not there.
    #[error("the sockets of the service manager cannot be taken over: {0}")]
    Protocol(io::Error),
    /// A name that stands for nothing.
    #[error(
        "the service manager passes a socket named \"{0}\"; the relay knows FileDescriptorName=sstp, tls and http"
    )]
    UnknownName(String),
    /// Something else than a listening TCP socket.
    #[error("the socket named \"{0}\" from the service manager does not listen for TCP")]
    NotListening(String),
}

/// Takes over the sockets of the service manager; none if it passes none. To be called once, before there are threads: the
/// descriptors are taken, and so are the variables that announce them.
///
/// # Errors
/// [`ActivationError`].
pub fn inherit() -> Result<Vec<Inherited>, ActivationError> {
    let announced = sd_notify::listen_fds_with_names(true).map_err(ActivationError::Protocol)?;
    announced
        .map(|(number, name)| {
            let socket = adopt(number);
            let spoken = Spoken::named(&name).ok_or_else(|| ActivationError::UnknownName(name.clone()))?;
            let address = listening_address(&socket).ok_or(ActivationError::NotListening(name))?;
            Ok(Inherited { spoken, address, socket })
        })
        .collect()
}

fn listening_address(socket: &OwnedFd) -> Option<SocketAddr> {
    let socket = socket2::SockRef::from(socket);
    if !socket.is_listener().ok()? || socket.r#type().ok()? != socket2::Type::STREAM {
        return None;
    }
    socket.local_addr().ok()?.as_socket()
}

#[expect(unsafe_code, reason = "the service manager passes descriptors as numbers")]
fn adopt(number: i32) -> OwnedFd {
    // SAFETY: the protocol says that the descriptor is open (its flags have just been set) and ours; the variables that
    // announced it are gone, so nobody takes it twice.
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};

    #[test]
    fn only_a_listening_tcp_socket_has_an_address_to_listen_on() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let connected = TcpStream::connect(address).unwrap();
        assert_eq!(listening_address(&listener.into()), Some(address));
        assert_eq!(listening_address(&connected.into()), None);
        assert_eq!(listening_address(&UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().into()), None);
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(listening_address(&unix.into()), None);
    }

    #[test]
    fn a_socket_is_known_by_its_name() {
        assert_eq!(
            ["sstp", "tls", "http", "unknown", ""].map(Spoken::named),
            [Some(Spoken::Sstp), Some(Spoken::Tls), Some(Spoken::Http), None, None]
        );
    }
}
