//! SPMR: documents of management servers and of relays, and what lies inside their cipher.

use relay_core::address::{AccountUrl, IdentityUrl};
use relay_core::directory::{Profile, SecretKey};
use relay_core::security::RelayKeys;
use relay_core::spmr::{
    CONTENT_TYPE, Defaults, FaultCode, KeyLedger, LedgerFailed, ListedUser, Manager, ManagerKeys,
    ManagerPublicKey, MessageTrace, Operation, Outcome, Request, SharedKey, judge, read_plain_request,
    read_plain_response, write_fault, write_plain_request,
};
use relay_core::time::Entropy;
use std::sync::OnceLock;

/// Bytes that are always the same, so that a find repeats itself.
struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(181).wrapping_add(7);
            *byte = self.0;
        }
    }
}

fn relay_keys() -> &'static RelayKeys {
    static KEYS: OnceLock<RelayKeys> = OnceLock::new();
    KEYS.get_or_init(|| RelayKeys::generate(&mut Fixed(1)))
}

fn shared() -> SharedKey {
    SharedKey::generate(&mut Fixed(2))
}

/// A management server, registered or not.
fn manager_keys(registered: bool) -> ManagerKeys {
    let keys = ManagerKeys::generate("manager.example", Profile::Modern, &mut Fixed(3));
    let mut keys = keys.expect("a name");
    if registered {
        keys.set_shared(shared());
    }
    keys
}

fn manager(registered: bool) -> Manager {
    Manager::new(manager_keys(registered), relay_keys().public().clone())
}

/// Knows the one management server, and has taken nothing yet.
struct Ledger(ManagerPublicKey);

impl KeyLedger for Ledger {
    fn shared_key(&self, _: &str) -> Result<Option<SharedKey>, LedgerFailed> {
        Ok(Some(shared()))
    }

    fn was_taken(&self, _: &str, _: &MessageTrace) -> Result<bool, LedgerFailed> {
        Ok(false)
    }

    fn is_former_key(&self, _: &str, _: &[u8; 32]) -> Result<bool, LedgerFailed> {
        Ok(false)
    }

    fn public_key(&self, _: &str) -> Option<ManagerPublicKey> {
        Some(self.0.clone())
    }
}

fn requests() -> Vec<Request> {
    let account = |name: &str| AccountUrl::new(format!("grooveAccount://{name}@")).expect("a URL");
    let user = ListedUser {
        account: account("a"),
        identities: vec![IdentityUrl::new("grooveIdentity://a@").expect("a URL")],
        token: Some(SecretKey::new(b"token".to_vec())),
        quota_bytes: Some(1 << 40),
        lifetime_seconds: Some(86400),
    };
    let defaults =
        Defaults { quota_bytes: Some(5), lifetime_seconds: Some(7), pre_authentication: Some(true) };
    vec![
        Request::UserAdd(vec![user]),
        Request::AccountModify(vec![(account("a"), true), (account("b"), false)]),
        Request::UserPurge(vec![account("a")]),
        Request::RelayDefault(defaults),
        Request::RelayQuiescent(true),
    ]
}

/// Every request and every answer, as documents; and in plain text.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let entropy = &mut Fixed(4);
    let mut registering = manager(false);
    registering.register(entropy);
    let mut documents = vec![registering.document(entropy).expect("a usable key").expect("it registers")];
    let mut seeds = vec![write_fault(FaultCode::from_number(306).expect("a code"), "who are you?")];
    for request in requests() {
        seeds.push(write_plain_request(&request).into_bytes());
        let mut asking = manager(true);
        asking.ask(request, entropy);
        documents.extend(asking.document(entropy).expect("a usable key"));
    }
    let ledger = Ledger(manager_keys(false).public());
    for document in documents {
        let judged = judge(Some(CONTENT_TYPE.as_bytes()), &document, true, relay_keys(), &ledger);
        let reply = judged.expect("what a manager writes is right").reply;
        seeds.extend(Outcome::ALL.iter().map(|outcome| reply.write(*outcome, entropy)));
        seeds.push(document);
    }
    seeds
}

/// A relay judges it, a management server takes it for an answer, and it may have been inside the cipher.
pub(crate) fn run(data: &[u8]) {
    let entropy = &mut Fixed(5);
    let ledger = Ledger(manager_keys(false).public());
    match judge(Some(CONTENT_TYPE.as_bytes()), data, true, relay_keys(), &ledger) {
        Ok(judged) => drop(judged.reply.write(Outcome::Success, entropy)),
        Err(error) => drop(write_fault(error.fault_code(), &error.to_string())),
    }
    for request in requests() {
        let operation = request.operation();
        if let Ok(read) = read_plain_request(operation, data) {
            let again = write_plain_request(&read);
            assert_eq!(read_plain_request(operation, again.as_bytes()), Ok(read));
        }
        let _outcome = read_plain_response(operation, data);
        let mut asking = manager(true);
        asking.ask(request, entropy);
        let _progress = asking.answered(data, entropy);
    }
    let _outcome = read_plain_response(Operation::Registration, data);
    let mut registering = manager(false);
    registering.register(entropy);
    let _progress = registering.answered(data, entropy);
}
