//! The settings of proxies: from the usual environment variables or from the configuration.

use relay_core::http::profile::{PROXY_PORT, SOCKS_PORT};
use relay_core::http::proxy::Credentials;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::net::IpAddr;

/// Where a proxy is, and who one is to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `HOST:PORT`.
    pub address: String,
    /// User name and password, if the proxy wants them.
    pub credentials: Option<Credentials>,
}

/// Which proxies there are. By default none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For HTTP requests.
    pub http: Option<Proxy>,
    /// For tunnels by CONNECT.
    pub connect: Option<Proxy>,
    /// For tunnels by SOCKS 5.
    pub socks: Option<Proxy>,
    /// Hosts and domains that are reached without a proxy; `*` is all.
    pub exempt: Vec<String>,
}

/// The section `[proxy]` of a client's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProxySettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connect: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    socks: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exempt: Vec<String>,
}

impl TryFrom<ProxySettings> for Proxies {
    type Error = ProxyUrlError;

    fn try_from(settings: ProxySettings) -> Result<Self, ProxyUrlError> {
        let ProxySettings { http, connect, socks, exempt } = settings;
        Self::configured(http.as_deref(), connect.as_deref(), socks.as_deref(), &exempt)
    }
}

impl From<&Proxies> for ProxySettings {
    fn from(proxies: &Proxies) -> Self {
        let url = |scheme: &str, proxy: &Option<Proxy>| proxy.as_ref().map(|proxy| proxy.url(scheme));
        Self {
            http: url("http", &proxies.http),
            connect: url("http", &proxies.connect),
            socks: url("socks5", &proxies.socks),
            exempt: proxies.exempt.clone(),
        }
    }
}

impl Proxy {
    fn url(&self, scheme: &str) -> String {
        let user_info = self.credentials.as_ref().map(|Credentials { user, password }| {
            format!("{}:{}@", percent_encoded(user), percent_encoded(password))
        });
        format!("{scheme}://{}{}", user_info.unwrap_or_default(), self.address)
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() {
            encoded.push(char::from(octet));
        } else {
            write!(encoded, "%{octet:02x}").expect("a string takes what is written");
        }
    }
    encoded
}

/// Why a proxy's URL is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyUrlError {
    /// Neither `http://` nor `socks5://` or `socks5h://`.
    #[error("a proxy's URL begins with http:// or socks5://")]
    Scheme,
    /// No host, or a port that is none.
    #[error("a proxy's URL names a host, and perhaps a port")]
    Host,
    /// A percent sign without two hexadecimal digits, or octets that are no text.
    #[error("the user name or password of a proxy's URL is not percent-encoded text")]
    Encoding,
}

/// What a proxy's URL says.
enum Kind {
    Http,
    Socks,
}

fn parse(url: &str) -> Result<(Kind, Proxy), ProxyUrlError> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (kind, port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (Kind::Http, PROXY_PORT),
        "socks5" | "socks5h" | "socks" => (Kind::Socks, SOCKS_PORT),
        _ => return Err(ProxyUrlError::Scheme),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user_info, address) = match authority.rsplit_once('@') {
        Some((user_info, address)) => (Some(user_info), address),
        None => (None, authority),
    };
    let credentials = user_info.map(credentials).transpose()?;
    Ok((kind, Proxy { address: with_port(address, port)?, credentials }))
}

/// The address, with this port if it has none.
pub(crate) fn with_port(address: &str, default: u16) -> Result<String, ProxyUrlError> {
    let (host, port) = split(address);
    let port = match port {
        None | Some("") => default,
        Some(port) => port.parse().map_err(|_| ProxyUrlError::Host)?,
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(ProxyUrlError::Host);
    }
    Ok(format!("{host}:{port}"))
}

/// Host and port of an address; an IPv6 address stands in brackets.
pub(crate) fn split(address: &str) -> (&str, Option<&str>) {
    match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (address, None),
    }
}

fn credentials(user_info: &str) -> Result<Credentials, ProxyUrlError> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    Ok(Credentials { user: percent_decoded(user)?, password: percent_decoded(password)? })
}

fn percent_decoded(text: &str) -> Result<String, ProxyUrlError> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            octets.push(*first);
            continue;
        }
        let digit = |at: usize| rest.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else { return Err(ProxyUrlError::Encoding) };
        octets.push((high << 4 | low) as u8);
        rest = &rest[2..];
    }
    String::from_utf8(octets).map_err(|_| ProxyUrlError::Encoding)
}

impl Proxies {
    /// What `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` say, small letters before capitals (`HTTP_PROXY` is not asked, since
    /// a web server may have put a stranger's words there). A value that is not understood is logged and ignored.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let asked = |name: &str| {
            let capitals = if name == "http_proxy" { None } else { variable(&name.to_ascii_uppercase()) };
            variable(name).or(capitals).filter(|value| !value.trim().is_empty())
        };
        let mut proxies = Proxies::default();
        if let Some(list) = asked("no_proxy") {
            proxies.exempt = exempt(&list);
        }
        for name in ["all_proxy", "http_proxy", "https_proxy"] {
            let Some(url) = asked(name) else { continue };
            if let Err(error) = proxies.set(name, &url) {
                tracing::warn!(name, %error, "this variable is ignored");
            }
        }
        proxies
    }

    /// Sets a proxy as the environment variable of this name would.
    fn set(&mut self, name: &str, url: &str) -> Result<(), ProxyUrlError> {
        match (name, parse(url.trim())?) {
            ("http_proxy", (Kind::Http, proxy)) => self.http = Some(proxy),
            ("https_proxy", (Kind::Http, proxy)) => self.connect = Some(proxy),
            (_, (Kind::Http, proxy)) => {
                self.http.get_or_insert(proxy.clone());
                self.connect.get_or_insert(proxy);
            }
            (_, (Kind::Socks, proxy)) => self.socks = Some(proxy),
        }
        Ok(())
    }

    /// What a configuration says: URLs of an HTTP proxy for requests, of one for tunnels, of a SOCKS proxy, and hosts that need none.
    ///
    /// # Errors
    /// [`ProxyUrlError`].
    pub fn configured(
        http: Option<&str>,
        connect: Option<&str>,
        socks: Option<&str>,
        exempt: &[String],
    ) -> Result<Self, ProxyUrlError> {
        let of = |url: Option<&str>| url.map(|url| parse(url).map(|(_, proxy)| proxy)).transpose();
        let socks =
            socks.map(|url| if url.contains("://") { url.to_owned() } else { format!("socks5://{url}") });
        Ok(Self {
            http: of(http)?,
            connect: of(connect)?,
            socks: of(socks.as_deref())?,
            exempt: exempt.to_vec(),
        })
    }

    /// Whether the host is reached without a proxy.
    pub(crate) fn spares(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        self.exempt.iter().any(|entry| {
            let entry = entry.trim_start_matches('.').to_ascii_lowercase();
            let is_address = host.parse::<IpAddr>().is_ok();
            let is_below = || host.strip_suffix(&entry).is_some_and(|before| before.ends_with('.'));
            entry == "*" || host == entry || !is_address && !entry.is_empty() && is_below()
        })
    }
}

fn exempt(list: &str) -> Vec<String> {
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn address(proxy: &Option<Proxy>) -> Option<&str> {
        proxy.as_ref().map(|proxy| proxy.address.as_str())
    }

    #[test]
    fn the_usual_variables_are_understood() {
        let proxies = with(&[
            ("http_proxy", "http://web:3128/"),
            ("HTTPS_PROXY", "tunnel"),
            ("all_proxy", "socks5h://me:p%40ss@[::1]"),
            ("no_proxy", "localhost, .example.com,10.0.0.1"),
        ]);
        assert_eq!(address(&proxies.http), Some("web:3128"));
        assert_eq!(address(&proxies.connect), Some("tunnel:8080"));
        assert_eq!(address(&proxies.socks), Some("[::1]:1080"));
        let credentials = proxies.socks.clone().unwrap().credentials.unwrap();
        assert_eq!((credentials.user.as_str(), credentials.password.as_str()), ("me", "p@ss"));
        for (host, spared) in [
            ("localhost", true),
            ("LOCALHOST.", true),
            ("example.com", true),
            ("relay.example.com", true),
            ("badexample.com", false),
            ("10.0.0.1", true),
            ("110.0.0.1", false),
        ] {
            assert_eq!(proxies.spares(host), spared, "{host}");
        }
    }

    #[test]
    fn all_proxy_stands_in_for_both_and_http_proxy_in_capitals_is_not_asked() {
        let proxies =
            with(&[("ALL_PROXY", "http://any:1"), ("HTTP_PROXY", "http://evil:1"), ("https_proxy", "t:2")]);
        assert_eq!((address(&proxies.http), address(&proxies.connect)), (Some("any:1"), Some("t:2")));
        assert_eq!(with(&[]), Proxies::default());
        assert!(with(&[("no_proxy", "*")]).spares("anything"));
    }

    #[test]
    fn what_is_not_understood_is_said_or_ignored() {
        for (url, error) in [
            ("https://secure:1", ProxyUrlError::Scheme),
            ("http://", ProxyUrlError::Host),
            ("http://host:port", ProxyUrlError::Host),
            ("http://a%zz@host", ProxyUrlError::Encoding),
            ("http://a%ff@host", ProxyUrlError::Encoding),
        ] {
            assert_eq!(Proxies::configured(Some(url), None, None, &[]), Err(error), "{url}");
            assert_eq!(with(&[("http_proxy", url)]), Proxies::default());
        }
        let bare = Proxies::configured(None, None, Some("proxy"), &[]).unwrap();
        assert_eq!(address(&bare.socks), Some("proxy:1080"));
    }
}
