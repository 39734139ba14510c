//! Which encapsulation a request is for: the dispatch table of port 80 (http-encapsulation 7.1) and the URIs of LongLived and
//! KeepAlive (2.2.2.1.1, 2.2.3.1.1).

use super::guid::Guid;
use super::head::{Method, Status, decimal};
use super::profile::{CONTENT_LENGTH, MAX_SERVER_NAME_BYTES, VERSION};

/// How HTTP carries a virtual connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encapsulation {
    /// One endless GET and one endless POST.
    LongLived,
    /// Many requests on two connections.
    KeepAlive,
    /// A connection for each request.
    Polling,
}

/// What a LongLived or KeepAlive request names. The Relay-Server-Name is not kept: a relay has names that it does not know
/// of, and SSTP's Connect says which relay is meant (gap G4; notes 18 and 19).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// LongLived or KeepAlive.
    pub encapsulation: Encapsulation,
    /// The virtual connection.
    pub guid: Guid,
    /// The octets of one direction of a LongLived connection, at most [`CONTENT_LENGTH`].
    pub content_length: u64,
}

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A person with a browser.
    Page,
    /// Polling: the body says which virtual connection.
    Polling,
    /// LongLived or KeepAlive.
    Virtual(Target),
}

/// Where a request goes.
///
/// # Errors
/// The status that it is answered.
pub fn route(method: Method, target: &str) -> Result<Route, Status> {
    let path = path(target);
    if path.is_empty() || path == "/" {
        return match method {
            Method::Get | Method::Head => Ok(Route::Page),
            Method::Post => Ok(Route::Polling),
            Method::Other => Err(Status::MethodNotAllowed),
        };
    }
    if !path.contains(",ConnType=") {
        return Err(Status::NotFound);
    }
    match method {
        Method::Get | Method::Post => parse(path).map(Route::Virtual).ok_or(Status::BadRequest),
        Method::Head | Method::Other => Err(Status::MethodNotAllowed),
    }
}

/// The path of a relative or absolute URI: not every proxy rewrites the latter.
fn path(target: &str) -> &str {
    let scheme = "http://";
    match target.get(..scheme.len()) {
        Some(start) if start.eq_ignore_ascii_case(scheme) => {
            let rest = &target[scheme.len()..];
            rest.find('/').map_or("", |at| &rest[at..])
        }
        _ => target,
    }
}

/// `/2.0/NAME/GUID,ConnType=...` with its parameters in any order; those that are unknown are ignored, the ID too (2.2.2.1.1.4).
fn parse(path: &str) -> Option<Target> {
    let mut segments = path.strip_prefix('/')?.splitn(3, '/');
    let (version, name, rest) = (segments.next()?, segments.next()?, segments.next()?);
    if version != VERSION || name.is_empty() || name.len() > MAX_SERVER_NAME_BYTES {
        return None;
    }
    let mut parameters = rest.split(',').map(str::trim);
    let guid = Guid::parse(parameters.next()?.as_bytes())?;
    let (mut encapsulation, mut content_length) = (None, CONTENT_LENGTH);
    for parameter in parameters {
        match parameter.split_once('=')? {
            ("ConnType", "LongLived") => encapsulation = Some(Encapsulation::LongLived),
            ("ConnType", "KeepAlive") => encapsulation = Some(Encapsulation::KeepAlive),
            ("ConnType", _) => return None,
            ("ContentLength", length) => content_length = decimal(length.as_bytes())?.min(CONTENT_LENGTH),
            _ => {}
        }
    }
    Some(Target { encapsulation: encapsulation?, guid, content_length })
}

/// The URI of a LongLived or KeepAlive request, relative.
pub(super) fn write(encapsulation: Encapsulation, server_name: &str, guid: &Guid) -> String {
    match encapsulation {
        Encapsulation::LongLived => {
            format!("/{VERSION}/{server_name}/{guid},ConnType=LongLived,ContentLength={CONTENT_LENGTH}")
        }
        Encapsulation::KeepAlive => format!("/{VERSION}/{server_name}/{guid},ConnType=KeepAlive"),
        Encapsulation::Polling => "/".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(encapsulation: Encapsulation, guid: &str, content_length: u64) -> Result<Route, Status> {
        let guid = Guid::parse(guid.as_bytes()).unwrap();
        Ok(Route::Virtual(Target { encapsulation, guid, content_length }))
    }

    #[test]
    fn section_4_printed_uris() {
        let long = "hczn5kctbrpxfgkgxzqs6zmkp9uwvswszvs6f72";
        let keep = "kicxp8rrgwqdwhf7c6xsgbagmcdnxm9phtvbj5a";
        let id = "ID=ugqrvphxsc2yqfjqh8ijah6crkziz8qrspvh9ja";
        let (long_lived, keep_alive) = (Encapsulation::LongLived, Encapsulation::KeepAlive);
        for (uri, expected) in [
            (
                format!("/2.0/server.domain.net/{long},ConnType=LongLived,ContentLength=2147479552"),
                target(long_lived, long, CONTENT_LENGTH),
            ),
            (
                format!(
                    "http://server.domain.net/2.0/server.domain.net/{long},ConnType=LongLived,ContentLength=2147479552,{id}"
                ),
                target(long_lived, long, CONTENT_LENGTH),
            ),
            (
                format!("/2.0/server.domain.net/{keep},ConnType=KeepAlive"),
                target(keep_alive, keep, CONTENT_LENGTH),
            ),
            (
                format!("HTTP://server.domain.net/2.0/server.domain.net/{keep},ConnType=KeepAlive,{id}"),
                target(keep_alive, keep, CONTENT_LENGTH),
            ),
        ] {
            assert_eq!(route(Method::Get, &uri), expected, "{uri}");
            assert_eq!(route(Method::Post, &uri), expected, "{uri}");
        }
    }

    #[test]
    fn section_7_1_dispatch() {
        for (method, uri, expected) in [
            (Method::Get, "/", Ok(Route::Page)),
            (Method::Head, "/", Ok(Route::Page)),
            (Method::Get, "http://relay", Ok(Route::Page)),
            (Method::Post, "/", Ok(Route::Polling)),
            (Method::Post, "http://relay", Ok(Route::Polling)),
            (Method::Post, "http://relay:8080/", Ok(Route::Polling)),
            (Method::Other, "/", Err(Status::MethodNotAllowed)),
            (Method::Get, "/favicon.ico", Err(Status::NotFound)),
            (Method::Post, "/form", Err(Status::NotFound)),
            (Method::Other, "*", Err(Status::NotFound)),
            (Method::Get, "ü", Err(Status::NotFound)),
            (Method::Head, "/2.0/r/g,ConnType=KeepAlive", Err(Status::MethodNotAllowed)),
        ] {
            assert_eq!(route(method, uri), expected, "{uri}");
        }
    }

    #[test]
    fn section_7_3_a_wrong_version_name_guid_type_or_length_is_400() {
        for uri in [
            "/1.2/r/g,ConnType=LongLived",
            "/2.0//g,ConnType=LongLived",
            "/2.0/r/,ConnType=LongLived",
            "/2.0/r/g-h,ConnType=LongLived",
            "/2.0/r/g,ConnType=Short",
            "/2.0/r/g,ConnType=LongLived,ContentLength=-1",
            "/2.0/r/g,ConnType=LongLived,noise",
            "/2.0/r,ConnType=LongLived",
        ] {
            assert_eq!(route(Method::Get, uri), Err(Status::BadRequest), "{uri}");
        }
    }

    #[test]
    fn what_a_client_writes_is_what_a_relay_reads_and_a_large_budget_is_cut() {
        for encapsulation in [Encapsulation::LongLived, Encapsulation::KeepAlive] {
            let written = write(encapsulation, "relay.example:8080", &Guid::parse(b"abc").unwrap());
            assert_eq!(route(Method::Get, &written), target(encapsulation, "abc", CONTENT_LENGTH));
        }
        let greedy = "/2.0/r/abc,ConnType=LongLived,ContentLength=99999999999";
        assert_eq!(route(Method::Get, greedy), target(Encapsulation::LongLived, "abc", CONTENT_LENGTH));
    }
}
