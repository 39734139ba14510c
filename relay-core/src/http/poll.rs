//! The bodies of Polling: Polling-Virtual-Connection-Message, Polling-Virtual-Connection-Response-Message and the
//! application data behind them (2.2.4.1.3, 2.2.4.2).

use super::checksum;
use super::guid::Guid;
use super::head::decimal;
use super::profile::{MAX_BODY_BYTES, MAX_SERVER_NAME_BYTES, POLLING_VERSION};
use bytes::{Buf, Bytes};

/// Why the body of a Polling request or response is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PollError {
    /// A field has no end, or is too long.
    #[error("the {0} has no end")]
    Unterminated(&'static str),
    /// Another version than 1.2.
    #[error("another version than {POLLING_VERSION}")]
    Version,
    /// The GUID has not its form.
    #[error("not a GUID")]
    Guid,
    /// A number is none, or too large.
    #[error("the {0} is not a number")]
    Number(&'static str),
    /// The data are not those of the checksum.
    #[error("the checksum is wrong")]
    Checksum,
    /// More than 32768 octets.
    #[error("a body that is too long")]
    TooLong,
}

/// The body of a request: which virtual connection, which request, and what it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// The Relay-Server-URL, to be given back as it came (gap G4).
    pub server: Bytes,
    /// The virtual connection.
    pub guid: Guid,
    /// Sequence-Number.
    pub sequence: u32,
    /// Application data; the checksum was right.
    pub data: Bytes,
}

/// The numbers by which a server dictates how often to poll (2.2.4.2, 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// MinPollInterval in seconds.
    pub min: u32,
    /// MaxPollInterval in seconds.
    pub max: u32,
    /// PollRepetitions.
    pub repetitions: u32,
}

impl Pace {
    /// Three equal numbers: right in whichever order they are meant (gap G3, wire-profile 5).
    pub fn steady(seconds: u32) -> Self {
        Self { min: seconds, max: seconds, repetitions: seconds }
    }
}

/// Takes the field at the front of `body`, without its NUL.
fn field(body: &mut Bytes, name: &'static str, most: usize) -> Result<Bytes, PollError> {
    let end = body.iter().take(most + 1).position(|&octet| octet == 0);
    let field = body.split_to(end.ok_or(PollError::Unterminated(name))?);
    body.advance(1);
    Ok(field)
}

fn number(body: &mut Bytes, name: &'static str) -> Result<u32, PollError> {
    let digits = field(body, name, 20)?;
    decimal(&digits).and_then(|number| u32::try_from(number).ok()).ok_or(PollError::Number(name))
}

/// The message of five fields; what is behind it stays in `body`. The checksum is not compared yet.
fn message(body: &mut Bytes) -> Result<(Poll, u32), PollError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(PollError::TooLong);
    }
    if field(body, "version", 16)? != POLLING_VERSION {
        return Err(PollError::Version);
    }
    let server = field(body, "server name", MAX_SERVER_NAME_BYTES)?;
    let guid = Guid::parse(&field(body, "GUID", super::profile::MAX_GUID_CHARS)?).ok_or(PollError::Guid)?;
    let sequence = number(body, "sequence number")?;
    let sum = checksum::parse(&field(body, "checksum", 21)?).ok_or(PollError::Number("checksum"))?;
    Ok((Poll { server, guid, sequence, data: Bytes::new() }, sum))
}

fn with_data(mut poll: Poll, sum: u32, data: Bytes) -> Result<Poll, PollError> {
    if !checksum::matches(sum, &data) {
        return Err(PollError::Checksum);
    }
    poll.data = data;
    Ok(poll)
}

/// Which virtual connection a request is for, whatever else is in it.
///
/// # Errors
/// [`PollError`].
pub fn guid(mut body: Bytes) -> Result<Guid, PollError> {
    Ok(message(&mut body)?.0.guid)
}

/// Reads the body of a request.
///
/// # Errors
/// [`PollError`].
pub fn parse_request(mut body: Bytes) -> Result<Poll, PollError> {
    let (poll, sum) = message(&mut body)?;
    with_data(poll, sum, body)
}

/// Reads the body of a response.
///
/// # Errors
/// [`PollError`].
pub fn parse_response(mut body: Bytes) -> Result<(Poll, Pace), PollError> {
    let (poll, sum) = message(&mut body)?;
    let min = number(&mut body, "minimum interval")?;
    let max = number(&mut body, "maximum interval")?;
    let repetitions = number(&mut body, "repetitions")?;
    Ok((with_data(poll, sum, body)?, Pace { min, max, repetitions }))
}

/// Octets that the message, with the numbers of a response if there are any, takes of a body at most.
pub(super) fn overhead(server: &[u8], guid: &Guid, pace: Option<Pace>) -> usize {
    let numbers = pace.map_or(0, |pace| numbers(pace).len());
    POLLING_VERSION.len() + server.len() + guid.as_str().len() + 10 + 10 + 5 + numbers
}

fn numbers(pace: Pace) -> String {
    format!("{}\0{}\0{}\0", pace.min, pace.max, pace.repetitions)
}

/// The body of a request, or with `pace` of a response.
pub(super) fn write(server: &[u8], guid: &Guid, sequence: u32, pace: Option<Pace>, data: &[u8]) -> Bytes {
    let sum = checksum::checksum(data);
    let numbers = pace.map(numbers).unwrap_or_default();
    let before = format!("{POLLING_VERSION}\0");
    let after = format!("\0{guid}\0{sequence}\0{sum}\0{numbers}");
    let body: Bytes = [before.as_bytes(), server, after.as_bytes(), data].concat().into();
    debug_assert!(body.len() <= MAX_BODY_BYTES, "data are cut to what a body holds");
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GUID: &str = "kicxp8rrgwqdwhf7c6xsgbagmcdnxm9phtvbj5a";

    fn probe() -> Vec<u8> {
        format!("1.2\0server.domain.net\0{GUID}\x000\x000\0").into_bytes()
    }

    #[test]
    fn section_9_2_probe_vector() {
        let guid = Guid::parse(GUID.as_bytes()).unwrap();
        let written = write(b"server.domain.net", &guid, 0, None, b"");
        assert_eq!(written, probe());
        assert_eq!(written.len(), 66);
        assert_eq!(&written[..5], [0x31, 0x2e, 0x32, 0x00, 0x73]);
        let response = write(b"server.domain.net", &guid, 0, Some(Pace::steady(5)), b"");
        assert_eq!(response.len(), 72);
        assert_eq!(&response[66..], [0x35, 0, 0x35, 0, 0x35, 0]);
        let (poll, pace) = parse_response(response).unwrap();
        assert_eq!((poll.sequence, pace, poll.data.len()), (0, Pace { min: 5, max: 5, repetitions: 5 }, 0));
    }

    #[test]
    fn section_4_3_3_what_is_wrong_with_a_message_is_named() {
        let changed = |from: &str, to: &str| {
            let text = String::from_utf8(probe()).unwrap().replacen(from, to, 1);
            parse_request(text.into_bytes().into()).unwrap_err()
        };
        assert_eq!(changed("1.2", "1.1"), PollError::Version);
        assert_eq!(changed("kicxp8", "kic xp8"), PollError::Guid);
        assert_eq!(changed("5a\0", "5a\0x"), PollError::Number("sequence number"));
        assert_eq!(changed("\x000\x000\0", "\x000\x001\0"), PollError::Checksum);
        assert_eq!(changed("server", &"s".repeat(400)), PollError::Unterminated("server name"));
        assert_eq!(changed("\x000\x000\0", "\x000\x000"), PollError::Unterminated("checksum"));
        let long = [probe(), vec![0; MAX_BODY_BYTES]].concat();
        assert_eq!(parse_request(long.into()), Err(PollError::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            server in "[a-z.]{1,40}", guid in "[a-zA-Z0-9]{1,64}", sequence: u32, seconds: u32,
            data in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let guid = Guid::parse(guid.as_bytes()).unwrap();
            let server = Bytes::from(server);
            let expected = Poll { server: server.clone(), guid: guid.clone(), sequence, data: data.clone().into() };
            let request = write(&server, &guid, sequence, None, &data);
            prop_assert!(request.len() <= overhead(&server, &guid, None) + data.len());
            prop_assert_eq!(parse_request(request), Ok(expected.clone()));
            let pace = Pace::steady(seconds);
            let response = write(&server, &guid, sequence, Some(pace), &data);
            prop_assert!(response.len() <= overhead(&server, &guid, Some(pace)) + data.len());
            prop_assert_eq!(parse_response(response), Ok((expected, pace)));
        }

        #[test]
        fn no_body_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            // Almost all are refused; that is not the point.
            let _ = parse_request(body.clone().into());
            let _ = parse_response(body.into());
        }
    }
}
