//! TLS around a connection's bytes, without I/O, and the certificate that the relay shows. Which bytes go where is
//! [`crate::transport`]'s; who the peer is, TLS does not ask: that is SSTP Security's, inside.

use bytes::{Bytes, BytesMut};
use relay_core::sstp::output::OutputQueue;
use rustls::ServerConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use std::io::{self, BufRead, IoSlice, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Ciphertext that is made ahead of what the kernel takes.
const AHEAD_BYTES: usize = 64 * 1024;
/// Slices that one call encrypts.
const SLICES: usize = 64;

/// Why the certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others may read the private key.
    #[error("{}: others may read this key file (mode {mode:o}). Say: chmod 600 {}", .path.display(), .path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file is not the PEM form of what it should hold.
    #[error("{}: {error}", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: pem::Error,
    },
    /// Certificate and key do not go together, or are of a kind that cannot be used.
    #[error("{}: {error}", .path.display())]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        error: rustls::Error,
    },
}

/// The certificate and key that all TLS listeners of the relay show. Clones share it, so that it can be replaced while the
/// relay serves.
#[derive(Clone, Debug)]
pub struct Certificate {
    certificate_file: PathBuf,
    key_file: PathBuf,
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Certificate {
    /// Reads both files, in PEM form: the certificate with those of its issuers behind it, and the private key, which only
    /// its owner may read.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn load(certificate_file: &Path, key_file: &Path) -> Result<Self, CertificateError> {
        let config = read(certificate_file, key_file)?;
        Ok(Self {
            certificate_file: certificate_file.to_owned(),
            key_file: key_file.to_owned(),
            current: Arc::new(RwLock::new(config)),
        })
    }

    /// Reads the files again; new connections are shown what they hold now.
    ///
    /// # Errors
    /// [`CertificateError`]; the old certificate stays.
    pub fn reload(&self) -> Result<(), CertificateError> {
        let config = read(&self.certificate_file, &self.key_file)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// TLS for a connection that was just accepted.
    ///
    /// # Errors
    /// None in practice: the configuration was checked when it was made.
    pub fn accept(&self) -> Result<TlsSession, rustls::Error> {
        let config = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut connection = ServerConnection::new(config)?;
        // What is queued is bounded by its owner, what is encrypted ahead by AHEAD_BYTES.
        connection.set_buffer_limit(None);
        Ok(TlsSession { connection: Box::new(connection), ciphertext: BytesMut::new(), closed: false })
    }
}

fn read(certificate_file: &Path, key_file: &Path) -> Result<Arc<ServerConfig>, CertificateError> {
    let path = certificate_file.to_owned();
    let pem_failed = |path: &Path, error| match error {
        pem::Error::Io(error) => CertificateError::File { path: path.to_owned(), error },
        error => CertificateError::Pem { path: path.to_owned(), error },
    };
    let certificates = CertificateDer::pem_file_iter(certificate_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem_failed(certificate_file, error))?;
    let metadata = std::fs::metadata(key_file)
        .map_err(|error| CertificateError::File { path: key_file.to_owned(), error })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(CertificateError::Mode { path: key_file.to_owned(), mode });
    }
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| pem_failed(key_file, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(|error| CertificateError::Unusable { path, error })?;
    // SSTP connections live long: resumption would cost memory for a handshake that is seldom repeated.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// TLS of one connection. It can be handed to another thread together with the socket.
#[derive(Debug)]
pub struct TlsSession {
    connection: Box<ServerConnection>,
    /// Made and not yet taken by the kernel.
    ciphertext: BytesMut,
    /// The peer has said that nothing more comes.
    closed: bool,
}

impl TlsSession {
    /// Takes what was received and gives what it means, which may be nothing; `None` once the peer has closed.
    ///
    /// # Errors
    /// What came is not TLS, or not acceptable: an alert is to be sent, and the connection to be closed.
    pub fn receive(&mut self, mut received: &[u8]) -> io::Result<Option<Bytes>> {
        let mut plaintext = BytesMut::new();
        while !received.is_empty() && !self.closed {
            self.connection.read_tls(&mut received)?;
            let state = self.connection.process_new_packets().map_err(io::Error::other)?;
            plaintext.reserve(state.plaintext_bytes_to_read());
            let mut reader = self.connection.reader();
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let piece = reader.fill_buf()?;
                plaintext.extend_from_slice(piece);
                let length = piece.len();
                reader.consume(length);
                left -= length;
            }
            self.closed = state.peer_has_closed();
        }
        let ended = self.closed && plaintext.is_empty();
        Ok((!ended).then(|| plaintext.freeze()))
    }

    /// Whether there is ciphertext to send.
    pub fn wants_write(&self) -> bool {
        !self.ciphertext.is_empty() || self.connection.wants_write()
    }

    /// Encrypts the front of `output`, as much as may be made ahead, and removes it there.
    ///
    /// # Errors
    /// None in practice: memory is written to.
    pub fn encrypt(&mut self, output: &mut OutputQueue) -> io::Result<()> {
        while !output.is_empty() && self.ciphertext.len() < AHEAD_BYTES {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = output.gather(&mut slices);
            let taken = self.connection.writer().write_vectored(&slices[..filled])?;
            output.advance(taken);
            self.collect()?;
        }
        Ok(())
    }

    /// Says that nothing more comes.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// The ciphertext to send, at least all that [`TlsSession::wants_write`] spoke of.
    ///
    /// # Errors
    /// None in practice: memory is written to.
    pub fn ciphertext(&mut self) -> io::Result<&mut BytesMut> {
        self.collect()?;
        Ok(&mut self.ciphertext)
    }

    fn collect(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut Appending(&mut self.ciphertext))?;
        }
        Ok(())
    }
}

/// Memory as something to write to.
struct Appending<'a>(&'a mut BytesMut);

impl Write for Appending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
