//! Heads of HTTP requests and responses: read with strict limits, written in the form of the examples (4.2).
//!
//! Unknown headers and odd values of known ones never make a request fail (2.2.1.2); what would make its length ambiguous
//! does.

use super::profile::{self, MAX_HEAD_BYTES, MAX_HEADERS};
use crate::time::Timestamp;
use std::fmt::{self, Write};

/// The status of a response. Requests of an encapsulation get one of the closed list of 2.2.1.4; those beyond it are for
/// requests that are no part of the protocol, such as a browser's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Success.
    Ok,
    /// A wrong version, or a protocol error.
    BadRequest,
    /// A virtual connection that belongs to another address.
    Forbidden,
    /// No such page.
    NotFound,
    /// The page is there, the method is not. Beyond the list.
    MethodNotAllowed,
    /// The request did not come in time.
    RequestTimeout,
    /// A POST without a length. Beyond the list.
    LengthRequired,
    /// A body above 32768 octets. Beyond the list.
    ContentTooLarge,
    /// A head above its limits. Beyond the list.
    HeadTooLarge,
    /// The relay takes no more connections now. Beyond the list.
    ServiceUnavailable,
    /// A transfer coding.
    NotImplemented,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    VersionNotSupported,
}

impl Status {
    /// The three digits.
    pub const fn code(self) -> u16 {
        self.parts().0
    }

    const fn parts(self) -> (u16, &'static str) {
        match self {
            Status::Ok => (200, "OK"),
            Status::BadRequest => (400, "Bad Request"),
            Status::Forbidden => (403, "Not Valid"),
            Status::NotFound => (404, "Not Found"),
            Status::MethodNotAllowed => (405, "Method Not Allowed"),
            Status::RequestTimeout => (408, "Request Time-out"),
            Status::LengthRequired => (411, "Length Required"),
            Status::ContentTooLarge => (413, "Content Too Large"),
            Status::HeadTooLarge => (431, "Request Header Fields Too Large"),
            Status::ServiceUnavailable => (503, "Service Unavailable"),
            Status::NotImplemented => (501, "Not Implemented"),
            Status::VersionNotSupported => (505, "HTTP Version Not Supported"),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, reason) = self.parts();
        write!(f, "{code} {reason}")
    }
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// It is not the head of an HTTP message.
    #[error("not HTTP")]
    Malformed,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("a version of HTTP that is not spoken here")]
    Version,
    /// Above [`MAX_HEAD_BYTES`] or [`MAX_HEADERS`].
    #[error("a head that is too large")]
    TooLarge,
    /// A Content-Length that is no number, or several that differ.
    #[error("an ambiguous Content-Length")]
    ContentLength,
    /// A transfer coding: none is used in this protocol.
    #[error("a transfer coding")]
    TransferCoding,
}

impl HeadError {
    /// What a request with it is answered.
    pub fn status(self) -> Status {
        match self {
            HeadError::Malformed | HeadError::ContentLength => Status::BadRequest,
            HeadError::Version => Status::VersionNotSupported,
            HeadError::TooLarge => Status::HeadTooLarge,
            HeadError::TransferCoding => Status::NotImplemented,
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => HeadError::TooLarge,
            httparse::Error::Version => HeadError::Version,
            _ => HeadError::Malformed,
        }
    }
}

/// The methods that differ here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// Any other.
    Other,
}

/// The head of a request, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The request URI as it came, without blanks.
    pub target: String,
    /// Content-Length.
    pub content_length: Option<u64>,
    /// The connection is to be closed after the answer.
    pub close: bool,
}

/// The head of a response, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// Content-Length.
    pub content_length: Option<u64>,
    /// The connection closes after this response.
    pub close: bool,
}

/// What both kinds of head say about the message behind them.
struct Framing {
    content_length: Option<u64>,
    close: bool,
}

/// Reads the head of a request at the front of `input`: it and its length, or `None` if it is not complete yet.
///
/// # Errors
/// [`HeadError`]; in particular if it would be longer than [`MAX_HEAD_BYTES`].
pub fn parse_request(input: &[u8]) -> Result<Option<(RequestHead, usize)>, HeadError> {
    let bounded = &input[..input.len().min(MAX_HEAD_BYTES)];
    let parsed = match parse_request_once(bounded) {
        Err(error) => match without_blanks_in_target(bounded) {
            Some((repaired, removed)) => {
                parse_request_once(&repaired)?.map(|(head, length)| (head, length + removed))
            }
            None => return Err(error),
        },
        Ok(parsed) => parsed,
    };
    if parsed.is_none() && input.len() >= MAX_HEAD_BYTES {
        return Err(HeadError::TooLarge);
    }
    Ok(parsed)
}

fn parse_request_once(input: &[u8]) -> Result<Option<(RequestHead, usize)>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = request.parse(input)? else { return Ok(None) };
    let method = match request.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("POST") => Method::Post,
        _ => Method::Other,
    };
    let framing = framing(request.headers, request.version == Some(1))?;
    let target = request.path.unwrap_or_default().to_owned();
    let Framing { content_length, close } = framing;
    Ok(Some((RequestHead { method, target, content_length, close }, length)))
}

/// The printed example of a LongLived URI has a blank in it (2.2.2.1.1), so the version is the last word of the request
/// line, and the URI all between it and the method. Gives the head without such blanks, and how many there were.
fn without_blanks_in_target(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let end = input.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, rest) = input.split_at(end);
    let first = line.iter().position(|&octet| octet == b' ')?;
    let last = line.iter().rposition(|&octet| octet == b' ')?;
    let target: Vec<u8> = line.get(first + 1..last)?.iter().copied().filter(|&octet| octet != b' ').collect();
    let removed = (last - first - 1) - target.len();
    (removed > 0).then(|| ([&line[..=first], &target, &line[last..], rest].concat(), removed))
}

/// Reads the head of a response at the front of `input`: it and its length, or `None` if it is not complete yet.
///
/// # Errors
/// [`HeadError`].
pub fn parse_response(input: &[u8]) -> Result<Option<(ResponseHead, usize)>, HeadError> {
    let bounded = &input[..input.len().min(MAX_HEAD_BYTES)];
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bounded)? {
        httparse::Status::Complete(length) => {
            let Framing { content_length, close } = framing(response.headers, response.version == Some(1))?;
            let status = response.code.unwrap_or_default();
            Ok(Some((ResponseHead { status, content_length, close }, length)))
        }
        httparse::Status::Partial if input.len() >= MAX_HEAD_BYTES => Err(HeadError::TooLarge),
        httparse::Status::Partial => Ok(None),
    }
}

fn framing(headers: &[httparse::Header<'_>], http_1_1: bool) -> Result<Framing, HeadError> {
    let mut framing = Framing { content_length: None, close: !http_1_1 };
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = decimal(header.value.trim_ascii()).ok_or(HeadError::ContentLength)?;
            if framing.content_length.replace(length).is_some_and(|before| before != length) {
                return Err(HeadError::ContentLength);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(HeadError::TransferCoding);
        } else if header.name.eq_ignore_ascii_case("connection") {
            for option in header.value.split(|&octet| octet == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    framing.close = true;
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    framing.close = false;
                }
            }
        }
    }
    Ok(framing)
}

/// A number of decimal digits only.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    all_digits.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// What a client's request says beside its method and URI (section 4.0).
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestHeaders<'a> {
    pub(super) host: &'a str,
    pub(super) content_length: Option<u64>,
    pub(super) keep_alive: bool,
    /// Through a proxy: Proxy-Connection is sent as Connection is, and this is the value of Proxy-Authorization.
    pub(super) proxy: Option<Option<&'a str>>,
}

/// A client's request head, in the order of the example (4.2).
pub(super) fn write_request(method: &str, target: &str, headers: RequestHeaders<'_>) -> String {
    let RequestHeaders { host, content_length, keep_alive, proxy } = headers;
    let mut head = format!(
        "{method} {target} HTTP/1.0\r\nAccept: */*\r\nContent-Type: application/octet-stream\r\n\
         User-Agent: {}\r\nHost: {host}\r\nPragma: no-cache\r\nCache-Control: no-cache\r\nExpires: 0\r\n",
        profile::USER_AGENT
    );
    let mut line = |name: &str, value: &dyn fmt::Display| {
        write!(head, "{name}: {value}\r\n").expect("a string takes what is written");
    };
    if keep_alive {
        line("Connection", &"Keep-Alive");
        if proxy.is_some() {
            line("Proxy-Connection", &"Keep-Alive");
        }
    }
    if let Some(Some(credentials)) = proxy {
        line("Proxy-Authorization", &credentials);
    }
    if let Some(length) = content_length {
        line("Content-Length", &length);
    }
    head.push_str("Cache-Control: max-age=0\r\n\r\n");
    head
}

/// A relay's response head.
pub(super) fn write_response(
    status: Status,
    now: Timestamp,
    keep_alive: bool,
    fields: &[(&str, &str)],
) -> String {
    let connection = if keep_alive { "Keep-Alive" } else { "close" };
    let mut head = format!(
        "HTTP/1.0 {status}\r\nDate: {}\r\nServer: {}\r\nConnection: {connection}\r\n",
        HttpDate(now),
        profile::SERVER
    );
    for (name, value) in fields {
        write!(head, "{name}: {value}\r\n").expect("a string takes what is written");
    }
    head.push_str("\r\n");
    head
}

/// An HTTP-date (2.2.1.2), such as `Wed, 26 Dec 2007 19:50:26 GMT`.
struct HttpDate(Timestamp);

impl fmt::Display for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let (days, second) = (self.0.as_secs() / 86_400, self.0.as_secs() % 86_400);
        // Years begin in March, so that a leap day is the last of its year; 400 years have 146097 days.
        let since_march_0 = days + 719_468;
        let (era, day_of_era) = (since_march_0 / 146_097, since_march_0 % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let year = era * 400 + year_of_era + u64::from(month >= 10);
        write!(
            f,
            "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
            DAYS[(days % 7) as usize],
            MONTHS[((month + 2) % 12) as usize],
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = "POST /2.0/server.domain.net/kicxp8,ConnType=KeepAlive HTTP/1.0\r\nAccept: */*\r\n\
        Content-Type: application/octet-stream\r\nUser-Agent: Mozilla/4.0 (compatible; MSIE 5.5; Win32)\r\n\
        UserAgent: server.domain.net\r\nConnection: Keep-Alive\r\nContent-Length: 22\r\nPragma: no-cache\r\n\
        Cache-Control: no-cache\r\nExpires: 0\r\nCache-Control: max-age=0\r\n\r\nGroovePing: 1.0,Ping\r\n";

    #[test]
    fn section_9_1_the_printed_post_is_read_though_it_has_no_host() {
        let (head, length) = parse_request(EXAMPLE.as_bytes()).unwrap().unwrap();
        assert_eq!(head.method, Method::Post);
        assert_eq!(head.target, "/2.0/server.domain.net/kicxp8,ConnType=KeepAlive");
        assert_eq!((head.content_length, head.close), (Some(22), false));
        assert_eq!(&EXAMPLE.as_bytes()[length..], profile::ECHO);
    }

    #[test]
    fn section_4_1_1_a_blank_in_the_uri_is_skipped() {
        let request = "GET /2.0/s/g,ConnType=LongLived, ID=x HTTP/1.0\r\nHost: s\r\n\r\nrest";
        let (head, length) = parse_request(request.as_bytes()).unwrap().unwrap();
        assert_eq!(head.target, "/2.0/s/g,ConnType=LongLived,ID=x");
        assert_eq!(&request[length..], "rest");
    }

    #[test]
    fn section_2_2_1_2_unknown_and_odd_headers_do_not_matter() {
        let request = "GET / HTTP/1.0\r\nExpires: tomorrow\r\nX-Forwarded-For: 1.2.3.4\r\nPragma:\r\n\r\n";
        assert!(parse_request(request.as_bytes()).unwrap().is_some());
    }

    #[test]
    fn what_is_refused_and_with_which_status() {
        let many = format!("GET / HTTP/1.0\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS + 1));
        let long = format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(MAX_HEAD_BYTES));
        for (request, error, code) in [
            ("\x05\x01\x00", HeadError::Malformed, 400),
            ("GET / HTTP/2.0\r\n\r\n", HeadError::Version, 505),
            (&many, HeadError::TooLarge, 431),
            (&long, HeadError::TooLarge, 431),
            ("POST / HTTP/1.0\r\nContent-Length: 1x\r\n\r\n", HeadError::ContentLength, 400),
            ("POST / HTTP/1.0\r\nContent-Length: +1\r\n\r\n", HeadError::ContentLength, 400),
            (
                "POST / HTTP/1.0\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                HeadError::ContentLength,
                400,
            ),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", HeadError::TransferCoding, 501),
        ] {
            assert_eq!(parse_request(request.as_bytes()), Err(error), "{request}");
            assert_eq!(error.status().code(), code);
        }
    }

    #[test]
    fn a_connection_lives_on_in_http_1_1_or_if_both_say_so() {
        for (head, close) in [
            ("HTTP/1.0 200 OK\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n", true),
        ] {
            assert_eq!(parse_response(head.as_bytes()).unwrap().unwrap().0.close, close, "{head}");
        }
    }

    #[test]
    fn http_dates_are_those_of_the_calendar() {
        for (second, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (1_198_698_626, "Wed, 26 Dec 2007 19:50:26 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(HttpDate(Timestamp(second * 1000)).to_string(), text);
        }
    }

    #[test]
    fn section_4_0_both_cache_directives_have_a_line_of_their_own() {
        let headers = RequestHeaders { host: "h", content_length: None, keep_alive: true, proxy: Some(None) };
        let head = write_request("GET", "/", headers);
        assert_eq!(head.matches("Cache-Control: no-cache\r\n").count(), 1);
        assert_eq!(head.matches("Cache-Control: max-age=0\r\n").count(), 1);
        assert!(head.contains("Proxy-Connection: Keep-Alive\r\n"));
        assert!(parse_request(head.as_bytes()).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn no_input_is_read_beyond_its_limit(input in prop::collection::vec(any::<u8>(), 0..2000)) {
            // It may be refused or incomplete; it is not to panic, and not to claim more than there is.
            if let Ok(Some((_, length))) = parse_request(&input) {
                prop_assert!(length <= input.len());
            }
            if let Ok(Some((_, length))) = parse_response(&input) {
                prop_assert!(length <= input.len());
            }
        }

        #[test]
        fn every_prefix_of_a_head_is_incomplete(cut in 0usize..EXAMPLE.len() - 22) {
            prop_assert_eq!(parse_request(&EXAMPLE.as_bytes()[..cut]), Ok(None));
        }
    }
}
