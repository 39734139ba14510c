//! Challenge and response, relay against client.

use super::*;

/// One side of the relay's knowledge, whichever layer it is.
pub(super) struct Known {
    layer: Layer,
    credentials: Option<Credentials>,
    with_account: bool,
    locked_out: bool,
}

impl Known {
    pub(super) fn new(layer: Layer, client: &ClientCredentials) -> Self {
        Self { layer, credentials: Some(client.as_registered()), with_account: true, locked_out: false }
    }

    pub(super) fn url(&self) -> String {
        url(self.layer)
    }

    pub(super) fn answer(&self, token: &[u8], seed: u64) -> HelloVerdict {
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

pub(super) fn challenged(verdict: HelloVerdict) -> (Bytes, Challenge) {
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

pub(super) fn proof(answer: Result<HelloAnswer, SecurityError>) -> Bytes {
    match answer {
        Ok(HelloAnswer::Proof { token }) => token,
        other => panic!("no proof but {other:?}"),
    }
}

#[test]
fn both_sides_prove_themselves_on_both_layers() {
    for (profile, layer) in CASES {
        let client = credentials(profile, 1);
        let known = Known::new(layer, &client);
        let hello = hello(layer, &known.url(), &client, &mut Seeded::new(2));
        let (response, challenge) = challenged(known.answer(&hello.token, 3));
        assert_eq!(challenge.layer(), layer);
        challenge.verify(&proof(hello.answer(&response))).unwrap();
    }
}

#[test]
fn a_device_or_account_without_a_key_needs_registration_whatever_it_says() {
    for (profile, layer) in CASES {
        let client = credentials(profile, 1);
        let known = Known { credentials: None, ..Known::new(layer, &client) };
        let id = MessageId::registration_needed(layer) as u8;
        let hello = hello(layer, &known.url(), &client, &mut Seeded::new(2));
        let empty = hello_without_key(layer, profile);
        for sent in [&hello.token, &empty] {
            let HelloVerdict::RegistrationNeeded { token } = known.answer(sent, 3) else {
                panic!("registered?")
            };
            assert_eq!(token, [&relay_version(profile)[..], &[id]].concat());
            assert_eq!(hello.answer(&token), Ok(HelloAnswer::RegistrationNeeded));
            assert_eq!(read_answer_without_key(layer, profile, &token), Ok(HelloAnswer::RegistrationNeeded));
        }
    }
}

#[test]
fn a_device_or_account_without_a_record_needs_registration() {
    for profile in BOTH_PROFILES {
        let entropy = &mut Seeded::new(1);
        let connect = hello_without_key(Layer::Device, profile);
        let answer = answer_connect(&connect, &device(), None, entropy);
        assert!(matches!(answer, HelloVerdict::RegistrationNeeded { .. }));
        let attach = hello_without_key(Layer::Account, profile);
        let answer = answer_attach(&attach, &account(), None, entropy);
        assert!(matches!(answer, HelloVerdict::RegistrationNeeded { .. }));
    }
}

#[test]
fn a_malformed_hello_fails_before_the_record_is_looked_at() {
    for (profile, layer) in CASES {
        let client = credentials(profile, 1);
        let known = Known { credentials: None, ..Known::new(layer, &client) };
        let good = hello(layer, &known.url(), &client, &mut Seeded::new(2)).token;
        let (hello, proof) = (MessageId::hello(layer) as u8, MessageId::proof(layer));
        let [major, minor, _] = good[..3] else { unreachable!() };
        let last = if profile == Profile::Modern { "MAC" } else { "encrypted nonce" };
        let cases: &[(&[u8], TokenError)] = &[
            (&[major, 7, hello], TokenError::MinorVersion(7)),
            (&[major, minor, 11], TokenError::UnknownMessage(11)),
            (&[major, minor, proof as u8], TokenError::UnexpectedMessage(proof)),
            (&good[..good.len() - 1], TokenError::Truncated(last)),
            (&[&good[..], &[0]].concat(), TokenError::TrailingBytes(1)),
        ];
        for (token, expected) in cases {
            let (response, reason) = failed(known.answer(token, 3));
            assert_eq!(reason, SecurityError::Token(*expected), "{token:?}");
            assert_eq!(response, [&relay_version(profile)[..], &[MessageId::failed(layer) as u8]].concat());
        }
    }
}

#[test]
fn a_hello_has_all_its_fields_whole_or_all_of_them_empty() {
    let modern = Known { credentials: None, ..Known::new(Layer::Device, &credentials(Profile::Modern, 1)) };
    let whole: [&[u8]; 5] = [&[24, 0], &[20, 0], &[20, 0], &[32, 0], &[0; 32]];
    let [iv, mac, nonce, modern_count, zeros] = whole;
    let empty: &[u8] = &[0, 0];
    let cases: &[(&[&[u8]], &str, usize)] = &[
        (&[&[2, 0, 1, 1, 0, 0], empty], "Nonce", 1),
        (&[&[2, 0, 1], empty, modern_count, zeros], "Nonce", 0),
        (&[&[2, 0, 1], modern_count, zeros, empty], "MAC", 0),
        (&[&[1, 3, 1], empty, mac, &zeros[..20], nonce, &zeros[..20]], "IV", 0),
        (&[&[1, 3, 1], iv, &zeros[..24], empty, nonce, &zeros[..20]], "HMAC", 0),
        (&[&[1, 3, 1], iv, &zeros[..24], mac, &zeros[..20], empty], "encrypted nonce", 0),
    ];
    for (parts, name, bytes) in cases {
        let (_, reason) = failed(modern.answer(&parts.concat(), 1));
        assert_eq!(reason, SecurityError::Token(TokenError::FieldLength { name, bytes: *bytes }));
    }
}

#[test]
fn a_token_of_no_profile_is_answered_in_the_modern_one() {
    for layer in [Layer::Device, Layer::Account] {
        let known = Known { credentials: None, ..Known::new(layer, &credentials(Profile::Modern, 1)) };
        let cases: &[(&[u8], TokenError)] =
            &[(&[], TokenError::Truncated("header")), (&[9, 0, 1], TokenError::MajorVersion(9))];
        for (token, expected) in cases {
            let (response, reason) = failed(known.answer(token, 3));
            assert_eq!(reason, SecurityError::Token(*expected));
            assert_eq!(response, [2, 0, MessageId::failed(layer) as u8][..]);
        }
    }
}

#[test]
fn a_device_without_accounts_fails_even_with_the_right_key() {
    for profile in BOTH_PROFILES {
        let client = credentials(profile, 1);
        let known = Known { with_account: false, ..Known::new(Layer::Device, &client) };
        let hello = hello(Layer::Device, &known.url(), &client, &mut Seeded::new(2));
        let (response, reason) = failed(known.answer(&hello.token, 3));
        assert_eq!(reason, SecurityError::DeviceWithoutAccounts);
        assert_eq!(hello.answer(&response), Ok(HelloAnswer::Failed));
    }
}

#[test]
fn a_locked_out_account_fails_even_with_the_right_key() {
    for profile in BOTH_PROFILES {
        let client = credentials(profile, 1);
        let known = Known { locked_out: true, ..Known::new(Layer::Account, &client) };
        let hello = hello(Layer::Account, &known.url(), &client, &mut Seeded::new(2));
        assert_eq!(failed(known.answer(&hello.token, 3)).1, SecurityError::LockedOut(Layer::Account));
    }
}

#[test]
fn a_registered_name_without_its_key_or_with_another_key_fails() {
    for (profile, layer) in CASES {
        let known = Known::new(layer, &credentials(profile, 1));
        let (_, reason) = failed(known.answer(&hello_without_key(layer, profile), 3));
        assert_eq!(reason, SecurityError::KeyNotPresented(layer));
        let stranger = hello(layer, &known.url(), &credentials(profile, 2), &mut Seeded::new(2));
        let (_, reason) = failed(known.answer(&stranger.token, 3));
        assert_eq!(reason, SecurityError::WrongMac(MessageId::hello(layer)));
    }
}

#[test]
fn a_message_of_the_other_profile_fails_for_registered_keys() {
    for (profile, layer) in CASES {
        let client = credentials(profile, 1);
        let mut known = Known::new(layer, &client);
        known.credentials.as_mut().unwrap().profile = other(profile);
        let hello = hello(layer, &known.url(), &client, &mut Seeded::new(2));
        let (_, reason) = failed(known.answer(&hello.token, 3));
        let expected = SecurityError::OtherProfile { registered: other(profile), found: profile };
        assert_eq!(reason, expected);
    }
}

#[test]
fn a_client_accepts_no_answer_of_the_other_profile() {
    for (profile, layer) in CASES {
        let hello = hello(layer, &url(layer), &credentials(profile, 1), &mut Seeded::new(2));
        for id in
            [MessageId::failed(layer), MessageId::registration_needed(layer), MessageId::challenge(layer)]
        {
            let expected = SecurityError::Token(TokenError::UnexpectedProfile(other(profile)));
            let answer = [&relay_version(other(profile))[..], &[id as u8]].concat();
            assert_eq!(hello.answer(&answer), Err(expected));
        }
    }
}

#[test]
fn a_modern_hello_is_bound_to_its_url() {
    let client = credentials(Profile::Modern, 1);
    let other_device = hello(Layer::Device, "dpp://host/other", &client, &mut Seeded::new(2));
    let (_, reason) = failed(Known::new(Layer::Device, &client).answer(&other_device.token, 3));
    assert_eq!(reason, SecurityError::WrongMac(MessageId::SecConnect));
}

#[test]
fn a_hello_is_bound_to_its_layer() {
    for profile in BOTH_PROFILES {
        let client = credentials(profile, 1);
        let known = Known::new(Layer::Device, &client);
        let mut hello = hello(Layer::Account, &known.url(), &client, &mut Seeded::new(2)).token.to_vec();
        hello[2] = MessageId::SecConnect as u8;
        assert_eq!(failed(known.answer(&hello, 3)).1, SecurityError::WrongMac(MessageId::SecConnect));
    }
}

#[test]
fn a_relay_accepts_both_minor_versions_of_the_legacy_profile() {
    for (layer, written) in [(Layer::Device, 3), (Layer::Account, 4)] {
        let client = credentials(Profile::Legacy, 1);
        let known = Known::new(layer, &client);
        let hello = hello(layer, &known.url(), &client, &mut Seeded::new(2));
        assert_eq!(hello.token[1], written);
        let (response, challenge) = challenged(known.answer(&hello.token, 3));
        assert_eq!(response[1], 4);
        let proof = proof(hello.answer(&response));
        assert_eq!(proof[1], written);
        // The MAC covers the version: the other one needs its own MAC over the same relay nonce.
        let header = [1, 7 - written, MessageId::proof(layer) as u8];
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, client.secret().expose());
        let nonce = &proof[proof.len() - 20..];
        let mac = ring::hmac::sign(&key, &[&header, nonce].concat());
        challenge.verify(&[&header, &[20, 0][..], mac.as_ref(), &[20, 0], nonce].concat()).unwrap();
    }
}

#[test]
fn a_proof_of_the_other_profile_is_refused() {
    for (profile, layer) in CASES {
        let client = credentials(profile, 1);
        let known = Known::new(layer, &client);
        let hello = hello(layer, &known.url(), &client, &mut Seeded::new(2));
        let (_, challenge) = challenged(known.answer(&hello.token, 3));
        let proof = [&relay_version(other(profile))[..], &[MessageId::proof(layer) as u8]].concat();
        let expected = SecurityError::OtherProfile { registered: profile, found: other(profile) };
        assert_eq!(challenge.verify(&proof), Err(expected));
    }
}

#[test]
fn a_proof_replayed_under_a_new_challenge_fails() {
    for (profile, layer) in CASES {
        let client = credentials(profile, 1);
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
    for (profile, layer) in CASES {
        let client = credentials(profile, 1);
        let known = Known::new(layer, &client);
        let old = hello(layer, &known.url(), &client, &mut Seeded::new(2));
        let (response, _) = challenged(known.answer(&old.token, 3));
        let new = hello(layer, &known.url(), &client, &mut Seeded::new(4));
        assert!(new.answer(&response).is_err());
    }
}

#[test]
fn a_proof_does_not_open_the_other_layer() {
    for profile in BOTH_PROFILES {
        let client = credentials(profile, 1);
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
}

#[test]
fn every_altered_or_missing_byte_of_a_handshake_leads_to_failure() {
    for (profile, layer) in CASES {
        let client = credentials(profile, 1);
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

/// Calls `check` with `token` altered in a bit of each byte, cut at each byte, and made longer.
pub(super) fn each_alteration(token: &[u8], mut check: impl FnMut(&[u8])) {
    for at in 0..token.len() {
        let mut altered = token.to_vec();
        altered[at] ^= 1 << (at % 8);
        check(&altered);
        check(&token[..at]);
    }
    check(&[token, &[0]].concat());
}

#[test]
fn debug_forms_show_no_secret() {
    for profile in BOTH_PROFILES {
        let client = credentials(profile, 1);
        let known = Known::new(Layer::Device, &client);
        let hello = hello(Layer::Device, &known.url(), &client, &mut Seeded::new(2));
        assert_eq!(format!("{hello:?}"), "Hello(Device, dpp://host/device)");
        let (_, challenge) = challenged(known.answer(&hello.token, 3));
        assert_eq!(format!("{challenge:?}"), "Challenge(Device)");
    }
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

/// A handshake under way: the relay's knowledge, the client's hello and the relay's challenge.
static UNDER_WAY: LazyLock<Vec<(Known, Hello, Challenge)>> = LazyLock::new(|| {
    let begin = |(profile, layer)| {
        let client = credentials(profile, 1);
        let known = Known::new(layer, &client);
        let hello = hello(layer, &known.url(), &client, &mut Seeded::new(2));
        let (_, challenge) = challenged(known.answer(&hello.token, 3));
        (known, hello, challenge)
    };
    CASES.map(begin).into()
});

proptest! {
    #[test]
    fn no_bytes_make_a_handshake_parser_panic_or_succeed(token in hostile()) {
        for ((known, hello, challenge), (profile, layer)) in UNDER_WAY.iter().zip(CASES) {
            let is_failed = matches!(known.answer(&token, 1), HelloVerdict::Failed { .. });
            prop_assert!(is_failed);
            let is_proof = matches!(hello.answer(&token), Ok(HelloAnswer::Proof { .. }));
            prop_assert!(!is_proof);
            prop_assert!(challenge.verify(&token).is_err());
            let _ = read_answer_without_key(layer, profile, &token);
        }
    }
}
