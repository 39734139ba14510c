//! TLS around the connection to the relay, without I/O. Trusts the certificates that the relay identity names and no
//! others; who the relay is, SSTP Security proves inside.

use bytes::BytesMut;
use relay_core::sstp::output::OutputQueue;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::sync::Arc;

/// Slices that one call encrypts.
const SLICES: usize = 64;

/// How a relay is reached by TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayTls {
    /// Where it listens for TLS, `HOST:PORT`, tried in this order.
    pub addresses: Vec<String>,
    /// The name in its certificate.
    pub server_name: String,
    /// The certificates to trust, in PEM form: the relay's own, or those of who issued it. The system's are not asked.
    pub trusted: String,
}

/// Why a relay cannot be reached by TLS as its identity says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayTlsError {
    /// The server name is neither a DNS name nor an IP address.
    #[error("server_name: {0}")]
    ServerName(#[from] InvalidDnsNameError),
    /// The certificates to trust are not PEM.
    #[error("trusted: {0}")]
    Pem(#[from] pem::Error),
    /// There is no certificate among them.
    #[error("trusted: no certificate in PEM form")]
    NoCertificate,
    /// A certificate cannot be trusted, or no TLS can be spoken.
    #[error("trusted: {0}")]
    Unusable(#[from] rustls::Error),
}

impl RelayTls {
    /// Whether TLS can be begun with these values.
    ///
    /// # Errors
    /// [`RelayTlsError`].
    pub fn check(&self) -> Result<(), RelayTlsError> {
        self.session().map(drop)
    }

    /// TLS for a new connection.
    pub(crate) fn session(&self) -> Result<TlsSession, RelayTlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.trusted.as_bytes()) {
            roots.add(certificate?)?;
        }
        if roots.is_empty() {
            return Err(RelayTlsError::NoCertificate);
        }
        let name = ServerName::try_from(self.server_name.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(TlsSession(Box::new(ClientConnection::new(Arc::new(config), name)?)))
    }
}

/// TLS of one connection. `Read` and `Write` arguments are the socket's ends, which may say that they would block.
#[derive(Debug)]
pub(crate) struct TlsSession(Box<ClientConnection>);

impl TlsSession {
    pub(crate) fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    /// Reads once from the socket and appends what it means to `plaintext`.
    ///
    /// # Errors
    /// As of the socket; [`io::ErrorKind::UnexpectedEof`] at the end; what came is not TLS, or not from who it should be.
    pub(crate) fn read(&mut self, mut socket: impl Read, plaintext: &mut BytesMut) -> io::Result<()> {
        let read = self.0.read_tls(&mut socket)?;
        let state = self.0.process_new_packets().map_err(io::Error::other)?;
        let mut left = state.plaintext_bytes_to_read();
        let mut reader = self.0.reader();
        while left > 0 {
            let piece = reader.fill_buf()?;
            plaintext.extend_from_slice(piece);
            let length = piece.len();
            reader.consume(length);
            left -= length;
        }
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Encrypts the front of `output`, as much as fits in the session's buffer, and removes it there.
    pub(crate) fn encrypt(&mut self, output: &mut OutputQueue) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = output.gather(&mut slices);
        let taken = self.0.writer().write_vectored(&slices[..filled])?;
        output.advance(taken);
        Ok(())
    }

    /// Writes ciphertext to the socket until there is none.
    ///
    /// # Errors
    /// As of the socket, [`io::ErrorKind::WouldBlock`] in particular.
    pub(crate) fn flush(&mut self, mut socket: impl Write) -> io::Result<()> {
        while self.0.wants_write() {
            self.0.write_tls(&mut socket)?;
        }
        Ok(())
    }

    /// The ciphertext of the last words and of the goodbye.
    pub(crate) fn close(&mut self, last_words: &[u8]) -> io::Result<Vec<u8>> {
        self.0.set_buffer_limit(None);
        self.0.writer().write_all(last_words)?;
        self.0.send_close_notify();
        let mut ciphertext = Vec::new();
        self.flush(&mut ciphertext)?;
        Ok(ciphertext)
    }
}
