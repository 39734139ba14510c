//! SOCKS 5 (RFC 1928) with user name and password (RFC 1929), as http-encapsulation 4.5 wants it.

use super::{Credentials, Progress, ProxyError};
use bytes::{Buf, Bytes, BytesMut};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;
const COMMAND_CONNECT: u8 = 1;
const DOMAIN_NAME: u8 = 3;

/// A SOCKS handshake.
#[derive(Debug)]
pub struct Socks {
    input: BytesMut,
    stage: Stage,
    /// The Connect Request.
    request: Bytes,
    /// The message of RFC 1929, if there are credentials.
    login: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Method,
    Login,
    Reply,
}

impl Socks {
    /// Begins one to `host` and `port`; the bytes are to be sent. The proxy looks the name up.
    ///
    /// # Errors
    /// [`ProxyError::TooLong`].
    pub fn new(
        host: &str,
        port: u16,
        credentials: Option<&Credentials>,
    ) -> Result<(Self, Bytes), ProxyError> {
        let length = |text: &str| u8::try_from(text.len()).map_err(|_| ProxyError::TooLong);
        let mut request = vec![VERSION, COMMAND_CONNECT, 0, DOMAIN_NAME, length(host)?];
        request.extend_from_slice(host.as_bytes());
        request.extend_from_slice(&port.to_be_bytes());
        let login = match credentials {
            None => None,
            Some(Credentials { user, password }) => {
                let mut login = vec![1, length(user)?];
                login.extend_from_slice(user.as_bytes());
                login.push(length(password)?);
                login.extend_from_slice(password.as_bytes());
                Some(login.into())
            }
        };
        let socks = Self { input: BytesMut::new(), stage: Stage::Method, request: request.into(), login };
        Ok((socks, Bytes::from_static(&[VERSION, 2, NO_AUTHENTICATION, USER_PASSWORD])))
    }

    /// What came from the proxy.
    ///
    /// # Errors
    /// [`ProxyError`]; the connection is to be closed.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Progress, ProxyError> {
        self.input.extend_from_slice(bytes);
        match self.stage {
            Stage::Method => self.method(),
            Stage::Login => self.logged_in(),
            Stage::Reply => self.reply(),
        }
    }

    fn method(&mut self) -> Result<Progress, ProxyError> {
        if self.input.first().is_some_and(|&version| version != VERSION) {
            return Err(ProxyError::NotSocks);
        }
        let Some(&method) = self.input.get(1) else { return Ok(Progress::Send(Bytes::new())) };
        self.input.advance(2);
        match (method, self.login.take()) {
            (NO_AUTHENTICATION, _) => Ok(self.ask()),
            (USER_PASSWORD, Some(login)) => {
                self.stage = Stage::Login;
                Ok(Progress::Send(login))
            }
            (USER_PASSWORD, None) => Err(ProxyError::Authentication),
            (NONE_ACCEPTABLE, _) | (_, _) => Err(ProxyError::NoMethod),
        }
    }

    fn logged_in(&mut self) -> Result<Progress, ProxyError> {
        if self.input.len() < 2 {
            return Ok(Progress::Send(Bytes::new()));
        }
        let status = self.input[1];
        self.input.advance(2);
        if status == 0 { Ok(self.ask()) } else { Err(ProxyError::Authentication) }
    }

    fn ask(&mut self) -> Progress {
        self.stage = Stage::Reply;
        Progress::Send(self.request.clone())
    }

    /// Version, reply, a reserved octet, an address of one of three kinds, a port.
    fn reply(&mut self) -> Result<Progress, ProxyError> {
        let more = Ok(Progress::Send(Bytes::new()));
        match self.input.first_chunk::<2>() {
            Some(&[version, _]) if version != VERSION => return Err(ProxyError::NotSocks),
            Some(&[_, reply]) if reply != 0 => return Err(ProxyError::Reply(reply)),
            _ => {}
        }
        let Some(&[.., kind, first]) = self.input.first_chunk::<5>() else { return more };
        let address = match kind {
            1 => 4,
            DOMAIN_NAME => 1 + usize::from(first),
            4 => 16,
            _ => return Err(ProxyError::NotSocks),
        };
        let length = 4 + address + 2;
        if self.input.len() < length {
            return more;
        }
        self.input.advance(length);
        Ok(Progress::Open(std::mem::take(&mut self.input).freeze()))
    }
}

/// The meaning of a reply (RFC 1928 section 6).
pub(super) fn reply_text(reply: u8) -> &'static str {
    match reply {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "time to live expired",
        7 => "command not supported",
        8 => "address type not supported",
        _ => "for an unknown reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "server.domain.net";

    fn credentials() -> Credentials {
        Credentials { user: "me".into(), password: "key".into() }
    }

    /// Gives the proxy's octets one at a time and collects what is sent; at the end the tunnel is open.
    fn converse(socks: &mut Socks, octets: &[u8]) -> Result<(Vec<u8>, Vec<u8>), ProxyError> {
        let mut sent = Vec::new();
        for (at, octet) in octets.iter().enumerate() {
            match socks.receive(&[*octet])? {
                Progress::Send(bytes) => sent.extend_from_slice(&bytes),
                Progress::Open(first) => return Ok((sent, [&first, &octets[at + 1..]].concat())),
            }
        }
        panic!("the tunnel is not open")
    }

    #[test]
    fn section_9_4_vector() {
        let (mut socks, hello) = Socks::new(HOST, 2492, None).unwrap();
        assert_eq!(hello[..], [5, 2, 0, 2]);
        let (sent, through) =
            converse(&mut socks, b"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34sstp").unwrap();
        assert_eq!(sent, b"\x05\x01\x00\x03\x11server.domain.net\x09\xbc");
        assert_eq!(through, b"sstp");
    }

    #[test]
    fn rfc_1929_user_name_and_password() {
        let (mut socks, _) = Socks::new(HOST, 2492, Some(&credentials())).unwrap();
        let answers = b"\x05\x02\x01\x00\x05\x00\x00\x03\x02ab\x12\x34";
        let (sent, _) = converse(&mut socks, answers).unwrap();
        assert!(sent.starts_with(b"\x01\x02me\x03key\x05\x01\x00\x03"), "{sent:?}");
        let (mut socks, _) = Socks::new(HOST, 2492, Some(&credentials())).unwrap();
        assert_eq!(converse(&mut socks, b"\x05\x02\x01\x01"), Err(ProxyError::Authentication));
    }

    #[test]
    fn section_4_5_what_a_proxy_may_refuse() {
        for (answer, error) in [
            (&b"\x04\x5a"[..], ProxyError::NotSocks),
            (b"HTTP/1.0", ProxyError::NotSocks),
            (b"\x05\xff", ProxyError::NoMethod),
            (b"\x05\x01", ProxyError::NoMethod),
            (b"\x05\x02", ProxyError::Authentication),
            (b"\x05\x00\x05\x05", ProxyError::Reply(5)),
            (b"\x05\x00\x05\x00\x00\x09\x00", ProxyError::NotSocks),
        ] {
            let (mut socks, _) = Socks::new(HOST, 2492, None).unwrap();
            assert_eq!(converse(&mut socks, answer), Err(error), "{answer:?}");
        }
        assert_eq!(Socks::new(&"h".repeat(256), 1, None).err(), Some(ProxyError::TooLong));
    }

    #[test]
    fn an_ipv6_bound_address_is_skipped_whole() {
        let (mut socks, _) = Socks::new(HOST, 2492, None).unwrap();
        let answers = [&b"\x05\x00\x05\x00\x00\x04"[..], &[9; 18], b"x"].concat();
        assert_eq!(converse(&mut socks, &answers).unwrap().1, b"x");
    }
}
