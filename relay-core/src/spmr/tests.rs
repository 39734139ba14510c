//! Both ends against each other: every operation, every fault, what may not come twice.

use super::vectors::{FRAGMENT, K, SERVER, unhex};
use super::*;
use crate::address::AccountUrl;
use crate::directory::Profile;
use crate::security::RelayKeys;
use crate::security::test_entropy::Seeded;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

static RELAY: LazyLock<RelayKeys> = LazyLock::new(|| RelayKeys::generate(&mut Seeded::new(1)));

/// A relay that remembers in memory and does nothing.
#[derive(Default)]
struct Relay {
    known: HashMap<String, ManagerPublicKey>,
    shared: RefCell<HashMap<String, SharedKey>>,
    taken: RefCell<HashSet<MessageTrace>>,
    former: RefCell<HashSet<[u8; 32]>>,
    broken: bool,
}

impl KeyLedger for Relay {
    fn shared_key(&self, server: &str) -> Result<Option<SharedKey>, LedgerFailed> {
        if self.broken { Err(LedgerFailed) } else { Ok(self.shared.borrow().get(server).cloned()) }
    }

    fn was_taken(&self, _: &str, message: &MessageTrace) -> Result<bool, LedgerFailed> {
        Ok(self.taken.borrow().contains(message))
    }

    fn is_former_key(&self, _: &str, trace: &[u8; 32]) -> Result<bool, LedgerFailed> {
        Ok(self.former.borrow().contains(trace))
    }

    fn public_key(&self, server: &str) -> Option<ManagerPublicKey> {
        self.known.get(server).cloned()
    }
}

impl Relay {
    fn of(keys: &ManagerKeys) -> Self {
        let known = HashMap::from([(keys.name().to_owned(), keys.public())]);
        Self { known, ..Self::default() }
    }

    /// A relay that shares the key of the vectors with their management server.
    fn of_vectors() -> Self {
        let known = HashMap::from([(SERVER.to_owned(), ManagerPublicKey::Ed25519([0; 32]))]);
        let shared = HashMap::from([(SERVER.to_owned(), SharedKey::from_bytes(&unhex(K)).unwrap())]);
        Self { known, shared: shared.into(), ..Self::default() }
    }

    fn judge(&self, body: &[u8]) -> Result<Judged, SpmrError> {
        judge(Some(b"text/xml"), body, true, &RELAY, self)
    }

    /// Judges, does what is to be remembered, and answers.
    fn answer(&self, body: &[u8]) -> (Vec<u8>, Option<Command>) {
        match self.judge(body) {
            Ok(judged) => {
                match &judged.command {
                    Command::Share(key) => {
                        let before = self.shared.borrow_mut().insert(judged.server.clone(), key.clone());
                        let former = before.filter(|before| before != key);
                        self.former.borrow_mut().extend(former.map(|key| key.trace()));
                        self.taken.borrow_mut().clear();
                    }
                    Command::Do(_, trace) => {
                        self.taken.borrow_mut().insert(*trace);
                    }
                }
                (judged.reply.write(Outcome::Success, &mut Seeded::new(77)), Some(judged.command))
            }
            Err(error) => (write_fault(error.fault_code(), &error.to_string()), None),
        }
    }
}

fn keys(profile: Profile) -> ManagerKeys {
    ManagerKeys::generate(SERVER, profile, &mut Seeded::new(2)).unwrap()
}

fn manager(profile: Profile) -> Manager {
    Manager::new(keys(profile), RELAY.public().clone())
}

fn account() -> AccountUrl {
    AccountUrl::new("grooveAccount://a@").unwrap()
}

fn requests() -> Vec<Request> {
    let user = ListedUser {
        account: account(),
        identities: vec![],
        token: None,
        quota_bytes: Some(1),
        lifetime_seconds: None,
    };
    vec![
        Request::UserAdd(vec![user]),
        Request::AccountModify(vec![(account(), true)]),
        Request::UserPurge(vec![account()]),
        Request::RelayDefault(Defaults { quota_bytes: Some(5), ..Defaults::default() }),
        Request::RelayQuiescent(true),
    ]
}

/// Sees what is under way to its end; gives what the relay was told to do.
fn converse(
    manager: &mut Manager,
    relay: &Relay,
    seed: u64,
) -> (Result<Outcome, ManagerError>, Vec<Command>) {
    let mut entropy = Seeded::new(seed);
    let mut commands = Vec::new();
    loop {
        let document = manager.document(&mut entropy).unwrap().expect("something is under way");
        let (answer, command) = relay.answer(&document);
        commands.extend(command);
        match manager.answered(&answer, &mut entropy) {
            Ok(Progress::Continue) => {}
            Ok(Progress::Done(outcome)) => return (Ok(outcome), commands),
            Err(error) => return (Err(error), commands),
        }
    }
}

fn ask(manager: &mut Manager, relay: &Relay, request: Request, seed: u64) -> Result<Outcome, ManagerError> {
    manager.ask(request, &mut Seeded::new(seed));
    converse(manager, relay, seed + 1000).0
}

fn envelope_of(operation: Operation, fragment: &str) -> Vec<u8> {
    envelope::write(operation.name(), fragment)
}

#[test]
fn every_operation_reaches_the_relay_as_it_was_asked_after_a_registration() {
    for profile in [Profile::Modern, Profile::Legacy] {
        let mut manager = manager(profile);
        let relay = Relay::of(manager.keys());
        for (index, request) in requests().into_iter().enumerate() {
            let seed = index as u64;
            manager.ask(request.clone(), &mut Seeded::new(seed));
            let (outcome, commands) = converse(&mut manager, &relay, seed + 100);
            assert_eq!(outcome, Ok(Outcome::Success));
            assert_eq!(commands.len(), if index == 0 { 2 } else { 1 });
            assert!(matches!(commands.last(), Some(Command::Do(done, _)) if *done == request));
        }
    }
}

#[test]
fn a_relay_that_lost_the_key_is_registered_with_again_and_asked_again() {
    let mut manager = manager(Profile::Modern);
    let relay = Relay::of(manager.keys());
    assert_eq!(ask(&mut manager, &relay, Request::RelayQuiescent(true), 1), Ok(Outcome::Success));
    let first = manager.keys().shared().cloned();
    relay.shared.borrow_mut().clear();
    assert_eq!(ask(&mut manager, &relay, Request::RelayQuiescent(false), 2), Ok(Outcome::Success));
    assert_ne!(manager.keys().shared().cloned(), first);
}

#[test]
fn a_relay_that_forgets_at_once_is_given_up() {
    let mut manager = manager(Profile::Modern);
    let relay = Relay::of(manager.keys());
    manager.ask(Request::RelayQuiescent(true), &mut Seeded::new(1));
    let mut entropy = Seeded::new(2);
    let (answer, _) = relay.answer(&manager.document(&mut entropy).unwrap().unwrap());
    assert_eq!(manager.answered(&answer, &mut entropy), Ok(Progress::Continue));
    relay.shared.borrow_mut().clear();
    assert_eq!(converse(&mut manager, &relay, 3).0, Err(ManagerError::RegistrationLost));
}

#[test]
fn a_message_is_taken_once() {
    let relay = Relay::of_vectors();
    let document = envelope_of(Operation::RelayQuiescent, FRAGMENT);
    let Ok(Judged { command: Command::Do(Request::RelayQuiescent(true), _), .. }) = relay.judge(&document)
    else {
        panic!("the vector is right")
    };
    relay.answer(&document);
    assert_eq!(relay.judge(&document).map(|_| ()), Err(SpmrError::Replayed));
}

#[test]
fn a_recorded_registration_brings_no_former_key_back() {
    let mut manager = manager(Profile::Modern);
    let relay = Relay::of(manager.keys());
    manager.register(&mut Seeded::new(1));
    let recorded = manager.document(&mut Seeded::new(2)).unwrap().unwrap();
    converse(&mut manager, &relay, 3).0.unwrap();
    // The present key again: nothing changes.
    assert!(relay.judge(&recorded).is_ok());
    manager.register(&mut Seeded::new(4));
    converse(&mut manager, &relay, 5).0.unwrap();
    assert_eq!(relay.judge(&recorded).map(|_| ()), Err(SpmrError::Replayed));
}

#[test]
fn each_fault_has_its_cause_in_the_order_of_checks() {
    let relay = Relay::of_vectors();
    let right = envelope_of(Operation::RelayQuiescent, FRAGMENT);
    let code = |content_type: Option<&[u8]>, accept, body: &[u8]| {
        let refused = judge(content_type, body, accept, &RELAY, &relay).map(|_| ()).unwrap_err();
        refused.fault_code().number()
    };
    let xml = Some(&b"text/xml"[..]);
    assert_eq!(code(None, false, b""), 301);
    assert_eq!(code(xml, false, b""), 313);
    assert_eq!(code(xml, true, b""), 311);
    assert_eq!(code(xml, true, b"x"), 310);
    let body = |inner: &str| format!("<Envelope><Body>{inner}</Body></Envelope>").into_bytes();
    assert_eq!(code(xml, true, &body("<userRemove><Payload data=''/></userRemove>")), 309);
    assert_eq!(code(xml, true, &body("<userAdd/>")), 303);
    assert_eq!(code(xml, true, &body("<userAdd><Payload data=''/></userAdd>")), 311);
    assert_eq!(code(xml, true, &body("<userAdd><Payload data='?'/></userAdd>")), 310);
    let fragment = |from: &str, to: &str| {
        let altered = FRAGMENT.replace(from, to);
        assert_ne!(altered, FRAGMENT);
        envelope_of(Operation::RelayQuiescent, &altered)
    };
    assert_eq!(code(xml, true, &fragment("</Payload>", "")), 310);
    for missing in ["ManagementServer=", "Method=", "IV=", "EC=", "MAC=", "g:Enc", "g:Auth", "g:SE"] {
        let renamed = missing.strip_prefix("g:").map_or(format!("Z{missing}"), |name| format!("g:Z{name}"));
        assert_eq!(code(xml, true, &fragment(missing, &renamed)), 312, "{missing}");
    }
    assert_eq!(code(xml, true, &fragment("Method=\"RelayQuiescent\"", "Method=\"Relay\"")), 309);
    assert_eq!(code(xml, true, &envelope_of(Operation::UserAdd, FRAGMENT)), 309);
    assert_eq!(code(xml, true, &fragment("msrv1", "msrv2")), 304);
    assert_eq!(code(xml, true, &fragment("MAC=\"M2", "MAC=\"N2")), 305);
    assert_eq!(code(xml, true, &fragment("W2JpcHd+hYyTmqGor7a9xMvS2eA=", "AQI=")), 305);
    assert_eq!(code(xml, true, &right[..right.len() - 1]), 310);
    let secured = |plaintext: &str| {
        let key = SharedKey::from_bytes(&unhex(K)).unwrap();
        let operation = Operation::RelayQuiescent;
        envelope_of(operation, &secured::secure(&key, SERVER, operation, plaintext, &mut Seeded::new(9)))
    };
    assert_eq!(code(xml, true, &secured("no XML")), 310);
    assert_eq!(code(xml, true, &secured("<userAdd/>")), 310);
    assert_eq!(code(xml, true, &secured("<RelayQuiescent><relay status='2'/></RelayQuiescent>")), 310);
    assert_eq!(code(xml, true, &secured("<RelayQuiescent/>")), 312);
    let broken = Relay { broken: true, ..Relay::of_vectors() };
    assert_eq!(broken.judge(&right).unwrap_err().fault_code().number(), 306);
}

#[test]
fn a_management_server_that_is_configured_no_more_has_no_key() {
    let relay = Relay { known: HashMap::new(), ..Relay::of_vectors() };
    let refused = relay.judge(&envelope_of(Operation::RelayQuiescent, FRAGMENT)).map(|_| ());
    assert_eq!(refused, Err(SpmrError::NotRegistered(SERVER.into())));
}

#[test]
fn each_fault_of_a_registration_has_its_own_error() {
    for profile in [Profile::Modern, Profile::Legacy] {
        let own = keys(profile);
        let relay = Relay::of(&own);
        let shared = SharedKey::generate(&mut Seeded::new(4));
        let right = registration::write(&own, RELAY.public(), &shared, &mut Seeded::new(5)).unwrap();
        let judge = |document: &str| {
            relay.judge(&envelope_of(Operation::Registration, document)).map(|judged| judged.command)
        };
        assert_eq!(judge(&right), Ok(Command::Share(shared.clone())));
        let (key_algorithm, signature_algorithm) = match profile {
            Profile::Modern => ("X25519", "Ed25519"),
            Profile::Legacy => ("ElGamal1536", "RSA-SHA1"),
        };
        let cases = [
            (right.replace(" Key=", " Kez="), SpmrError::Missing("Key")),
            (right.replace("KeyAlg=", "KezAlg="), SpmrError::Missing("KeyAlg")),
            (right.replace("Sig=", "Zig="), SpmrError::Missing("Sig")),
            (right.replace("SigAlg=", "ZigAlg="), SpmrError::Missing("SigAlg")),
            (right.replace("g:Auth", "g:Other"), SpmrError::Missing("g:Auth")),
            (
                right.replace("Method=\"Registration\"", "Method=\"Reg\""),
                SpmrError::UnknownMethod("Reg".into()),
            ),
            (right.replace("msrv1", "msrv2"), SpmrError::UnknownManagementServer("msrv2.example".into())),
            (right.replace("<g:SE Key=\"", "<g:SE Key=\"AAAA"), SpmrError::WrongSignature),
            (right.replace(key_algorithm, "DES"), SpmrError::WrongSignature),
            (right.replace(signature_algorithm, "DSA"), SpmrError::Algorithm("SigAlg", "DSA".into())),
        ];
        for (document, error) in cases {
            assert_eq!(judge(&document), Err(error), "{document}");
        }
    }
}

#[test]
fn a_key_that_is_signed_but_wrong_is_refused() {
    let own = keys(Profile::Modern);
    let relay = Relay::of(&own);
    let manager_keys::Signer::Modern(signer) = &own.signer else { panic!() };
    let signed = |sealed: &[u8], algorithm: &str| {
        let sealed = base64_text::encode(sealed);
        let secured = [("Key", sealed.as_str()), ("KeyAlg", algorithm)];
        let header = fragment::header(SERVER, "Registration", &secured);
        let signature = base64_text::encode(signer.sign(header.as_bytes()));
        let authenticator = [("Sig", signature.as_str()), ("SigAlg", "Ed25519")];
        let document = fragment::finished(SERVER, "Registration", &secured, &[("g:Auth", &authenticator)]);
        relay.judge(&envelope_of(Operation::Registration, &document)).map(|_| ())
    };
    let seal = |bytes: &[u8], name: &str| {
        let modern = RELAY.public().modern();
        crate::security::sealed::seal(modern, "spmr key", name.as_bytes(), bytes, &mut Seeded::new(3))
            .unwrap()
    };
    assert_eq!(signed(&seal(&[1; 20], SERVER), "X25519"), Ok(()));
    assert_eq!(signed(&seal(&[1; 24], SERVER), "X25519"), Err(SpmrError::KeyLength(24)));
    assert_eq!(signed(&seal(&[1; 20], "other"), "X25519"), Err(SpmrError::KeyNotOpened));
    assert_eq!(signed(&[1; 60], "X25519"), Err(SpmrError::KeyNotOpened));
    assert_eq!(signed(&[1; 384], "RSA"), Err(SpmrError::Algorithm("KeyAlg", "RSA".into())));
}

#[test]
fn a_response_to_somebody_else_or_under_another_key_is_no_response() {
    let mut manager = manager(Profile::Modern);
    let relay = Relay::of(manager.keys());
    ask(&mut manager, &relay, Request::RelayQuiescent(true), 1).unwrap();
    let key = manager.keys().shared().cloned().unwrap();
    let mut respond = |key: &SharedKey, server: &str, operation: Operation| {
        manager.ask(Request::RelayQuiescent(false), &mut Seeded::new(2));
        let plaintext = provisional::write_response(operation, Outcome::Success);
        let fragment = secured::secure(key, server, operation, &plaintext, &mut Seeded::new(3));
        let body = envelope::write("RelayQuiescentResponse", &fragment);
        manager.answered(&body, &mut Seeded::new(4))
    };
    let right = respond(&key, SERVER, Operation::RelayQuiescent);
    assert_eq!(right, Ok(Progress::Done(Outcome::Success)));
    let other_response = Err(ManagerError::Response(SpmrError::OtherResponse));
    assert_eq!(respond(&key, "msrv2", Operation::RelayQuiescent), other_response);
    assert_eq!(respond(&key, SERVER, Operation::UserPurge), other_response);
    let other_key = SharedKey::generate(&mut Seeded::new(5));
    let wrong_mac = Err(ManagerError::Response(SpmrError::WrongMac));
    assert_eq!(respond(&other_key, SERVER, Operation::RelayQuiescent), wrong_mac);
}
