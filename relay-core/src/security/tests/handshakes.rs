//! Challenge and response, relay against client.

use super::*;

/// One side of the relay's knowledge, whichever layer it is.
struct Known {
    layer: Layer,
    credentials: Option<Credentials>,
    with_account: bool,
    locked_out: bool,
}

impl Known {
    fn new(layer: Layer, client: &ClientCredentials) -> Self {
        Self { layer, credentials: Some(client.as_registered()), with_account: true, locked_out: false }
    }

    fn url(&self) -> String {
        url(self.layer)
    }

    fn answer(&self, token: &[u8], seed: u64) -> HelloVerdict {
        let entropy = &mut Seeded::new(seed);
        match self.layer {
            Layer::Device => {
                let record = DeviceRecord {
                    credentials: self.credentials.clone(),
                    accounts: if self.with_account { vec![account()] } else { vec![] },
                    locked_out: self.locked_out,
                };
                answer_connect(token, &device(), Some(&record), entropy)
            }
            Layer::Account => {
                let record = AccountRecord {
                    credentials: self.credentials.clone(),
                    locked_out: self.locked_out,
                    ..Default::default()
                };
                answer_attach(token, &account(), Some(&record), entropy)
            }
        }
    }
}

fn url(layer: Layer) -> String {
    match layer {
        Layer::Device => device().to_string(),
        Layer::Account => account().to_string(),
    }
}

fn challenged(verdict: HelloVerdict) -> (Bytes, Challenge) {
    match verdict {
        HelloVerdict::Challenged { token, challenge } => (token, challenge),
        other => panic!("no challenge but {other:?}"),
    }
}

fn failed(verdict: HelloVerdict) -> (Bytes, SecurityError) {
    match verdict {
        HelloVerdict::Failed { token, reason } => (token, reason),
        other => panic!("not failed but {other:?}"),
    }
}

fn proof(answer: Result<HelloAnswer, SecurityError>) -> Bytes {
    match answer {
        Ok(HelloAnswer::Proof { token }) => token,
        other => panic!("no proof but {other:?}"),
    }
}

#[test]
fn both_sides_prove_themselves_on_both_layers() {
    for layer in BOTH_LAYERS {
        let client = credentials(1);
        let known = Known::new(layer, &client);
        let hello = hello(layer, &known.url(), &client, &mut Seeded::new(2));
        let (response, challenge) = challenged(known.answer(&hello.token, 3));
        assert_eq!(challenge.layer(), layer);
        challenge.verify(&proof(hello.answer(&response))).unwrap();
    }
}

#[test]
fn a_device_or_account_without_a_key_needs_registration_whatever_it_says() {
    for layer in BOTH_LAYERS {
        let client = credentials(1);
        let known = Known { credentials: None, ..Known::new(layer, &client) };
        let id = MessageId::registration_needed(layer) as u8;
        let hello = hello(layer, &known.url(), &client, &mut Seeded::new(2));
        let empty = hello_without_key(layer, Profile::Modern);
        for sent in [&hello.token, &empty] {
            let HelloVerdict::RegistrationNeeded { token } = known.answer(sent, 3) else {
                panic!("registered?")
            };
            assert_eq!(token, [2, 0, id][..]);
            assert_eq!(hello.answer(&token), Ok(HelloAnswer::RegistrationNeeded));
            assert_eq!(
                read_answer_without_key(layer, Profile::Modern, &token),
                Ok(HelloAnswer::RegistrationNeeded)
            );
        }
    }
    let none = answer_connect(
        &hello_without_key(Layer::Device, Profile::Modern),
        &device(),
        None,
        &mut Seeded::new(1),
    );
    assert!(matches!(none, HelloVerdict::RegistrationNeeded { .. }));
    let none = answer_attach(
        &hello_without_key(Layer::Account, Profile::Modern),
        &account(),
        None,
        &mut Seeded::new(1),
    );
    assert!(matches!(none, HelloVerdict::RegistrationNeeded { .. }));
}

#[test]
fn a_malformed_hello_fails_before_the_record_is_looked_at() {
    for layer in BOTH_LAYERS {
        let client = credentials(1);
        let known = Known { credentials: None, ..Known::new(layer, &client) };
        let good = hello(layer, &known.url(), &client, &mut Seeded::new(2)).token;
        let other_layer = MessageId::proof(layer);
        let cases: &[(&[u8], TokenError, u8)] = &[
            (&[], TokenError::Truncated("header"), 2),
            (&[9, 0, good[2]], TokenError::MajorVersion(9), 2),
            (&[2, 4, good[2]], TokenError::MinorVersion(4), 2),
            (&[1, 5, good[2]], TokenError::MinorVersion(5), 1),
            (&[2, 0, other_layer as u8], TokenError::UnexpectedMessage(other_layer), 2),
            (&[2, 0, good[2], 1, 0, 0, 0, 0], TokenError::FieldLength { name: "Nonce", bytes: 1 }, 2),
            (&good[..good.len() - 1], TokenError::Truncated("MAC"), 2),
            (&[&good[..], &[0]].concat(), TokenError::TrailingBytes(1), 2),
        ];
        for (token, expected, major) in cases {
            let (response, reason) = failed(known.answer(token, 3));
            assert_eq!(reason, SecurityError::Token(*expected), "{token:?}");
            let minor = if *major == 1 { 4 } else { 0 };
            assert_eq!(response, [*major, minor, MessageId::failed(layer) as u8][..]);
        }
    }
}

#[test]
fn a_device_without_accounts_fails_even_with_the_right_key() {
    let client = credentials(1);
    let known = Known { with_account: false, ..Known::new(Layer::Device, &client) };
    let hello = hello(Layer::Device, &known.url(), &client, &mut Seeded::new(2));
    let (response, reason) = failed(known.answer(&hello.token, 3));
    assert_eq!(reason, SecurityError::DeviceWithoutAccounts);
    assert_eq!(hello.answer(&response), Ok(HelloAnswer::Failed));
}

#[test]
fn a_locked_out_account_fails_even_with_the_right_key() {
    let client = credentials(1);
    let known = Known { locked_out: true, ..Known::new(Layer::Account, &client) };
    let hello = hello(Layer::Account, &known.url(), &client, &mut Seeded::new(2));
    assert_eq!(failed(known.answer(&hello.token, 3)).1, SecurityError::LockedOut(Layer::Account));
}

#[test]
fn a_registered_name_without_its_key_or_with_another_key_fails() {
    for layer in BOTH_LAYERS {
        let known = Known::new(layer, &credentials(1));
        let (_, reason) = failed(known.answer(&hello_without_key(layer, Profile::Modern), 3));
        assert_eq!(reason, SecurityError::KeyNotPresented(layer));
        let stranger = hello(layer, &known.url(), &credentials(2), &mut Seeded::new(2));
        let (_, reason) = failed(known.answer(&stranger.token, 3));
        assert_eq!(reason, SecurityError::WrongMac(MessageId::hello(layer)));
    }
}

#[test]
fn a_message_of_the_other_profile_fails_for_registered_keys() {
    for layer in BOTH_LAYERS {
        let client = credentials(1);
        let mut known = Known::new(layer, &client);
        known.credentials.as_mut().unwrap().profile = Profile::Legacy;
        let hello = hello(layer, &known.url(), &client, &mut Seeded::new(2));
        let (_, reason) = failed(known.answer(&hello.token, 3));
        let expected = SecurityError::OtherProfile { registered: Profile::Legacy, found: Profile::Modern };
        assert_eq!(reason, expected);
    }
}

#[test]
fn a_client_accepts_no_answer_of_the_other_profile() {
    for layer in BOTH_LAYERS {
        let hello = hello(layer, &url(layer), &credentials(1), &mut Seeded::new(2));
        for id in
            [MessageId::failed(layer), MessageId::registration_needed(layer), MessageId::challenge(layer)]
        {
            let expected = SecurityError::Token(TokenError::UnexpectedProfile(Profile::Legacy));
            assert_eq!(hello.answer(&[1, 4, id as u8]), Err(expected));
        }
    }
}

#[test]
fn a_hello_is_bound_to_its_url_and_its_layer() {
    let client = credentials(1);
    let other_device = hello(Layer::Device, "dpp://host/other", &client, &mut Seeded::new(2));
    let known = Known::new(Layer::Device, &client);
    assert_eq!(
        failed(known.answer(&other_device.token, 3)).1,
        SecurityError::WrongMac(MessageId::SecConnect)
    );

    let mut other_layer = hello(Layer::Account, &known.url(), &client, &mut Seeded::new(2)).token.to_vec();
    other_layer[2] = MessageId::SecConnect as u8;
    assert_eq!(failed(known.answer(&other_layer, 3)).1, SecurityError::WrongMac(MessageId::SecConnect));
}

#[test]
fn a_proof_replayed_under_a_new_challenge_fails() {
    for layer in BOTH_LAYERS {
        let client = credentials(1);
        let known = Known::new(layer, &client);
        let hello = hello(layer, &known.url(), &client, &mut Seeded::new(2));
        let (response, challenge) = challenged(known.answer(&hello.token, 3));
        let proof = proof(hello.answer(&response));
        challenge.verify(&proof).unwrap();
        let (_, again) = challenged(known.answer(&hello.token, 4));
        assert!(again.verify(&proof).is_err());
    }
}

#[test]
fn a_challenge_replayed_to_a_new_hello_fails() {
    for layer in BOTH_LAYERS {
        let client = credentials(1);
        let known = Known::new(layer, &client);
        let old = hello(layer, &known.url(), &client, &mut Seeded::new(2));
        let (response, _) = challenged(known.answer(&old.token, 3));
        let new = hello(layer, &known.url(), &client, &mut Seeded::new(4));
        assert!(new.answer(&response).is_err());
    }
}

#[test]
fn a_proof_does_not_open_the_other_layer() {
    let client = credentials(1);
    let device = Known::new(Layer::Device, &client);
    let hello = hello(Layer::Device, &device.url(), &client, &mut Seeded::new(2));
    let (response, _) = challenged(device.answer(&hello.token, 3));
    let proof = proof(hello.answer(&response));
    let account = Known::new(Layer::Account, &client);
    let attach = super::hello(Layer::Account, &account.url(), &client, &mut Seeded::new(2));
    let (_, challenge) = challenged(account.answer(&attach.token, 3));
    let expected = TokenError::UnexpectedMessage(MessageId::SecConnectAuthenticate);
    assert_eq!(challenge.verify(&proof), Err(SecurityError::Token(expected)));
}

#[test]
fn every_altered_or_missing_byte_of_a_handshake_leads_to_failure() {
    for layer in BOTH_LAYERS {
        let client = credentials(1);
        let known = Known::new(layer, &client);
        let hello = hello(layer, &known.url(), &client, &mut Seeded::new(2));
        let (response, challenge) = challenged(known.answer(&hello.token, 3));
        let proof = proof(hello.answer(&response));
        each_alteration(&hello.token, |token| {
            assert!(matches!(known.answer(token, 3), HelloVerdict::Failed { .. }))
        });
        each_alteration(&response, |token| {
            let is_proof = matches!(hello.answer(token), Ok(HelloAnswer::Proof { .. }));
            assert!(!is_proof, "{token:?}");
        });
        each_alteration(&proof, |token| assert!(challenge.verify(token).is_err()));
    }
}

/// Calls `check` with `token` altered in each bit of each byte, cut at each byte, and made longer.
pub(super) fn each_alteration(token: &[u8], mut check: impl FnMut(&[u8])) {
    for at in 0..token.len() {
        for bit in 0..8 {
            let mut altered = token.to_vec();
            altered[at] ^= 1 << bit;
            check(&altered);
        }
        check(&token[..at]);
    }
    check(&[token, &[0]].concat());
}

#[test]
fn debug_forms_show_no_secret() {
    let client = credentials(1);
    let known = Known::new(Layer::Device, &client);
    let hello = hello(Layer::Device, &known.url(), &client, &mut Seeded::new(2));
    assert_eq!(format!("{hello:?}"), "Hello(Device, dpp://host/device)");
    let (_, challenge) = challenged(known.answer(&hello.token, 3));
    assert_eq!(format!("{challenge:?}"), "Challenge(Device)");
}

#[test]
fn an_outstanding_challenge_is_small() {
    assert!(size_of::<Challenge>() <= 64, "{} bytes", size_of::<Challenge>());
}

/// Arbitrary bytes, and arbitrary bytes after a good header.
pub(super) fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..600);
    let header = prop_oneof![
        Just(None),
        (prop_oneof![Just([1, 3]), Just([1, 4]), Just([2, 0])], 1u8..18).prop_map(Some)
    ];
    (header, bytes).prop_map(|(header, bytes)| match header {
        Some((version, id)) => [&version[..], &[id], &bytes].concat(),
        None => bytes,
    })
}

proptest! {
    #[test]
    fn no_bytes_make_a_handshake_parser_panic_or_succeed(token in hostile()) {
        for layer in BOTH_LAYERS {
            let client = credentials(1);
            let known = Known::new(layer, &client);
            let is_failed = matches!(known.answer(&token, 1), HelloVerdict::Failed { .. });
            prop_assert!(is_failed);
            let hello = hello(layer, &known.url(), &client, &mut Seeded::new(2));
            let is_proof = matches!(hello.answer(&token), Ok(HelloAnswer::Proof { .. }));
            prop_assert!(!is_proof);
            let (_, challenge) = challenged(known.answer(&hello.token, 3));
            prop_assert!(challenge.verify(&token).is_err());
            let _ = read_answer_without_key(layer, Profile::Modern, &token);
        }
    }
}
