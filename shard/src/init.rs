//! A new relay's files: its configuration, its keys, and the identity file that its clients are given.

use crate::server::{ServerError, read_keys};
use client::{DeviceUrl, Fallback, InvalidUrl, RelayIdentity, RelayTls, RelayTlsError, SystemEntropy};
use relay_core::http::profile::TUNNEL_PORT;
use relay_core::security::RelayKeys;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tuning::Config;
use zeroize::Zeroizing;

/// The name of a relay's identity file in its directory.
pub const IDENTITY_FILE: &str = "relay-identity.toml";

/// How clients reach a relay, where that is not what its configuration says by itself.
#[derive(Clone, Debug, Default)]
pub struct Reachable {
    /// Where they find it, `HOST:PORT`; if empty, the addresses on which it listens.
    pub addresses: Vec<String>,
    /// The same for TLS.
    pub tls_addresses: Vec<String>,
    /// The same for HTTP.
    pub http_addresses: Vec<String>,
    /// The name in its certificate; if absent, the host in the relay's URL.
    pub tls_name: Option<String>,
}

/// The files that [`init_for`] made.
#[derive(Debug)]
pub struct Initialised {
    /// The configuration.
    pub config: PathBuf,
    /// The relay's private keys, mode 0600.
    pub keys: PathBuf,
    /// What clients need to know: `sstp init --relay FILE`.
    pub identity: PathBuf,
    /// The certificate for TLS, if one was made.
    pub certificate: Option<PathBuf>,
    /// The fingerprint of the public keys.
    pub fingerprint: String,
}

/// Why the files were not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The relay's URL is not one.
    #[error("--url: {0}")]
    Url(#[from] InvalidUrl),
    /// A file cannot be written; one that exists is never overwritten.
    #[error("{}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The relay's keys cannot be read.
    #[error(transparent)]
    Keys(#[from] Box<ServerError>),
    /// No certificate can be made for the name.
    #[error("--tls-name {name}: {error}")]
    Certificate {
        /// The name.
        name: String,
        /// Why.
        error: rcgen::Error,
    },
    /// Clients could not reach the relay by TLS.
    #[error("TLS: {0}")]
    Tls(#[from] RelayTlsError),
    /// The relay listens on every address of its machine, which is no address that a client could dial.
    #[error("clients cannot dial {0}; say with {1} HOST:PORT where they find the relay")]
    Undialable(SocketAddr, &'static str),
}

/// [`init_for`] clients that dial the addresses on which the relay listens.
///
/// # Errors
/// [`InitError`].
pub fn init(directory: &Path, config: &Config) -> Result<Initialised, InitError> {
    init_for(directory, config, &Reachable::default())
}

/// Makes `directory` (mode 0700) with a commented `furrow.toml`, `relay.key` (mode 0600) and `relay-identity.toml`.
/// `config` says what differs from the defaults; its files lie in `directory` under their default names. If it listens for
/// TLS and there is no `tls.crt` and `tls.key` yet, they are made too: a certificate that nobody else has signed, and which
/// clients trust because the identity file holds it.
///
/// # Errors
/// [`InitError`]. A file that is there already is left alone, and so are those that would have followed.
pub fn init_for(directory: &Path, config: &Config, reachable: &Reachable) -> Result<Initialised, InitError> {
    // What is wrong with the names is said before anything is made.
    device_url(config)?;
    dialable(&config.listen.sstp, &reachable.addresses, "--address")?;
    dialable(&config.listen.tls, &reachable.tls_addresses, "--tls-address")?;
    dialable(&config.listen.http, &reachable.http_addresses, "--http-address")?;
    let made_directory = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made_directory.map_err(failed(directory))?;
    let keys = RelayKeys::generate(&mut SystemEntropy::default());
    let mut made = Initialised {
        config: directory.join("furrow.toml"),
        keys: directory.join("relay.key"),
        identity: directory.join(IDENTITY_FILE),
        certificate: None,
        fingerprint: keys.public().fingerprint(),
    };
    create(&made.config, 0o600, tuning::commented_toml(config).as_bytes())?;
    create(&made.keys, 0o600, &keys.encode())?;
    let mut here = config.clone();
    here.relay.key_file = made.keys.clone();
    here.tls.certificate_file = directory.join("tls.crt");
    here.tls.key_file = directory.join("tls.key");
    if !config.listen.tls.is_empty() && !here.tls.certificate_file.exists() {
        certify(&here, &tls_name(config, reachable))?;
        made.certificate = Some(here.tls.certificate_file.clone());
    }
    create(&made.identity, 0o644, identity(&here, reachable)?.to_toml().as_bytes())?;
    Ok(made)
}

/// What clients have to know of the relay with this configuration: `relay-identity.toml`.
///
/// # Errors
/// [`InitError`]: its keys or its certificate cannot be read, or clients could not use them.
pub fn identity(config: &Config, reachable: &Reachable) -> Result<RelayIdentity, InitError> {
    let keys = read_keys(&config.relay.key_file).map_err(Box::new)?;
    let tls = match config.listen.tls.is_empty() {
        true => None,
        false => {
            let file = &config.tls.certificate_file;
            let tls = RelayTls {
                addresses: dialable(&config.listen.tls, &reachable.tls_addresses, "--tls-address")?,
                server_name: tls_name(config, reachable),
                trusted: std::fs::read_to_string(file).map_err(failed(file))?,
            };
            tls.check()?;
            Some(tls)
        }
    };
    let (addresses, tunnel) =
        usual_and_tunnel(dialable(&config.listen.sstp, &reachable.addresses, "--address")?);
    let http = dialable(&config.listen.http, &reachable.http_addresses, "--http-address")?;
    Ok(RelayIdentity {
        relay_url: device_url(config)?,
        addresses,
        public_keys: keys.public().clone(),
        tls,
        fallback: Fallback { tunnel, http },
    })
}

/// Sets those on port 443 apart, which firewalls leave open, if there are any others.
fn usual_and_tunnel(addresses: Vec<String>) -> (Vec<String>, Vec<String>) {
    let port = format!(":{TUNNEL_PORT}");
    let (tunnel, usual): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.ends_with(&port));
    if usual.is_empty() { (tunnel, usual) } else { (usual, tunnel) }
}

fn device_url(config: &Config) -> Result<DeviceUrl, InvalidUrl> {
    DeviceUrl::new(config.relay.url.first().map_or("", String::as_str))
}

/// Where clients dial: what was said, else where the relay listens.
fn dialable(listen: &[SocketAddr], said: &[String], option: &'static str) -> Result<Vec<String>, InitError> {
    if !said.is_empty() {
        return Ok(said.to_vec());
    }
    match listen.iter().find(|address| address.ip().is_unspecified()) {
        Some(&address) => Err(InitError::Undialable(address, option)),
        None => Ok(listen.iter().map(ToString::to_string).collect()),
    }
}

/// The name in the certificate: what was said, else the host in the relay's URL (`grooveDNS://HOST`).
fn tls_name(config: &Config, reachable: &Reachable) -> String {
    let url = config.relay.url.first().map_or("", String::as_str);
    let host = url.split_once("://").map_or(url, |(_, host)| host);
    reachable.tls_name.clone().unwrap_or_else(|| host.split('/').next().unwrap_or(host).to_owned())
}

/// Makes a certificate for the name, signed by its own key, and writes both.
fn certify(config: &Config, name: &str) -> Result<(), InitError> {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()])
        .map_err(|error| InitError::Certificate { name: name.to_owned(), error })?;
    let key = Zeroizing::new(made.signing_key.serialize_pem());
    create(&config.tls.key_file, 0o600, key.as_bytes())?;
    create(&config.tls.certificate_file, 0o644, made.cert.pem().as_bytes())
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> InitError {
    let path = path.to_owned();
    move |error| InitError::File { path, error }
}

fn create(path: &Path, mode: u32, content: &[u8]) -> Result<(), InitError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(failed(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const URL: &str = "grooveDNS://relay.example.com";

    #[test]
    fn keys_are_for_their_owner_only_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::new(URL);
        let made = init(directory.path(), &config).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&made.keys), 0o600);
        let keys = std::fs::read(&made.keys).unwrap();
        assert!(matches!(init(directory.path(), &config), Err(InitError::File { .. })));
        assert_eq!(std::fs::read(&made.keys).unwrap(), keys);
    }

    #[test]
    fn clients_are_told_of_port_443_and_of_http() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new(URL);
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        config.listen.sstp = vec![at("127.0.0.1:443"), at("127.0.0.1:2492")];
        config.listen.http = vec![at("0.0.0.0:80")];
        let undialable = init(&directory.path().join("first"), &config).unwrap_err();
        assert!(matches!(undialable, InitError::Undialable(_, "--http-address")));
        let reachable =
            Reachable { http_addresses: vec!["relay.example.com:80".into()], ..Reachable::default() };
        let made = init_for(&directory.path().join("second"), &config, &reachable).unwrap();
        let identity = RelayIdentity::load(&made.identity).unwrap();
        assert_eq!(identity.addresses, ["127.0.0.1:2492"]);
        assert_eq!(identity.fallback.tunnel, ["127.0.0.1:443"]);
        assert_eq!(identity.fallback.http, ["relay.example.com:80"]);
    }

    #[test]
    fn what_init_writes_is_what_run_and_sstp_read() {
        let directory = tempfile::tempdir().unwrap();
        let made = init(directory.path(), &Config::new(URL)).unwrap();
        let config = Config::load(&made.config).unwrap();
        assert_eq!(config.relay.key_file, made.keys);
        let identity = RelayIdentity::load(&made.identity).unwrap();
        assert_eq!(identity.fingerprint(), made.fingerprint);
        assert_eq!(identity.addresses, ["127.0.0.1:2492"]);
    }

    #[test]
    fn with_tls_the_identity_says_where_by_which_name_and_whom_to_trust() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new(URL);
        config.listen.tls = vec!["0.0.0.0:2493".parse().unwrap()];
        let refused = init(directory.path(), &config);
        assert!(matches!(refused, Err(InitError::Undialable(_, "--tls-address"))));
        let reachable =
            Reachable { tls_addresses: vec!["relay.example.com:2493".into()], ..Reachable::default() };
        let made = init_for(directory.path(), &config, &reachable).unwrap();
        let tls = RelayIdentity::load(&made.identity).unwrap().tls.unwrap();
        assert_eq!(
            (tls.addresses, tls.server_name.as_str()),
            (reachable.tls_addresses.clone(), "relay.example.com")
        );
        assert_eq!(tls.trusted, std::fs::read_to_string(made.certificate.unwrap()).unwrap());
        let key = std::fs::metadata(directory.path().join("tls.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        // The configuration by itself leads to the same file.
        let config = Config::load(&made.config).unwrap();
        let written = std::fs::read_to_string(&made.identity).unwrap();
        assert_eq!(identity(&config, &reachable).unwrap().to_toml(), written);
    }
}
