//! The plaintexts of form `provisional-1` (management-soap-spmr 9.6, ours but for RelayQuiescent, which is seen): requests
//! and responses to and from XML. Learning the true form means another module like this one.

use super::canonical::{push_attribute, push_empty, push_tag};
use super::error::SpmrError;
use super::operation::Operation;
use super::profile::{MAX_USERS_PER_REQUEST, PROLOG};
use super::request::{Defaults, ListedUser, Outcome, Request};
use super::xml::{Element, Scanner, XmlError};
use crate::address::{AccountUrl, IdentityUrl};
use crate::directory::SecretKey;
use crate::security::{MAX_IDENTITIES_PER_ACCOUNT, MAX_PRE_AUTH_TOKEN_BYTES};
use std::str::FromStr;

fn xml(error: XmlError) -> SpmrError {
    SpmrError::Xml("the plaintext", error)
}

/// Writes a request.
pub fn write_request(request: &Request) -> String {
    let operation = request.operation().name();
    let mut out = format!("{PROLOG}<{operation}>");
    match request {
        Request::UserAdd(users) => users.iter().for_each(|user| push_user(&mut out, user)),
        Request::AccountModify(accounts) => {
            for (account, locked_out) in accounts {
                let status = if *locked_out { "1" } else { "0" };
                push_empty(&mut out, "user", [("account", account.as_str()), ("status", status)]);
            }
        }
        Request::UserPurge(accounts) => {
            for account in accounts {
                push_empty(&mut out, "user", [("account", account.as_str())]);
            }
        }
        Request::RelayDefault(defaults) => {
            let Defaults { quota_bytes, lifetime_seconds, pre_authentication } = defaults;
            push_tag(&mut out, "relay", []);
            push_number(&mut out, "quota", *quota_bytes);
            push_number(&mut out, "lifetime", lifetime_seconds.map(u64::from));
            push_number(&mut out, "preauth", pre_authentication.map(u64::from));
            out.push_str("/>");
        }
        Request::RelayQuiescent(quiescent) => {
            push_empty(&mut out, "relay", [("status", if *quiescent { "1" } else { "0" })]);
        }
    }
    out.push_str("</");
    out.push_str(operation);
    out.push('>');
    out
}

fn push_number(out: &mut String, name: &str, number: Option<u64>) {
    if let Some(number) = number {
        push_attribute(out, name, &number.to_string());
    }
}

fn push_user(out: &mut String, user: &ListedUser) {
    // Tokens come from text; one that is not text cannot be presented in this form.
    let token = user.token.as_ref().map_or("", |token| std::str::from_utf8(token.expose()).unwrap_or(""));
    push_tag(out, "user", [("account", user.account.as_str()), ("token", token)]);
    push_number(out, "quota", user.quota_bytes);
    push_number(out, "lifetime", user.lifetime_seconds.map(u64::from));
    if user.identities.is_empty() {
        return out.push_str("/>");
    }
    out.push('>');
    for identity in &user.identities {
        push_empty(out, "identity", [("url", identity.as_str())]);
    }
    out.push_str("</user>");
}

/// Reads the request of an operation that has one, out of its cipher.
///
/// # Errors
/// What is wrong with it.
pub fn read_request(operation: Operation, plaintext: &[u8]) -> Result<Request, SpmrError> {
    let mut scanner = Scanner::new(plaintext).map_err(xml)?;
    let root = scanner.child().map_err(xml)?.ok_or(SpmrError::Missing("the plaintext"))?;
    if root.name() != operation.name() {
        return Err(SpmrError::OtherPlaintext(operation));
    }
    let request = match operation {
        Operation::UserAdd => Request::UserAdd(each(&mut scanner, read_user)?),
        Operation::AccountModify => Request::AccountModify(each(&mut scanner, |scanner, element| {
            scanner.skip().map_err(xml)?;
            Ok((read_account(element)?, required_flag(element, "status")?))
        })?),
        Operation::UserPurge => Request::UserPurge(each(&mut scanner, |scanner, element| {
            scanner.skip().map_err(xml)?;
            read_account(element)
        })?),
        Operation::RelayDefault => Request::RelayDefault(read_defaults(&only_relay(&mut scanner)?)?),
        Operation::RelayQuiescent => {
            Request::RelayQuiescent(required_flag(&only_relay(&mut scanner)?, "status")?)
        }
        Operation::Registration => return Err(SpmrError::OtherPlaintext(operation)),
    };
    scanner.finish().map_err(xml)?;
    Ok(request)
}

/// Reads every `user` of a request with `read`, which sees each to its end; there has to be one.
fn each<'x, T>(
    scanner: &mut Scanner<'x>,
    read: impl Fn(&mut Scanner<'x>, &Element<'x>) -> Result<T, SpmrError>,
) -> Result<Vec<T>, SpmrError> {
    let mut users = Vec::new();
    while let Some(element) = scanner.child().map_err(xml)? {
        if element.name() != "user" {
            scanner.skip().map_err(xml)?;
            continue;
        }
        if users.len() == MAX_USERS_PER_REQUEST {
            return Err(SpmrError::TooManyUsers);
        }
        users.push(read(scanner, &element)?);
    }
    if users.is_empty() { Err(SpmrError::Missing("user")) } else { Ok(users) }
}

/// The one `relay` of a request.
fn only_relay<'x>(scanner: &mut Scanner<'x>) -> Result<Element<'x>, SpmrError> {
    let mut relay = None;
    while let Some(element) = scanner.child().map_err(xml)? {
        scanner.skip().map_err(xml)?;
        if element.name() == "relay" && relay.replace(element).is_some() {
            return Err(SpmrError::Value("a second relay element"));
        }
    }
    relay.ok_or(SpmrError::Missing("relay"))
}

fn attribute<'e>(
    element: &'e Element<'_>,
    name: &'static str,
) -> Result<Option<std::borrow::Cow<'e, str>>, SpmrError> {
    element.attribute(name).map_err(xml)
}

fn number<N: FromStr>(element: &Element<'_>, name: &'static str) -> Result<Option<N>, SpmrError> {
    let Some(text) = attribute(element, name)? else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| SpmrError::Value(name))
}

fn flag(element: &Element<'_>, name: &'static str) -> Result<Option<bool>, SpmrError> {
    match number::<i32>(element, name)? {
        None => Ok(None),
        Some(0) => Ok(Some(false)),
        Some(1) => Ok(Some(true)),
        Some(_) => Err(SpmrError::Value(name)),
    }
}

fn required_flag(element: &Element<'_>, name: &'static str) -> Result<bool, SpmrError> {
    flag(element, name)?.ok_or(SpmrError::Missing(name))
}

fn lifetime(element: &Element<'_>) -> Result<Option<u32>, SpmrError> {
    match number::<u32>(element, "lifetime")? {
        Some(0) => Err(SpmrError::Value("lifetime")),
        lifetime => Ok(lifetime),
    }
}

fn read_account(element: &Element<'_>) -> Result<AccountUrl, SpmrError> {
    let account = attribute(element, "account")?.ok_or(SpmrError::Missing("account"))?;
    AccountUrl::new(account.as_bytes()).map_err(|_| SpmrError::Value("account"))
}

fn read_user<'x>(scanner: &mut Scanner<'x>, element: &Element<'x>) -> Result<ListedUser, SpmrError> {
    let account = read_account(element)?;
    let token = attribute(element, "token")?.ok_or(SpmrError::Missing("token"))?;
    if token.len() > MAX_PRE_AUTH_TOKEN_BYTES {
        return Err(SpmrError::Value("token"));
    }
    let token = (!token.is_empty()).then(|| SecretKey::new(token.as_bytes().to_vec()));
    let (quota_bytes, lifetime_seconds) = (number(element, "quota")?, lifetime(element)?);
    let mut identities = Vec::new();
    while let Some(child) = scanner.child().map_err(xml)? {
        scanner.skip().map_err(xml)?;
        if child.name() != "identity" {
            continue;
        }
        let url = attribute(&child, "url")?.ok_or(SpmrError::Missing("url"))?;
        let identity = IdentityUrl::new(url.as_bytes()).map_err(|_| SpmrError::Value("url"))?;
        if identities.contains(&identity) {
            continue;
        }
        if identities.len() == MAX_IDENTITIES_PER_ACCOUNT {
            return Err(SpmrError::Value("the number of identities"));
        }
        identities.push(identity);
    }
    Ok(ListedUser { account, identities, token, quota_bytes, lifetime_seconds })
}

fn read_defaults(element: &Element<'_>) -> Result<Defaults, SpmrError> {
    let defaults = Defaults {
        quota_bytes: number(element, "quota")?,
        lifetime_seconds: lifetime(element)?,
        pre_authentication: flag(element, "preauth")?,
    };
    if defaults == Defaults::default() {
        return Err(SpmrError::Missing("quota, lifetime or preauth"));
    }
    Ok(defaults)
}

/// Writes a response.
pub(super) fn write_response(operation: Operation, outcome: Outcome) -> String {
    let (root, status) = (operation.response_name(), outcome as u8);
    format!("{PROLOG}<{root}><result status=\"{status}\"/></{root}>")
}

/// Reads the response of an operation, out of its cipher.
///
/// # Errors
/// What is wrong with it.
pub fn read_response(operation: Operation, plaintext: &[u8]) -> Result<Outcome, SpmrError> {
    let mut scanner = Scanner::new(plaintext).map_err(xml)?;
    let root = scanner.child().map_err(xml)?.ok_or(SpmrError::Missing("the plaintext"))?;
    if ![operation.response_name(), operation.name()].contains(&root.name()) {
        return Err(SpmrError::OtherPlaintext(operation));
    }
    let mut outcome = None;
    while let Some(element) = scanner.child().map_err(xml)? {
        scanner.skip().map_err(xml)?;
        if element.name() == "result" {
            let status = number::<i32>(&element, "status")?.ok_or(SpmrError::Missing("status"))?;
            let found = Outcome::ALL.iter().copied().find(|outcome| *outcome as i32 == status);
            outcome = Some(found.ok_or(SpmrError::Value("status"))?);
        }
    }
    scanner.finish().map_err(xml)?;
    outcome.ok_or(SpmrError::Missing("result"))
}

#[cfg(test)]
mod tests {
    use super::super::vectors::QUIESCENT;
    use super::*;
    use proptest::prelude::*;

    fn account(text: &str) -> AccountUrl {
        AccountUrl::new(text).unwrap()
    }

    #[test]
    fn the_plaintexts_of_the_vectors_are_written_and_read() {
        for (vector, quiescent) in QUIESCENT.iter().zip([true, false]) {
            let request = Request::RelayQuiescent(quiescent);
            assert_eq!(write_request(&request), vector.plaintext);
            assert_eq!(vector.plaintext.len(), 101);
            assert_eq!(read_request(Operation::RelayQuiescent, vector.plaintext.as_bytes()), Ok(request));
        }
    }

    #[test]
    fn requests_stand_as_form_provisional_1_says() {
        let user = ListedUser {
            account: account("grooveAccount://a@"),
            identities: vec![IdentityUrl::new("grooveIdentity://i@").unwrap()],
            token: Some(SecretKey::new(b"t&t".to_vec())),
            quota_bytes: Some(7),
            lifetime_seconds: Some(9),
        };
        let bare = ListedUser {
            account: account("b"),
            identities: vec![],
            token: None,
            quota_bytes: None,
            lifetime_seconds: None,
        };
        let defaults =
            Defaults { quota_bytes: Some(1), lifetime_seconds: None, pre_authentication: Some(true) };
        let cases = [
            (
                Request::UserAdd(vec![user, bare]),
                "<userAdd><user account=\"grooveAccount://a@\" token=\"t&amp;t\" quota=\"7\" lifetime=\"9\">\
                 <identity url=\"grooveIdentity://i@\"/></user><user account=\"b\" token=\"\"/></userAdd>",
            ),
            (
                Request::AccountModify(vec![(account("a"), false), (account("b"), true)]),
                "<accountModify><user account=\"a\" status=\"0\"/><user account=\"b\" status=\"1\"/></accountModify>",
            ),
            (Request::UserPurge(vec![account("a")]), "<userPurge><user account=\"a\"/></userPurge>"),
            (
                Request::RelayDefault(defaults),
                "<RelayDefault><relay quota=\"1\" preauth=\"1\"/></RelayDefault>",
            ),
        ];
        for (request, text) in cases {
            assert_eq!(write_request(&request), format!("{PROLOG}{text}"));
            assert_eq!(read_request(request.operation(), text.as_bytes()), Ok(request));
        }
    }

    #[test]
    fn values_out_of_range_and_missing_parts_are_told_apart() {
        use Operation::*;
        let many =
            format!("<userPurge>{}</userPurge>", "<user account='a'/>".repeat(MAX_USERS_PER_REQUEST + 1));
        let long = format!("<userAdd><user account='a' token='{}'/></userAdd>", "t".repeat(1025));
        let identities: String =
            (0..=MAX_IDENTITIES_PER_ACCOUNT).map(|i| format!("<identity url='{i}'/>")).collect();
        let rich = format!("<userAdd><user account='a' token=''>{identities}</user></userAdd>");
        let cases: &[(Operation, &str, SpmrError)] = &[
            (
                RelayQuiescent,
                "<RelayQuiescent><relay status='2'/></RelayQuiescent>",
                SpmrError::Value("status"),
            ),
            (
                RelayQuiescent,
                "<RelayQuiescent><relay status='x'/></RelayQuiescent>",
                SpmrError::Value("status"),
            ),
            (RelayQuiescent, "<RelayQuiescent><relay/></RelayQuiescent>", SpmrError::Missing("status")),
            (RelayQuiescent, "<RelayQuiescent/>", SpmrError::Missing("relay")),
            (
                RelayQuiescent,
                "<RelayQuiescent><relay status='0'/><relay status='0'/></RelayQuiescent>",
                SpmrError::Value("a second relay element"),
            ),
            (RelayQuiescent, "<userAdd/>", SpmrError::OtherPlaintext(RelayQuiescent)),
            (Registration, "<Registration/>", SpmrError::OtherPlaintext(Registration)),
            (UserAdd, "<userAdd/>", SpmrError::Missing("user")),
            (UserAdd, "<userAdd><user token=''/></userAdd>", SpmrError::Missing("account")),
            (UserAdd, "<userAdd><user account='' token=''/></userAdd>", SpmrError::Value("account")),
            (UserAdd, "<userAdd><user account='a'/></userAdd>", SpmrError::Missing("token")),
            (
                UserAdd,
                "<userAdd><user account='a' token='' quota='-1'/></userAdd>",
                SpmrError::Value("quota"),
            ),
            (
                UserAdd,
                "<userAdd><user account='a' token='' lifetime='0'/></userAdd>",
                SpmrError::Value("lifetime"),
            ),
            (
                UserAdd,
                "<userAdd><user account='a' token=''><identity/></user></userAdd>",
                SpmrError::Missing("url"),
            ),
            (
                UserAdd,
                "<userAdd><user account='a' token=''><identity url='&#32;'/></user></userAdd>",
                SpmrError::Value("url"),
            ),
            (UserAdd, &long, SpmrError::Value("token")),
            (UserAdd, &rich, SpmrError::Value("the number of identities")),
            (UserPurge, &many, SpmrError::TooManyUsers),
            (
                AccountModify,
                "<accountModify><user account='a'/></accountModify>",
                SpmrError::Missing("status"),
            ),
            (
                RelayDefault,
                "<RelayDefault><relay/></RelayDefault>",
                SpmrError::Missing("quota, lifetime or preauth"),
            ),
            (RelayDefault, "<RelayDefault><relay preauth='3'/></RelayDefault>", SpmrError::Value("preauth")),
        ];
        for (operation, text, error) in cases {
            assert_eq!(read_request(*operation, text.as_bytes()).as_ref(), Err(error), "{text}");
        }
        let broken = read_request(UserPurge, b"<userPurge>");
        assert!(matches!(broken, Err(SpmrError::Xml("the plaintext", _))), "{broken:?}");
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let text = "<userAdd x='1'><note><user/></note><user account='a' token='' color='red'><identity url='i'/>\
            <identity url='i'/><phone/></user></userAdd>";
        let Ok(Request::UserAdd(users)) = read_request(Operation::UserAdd, text.as_bytes()) else { panic!() };
        assert_eq!((users.len(), users[0].identities.len()), (1, 1));
    }

    #[test]
    fn every_outcome_of_every_operation_comes_back() {
        for &operation in Operation::ALL {
            for &outcome in Outcome::ALL {
                let text = write_response(operation, outcome);
                assert_eq!(read_response(operation, text.as_bytes()), Ok(outcome));
            }
        }
        let bare = read_response(Operation::UserAdd, b"<userAdd><result status='1'/></userAdd>");
        assert_eq!(bare, Ok(Outcome::NeedsBuild));
        let cases = [
            (
                "<userPurgeResponse><result status='0'/></userPurgeResponse>",
                SpmrError::OtherPlaintext(Operation::UserAdd),
            ),
            ("<userAddResponse/>", SpmrError::Missing("result")),
            ("<userAddResponse><result/></userAddResponse>", SpmrError::Missing("status")),
            ("<userAddResponse><result status='3'/></userAddResponse>", SpmrError::Value("status")),
        ];
        for (text, error) in cases {
            assert_eq!(read_response(Operation::UserAdd, text.as_bytes()), Err(error));
        }
    }

    fn users() -> impl Strategy<Value = Vec<ListedUser>> {
        let identities = prop::collection::btree_set("[!-~]{1,30}", 0..4);
        let user =
            ("[!-~]{1,40}", identities, "[ -~äß€]{0,30}", any::<Option<u64>>(), prop::option::of(1u32..))
                .prop_map(|(url, identities, token, quota_bytes, lifetime_seconds)| ListedUser {
                    account: account(&url),
                    identities: identities.into_iter().map(|url| IdentityUrl::new(url).unwrap()).collect(),
                    token: (!token.is_empty()).then(|| SecretKey::new(token.into_bytes())),
                    quota_bytes,
                    lifetime_seconds,
                });
        prop::collection::vec(user, 1..8)
    }

    proptest! {
        #[test]
        fn users_come_back_as_they_were_written(users in users()) {
            let request = Request::UserAdd(users);
            let text = write_request(&request);
            prop_assert_eq!(read_request(Operation::UserAdd, text.as_bytes()), Ok(request));
        }

        #[test]
        fn defaults_come_back_as_they_were_written(
            quota_bytes: Option<u64>, lifetime_seconds in prop::option::of(1u32..), preauth: bool,
        ) {
            let defaults = Defaults { quota_bytes, lifetime_seconds, pre_authentication: Some(preauth) };
            let request = Request::RelayDefault(defaults);
            let text = write_request(&request);
            prop_assert_eq!(read_request(Operation::RelayDefault, text.as_bytes()), Ok(request));
        }
    }
}
