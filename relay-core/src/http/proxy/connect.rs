//! CONNECT (http-encapsulation 4.4).

use super::super::head;
use super::super::profile::USER_AGENT;
use super::{Credentials, Progress, ProxyError};
use bytes::{Buf, Bytes, BytesMut};

/// A CONNECT handshake.
#[derive(Debug, Default)]
pub struct Connect(BytesMut);

impl Connect {
    /// Begins one to `authority`, `HOST:PORT`; the bytes are to be sent. Credentials go with the first request, since a proxy
    /// that wants them would only ask for them (7.7).
    pub fn new(authority: &str, credentials: Option<&Credentials>) -> (Self, Bytes) {
        let authorization = credentials
            .map(|credentials| format!("Proxy-Authorization: {}\r\n", credentials.basic()))
            .unwrap_or_default();
        let request = format!(
            "CONNECT {authority} HTTP/1.0\r\nHost: {authority}\r\nUser-Agent: {USER_AGENT}\r\n\
             Proxy-Connection: Keep-Alive\r\n{authorization}\r\n"
        );
        (Self::default(), request.into())
    }

    /// What came from the proxy.
    ///
    /// # Errors
    /// [`ProxyError`]; the connection is to be closed.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Progress, ProxyError> {
        self.0.extend_from_slice(bytes);
        let Some((head, length)) = head::parse_response(&self.0)? else {
            return Ok(Progress::Send(Bytes::new()));
        };
        match head.status {
            200..=299 => {
                self.0.advance(length);
                Ok(Progress::Open(std::mem::take(&mut self.0).freeze()))
            }
            401 | 407 => Err(ProxyError::Authentication),
            status => Err(ProxyError::Status(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_4_4_a_2xx_opens_the_tunnel_however_it_is_cut() {
        let answer = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nfirst";
        for cut in 0..answer.len() {
            let (mut connect, request) = Connect::new("server.domain.net:443", None);
            assert!(request.starts_with(b"CONNECT server.domain.net:443 HTTP/1.0\r\n"));
            assert!(request.ends_with(b"\r\n\r\n"));
            let mut through = Vec::new();
            let mut pieces = [&answer[..cut], &answer[cut..]].into_iter();
            for piece in pieces.by_ref() {
                if let Progress::Open(bytes) = connect.receive(piece).unwrap() {
                    through.extend_from_slice(&bytes);
                    break;
                }
            }
            pieces.for_each(|piece| through.extend_from_slice(piece));
            assert_eq!(through, b"first", "cut at {cut}");
        }
    }

    #[test]
    fn section_7_7_credentials_are_basic_and_407_or_401_asks_for_others() {
        let credentials = Credentials { user: "Aladdin".into(), password: "open sesame".into() };
        let (_, request) = Connect::new("r:443", Some(&credentials));
        let request = String::from_utf8(request.to_vec()).unwrap();
        assert!(request.contains("Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"), "{request}");
        for (status, error) in [
            (407, ProxyError::Authentication),
            (401, ProxyError::Authentication),
            (403, ProxyError::Status(403)),
            (503, ProxyError::Status(503)),
        ] {
            let answer = format!("HTTP/1.0 {status} No\r\n\r\n");
            assert_eq!(Connect::default().receive(answer.as_bytes()), Err(error));
        }
        assert!(matches!(Connect::default().receive(b"\x05\xff"), Err(ProxyError::Head(_))));
        assert!(!format!("{credentials:?}").contains("sesame"), "passwords stay out of the log");
    }
}
