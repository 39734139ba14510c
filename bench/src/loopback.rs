//! Addresses on loopback: one that is free, and whether somebody listens there.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

/// Ports that the kernel does not give to outgoing connections, so that none of them is taken between two starts.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// An address that was free a moment ago.
///
/// # Errors
/// Every port is taken.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    let span = u32::from(PORTS.end - PORTS.start);
    let seed = std::process::id().wrapping_mul(2_654_435_761) ^ crate::clock::now() as u32;
    let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
    for step in 0..span {
        let port = PORTS.start + (seed.wrapping_add(step) % span) as u16;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return listener.local_addr(),
            Err(error) => taken = error,
        }
    }
    Err(taken)
}

/// Whether somebody listens. A connection to a port that nobody listens on can meet itself; that does not count.
pub(crate) fn is_listening(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok_and(|stream| stream.local_addr().ok() != Some(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_address_is_one_that_nobody_listens_on() {
        let address = free_address().unwrap();
        assert!(!is_listening(address));
        let _listener = TcpListener::bind(address).unwrap();
        assert!(is_listening(address));
    }
}
