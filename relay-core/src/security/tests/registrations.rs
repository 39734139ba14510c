//! Registration, client against relay, and the rules of who may register what.

use super::handshakes::{each_alteration, hostile};
use super::*;

/// A relay with a directory that registrations change.
pub(super) struct Relay {
    records: Records,
    pre_authentication_required: bool,
}

/// A device and an account on it, with their keys.
pub(super) struct User {
    device: DeviceUrl,
    device_keys: ClientCredentials,
    account: AccountUrl,
    account_keys: ClientCredentials,
}

impl User {
    pub(super) fn new(profile: Profile) -> Self {
        Self {
            device: device(),
            device_keys: credentials(profile, 10),
            account: account(),
            account_keys: credentials(profile, 11),
        }
    }

    /// The same account on another device.
    fn on_other_device(profile: Profile) -> Self {
        Self {
            device: DeviceUrl::new("dpp://host/second").unwrap(),
            device_keys: credentials(profile, 12),
            ..Self::new(profile)
        }
    }

    pub(super) fn registration(&self, pre_auth_token: &[u8]) -> Bytes {
        let relay = relay_keys().public();
        let (device, account) = (&self.device_keys, &self.account_keys);
        let entropy = &mut Seeded::new(20);
        register_device_account(&self.device, device, &self.account, account, relay, pre_auth_token, entropy)
            .unwrap()
    }

    fn joining(&self) -> Bytes {
        let relay = relay_keys().public();
        let (device, account) = (&self.device_keys, &self.account_keys);
        let entropy = &mut Seeded::new(21);
        register_account_on_new_device(&self.device, device, &self.account, account, relay, entropy).unwrap()
    }

    pub(super) fn identity(&self, identity: &IdentityUrl) -> Bytes {
        register_identity(&self.account, &self.account_keys, identity, b"").unwrap()
    }
}

impl Relay {
    pub(super) fn new() -> Self {
        Self { records: Records::default(), pre_authentication_required: false }
    }

    pub(super) fn with(user: &User) -> Self {
        let mut relay = Self::new();
        relay.accepts(user, &user.registration(b""));
        relay
    }

    fn judge(&self, user: &User, token: &[u8]) -> RegisterVerdict {
        answer_register(
            token,
            &RegisterContext {
                keys: relay_keys(),
                device: &user.device,
                account: &user.account,
                directory: &self.records,
                pre_authentication_required: self.pre_authentication_required,
            },
        )
    }

    /// Registers, and gives the number of changes.
    fn accepts(&mut self, user: &User, token: &[u8]) -> usize {
        match self.judge(user, token) {
            RegisterVerdict::Accepted { changes, response } => {
                assert_eq!(read_register_response(&response), Ok(RegisterStatus::Ok));
                let count = changes.len();
                self.records.apply(changes);
                count
            }
            other => panic!("not accepted but {other:?}"),
        }
    }

    fn refuses(&self, user: &User, token: &[u8]) -> (RegisterStatus, SecurityError) {
        match self.judge(user, token) {
            RegisterVerdict::Refused { status, response, reason } => {
                assert_eq!(read_register_response(&response), Ok(status));
                (status, reason)
            }
            other => panic!("not refused but {other:?}"),
        }
    }

    pub(super) fn malformed(&self, user: &User, token: &[u8]) -> TokenError {
        match self.judge(user, token) {
            RegisterVerdict::Malformed(SecurityError::Token(error)) => error,
            other => panic!("not malformed but {other:?}"),
        }
    }

    fn account(&mut self, user: &User) -> &mut AccountRecord {
        self.records.accounts.entry(user.account.clone()).or_default()
    }
}

#[test]
fn a_new_account_on_a_new_device_is_registered_and_can_authenticate() {
    for profile in BOTH_PROFILES {
        let (user, mut relay) = (User::new(profile), Relay::new());
        assert_eq!(relay.accepts(&user, &user.registration(b"")), 2);
        let device = &relay.records.devices[&user.device];
        assert_eq!(device.credentials, Some(user.device_keys.as_registered()));
        assert_eq!(device.accounts, vec![user.account.clone()]);
        let account = &relay.records.accounts[&user.account];
        assert_eq!(account.credentials, Some(user.account_keys.as_registered()));
        assert_eq!(account.devices, vec![user.device.clone()]);

        let hello = hello(Layer::Device, user.device.as_str(), &user.device_keys, &mut Seeded::new(1));
        let verdict = answer_connect(&hello.token, &user.device, Some(device), &mut Seeded::new(2));
        let HelloVerdict::Challenged { token, challenge } = verdict else { panic!("registered") };
        let Ok(HelloAnswer::Proof { token }) = hello.answer(&token) else { panic!("a challenge") };
        challenge.verify(&token).unwrap();
    }
}

#[test]
fn registering_the_same_keys_again_changes_nothing() {
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        let mut relay = Relay::with(&user);
        assert_eq!(relay.accepts(&user, &user.registration(b"")), 0);
        assert_eq!(relay.accepts(&user, &user.joining()), 0);
    }
}

#[test]
fn other_keys_for_a_registered_device_or_account_are_refused() {
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        let relay = Relay::with(&user);
        let device = User { device_keys: credentials(profile, 30), ..User::new(profile) };
        let expected = |layer| (RegisterStatus::AlreadyRegistered, SecurityError::AlreadyRegistered(layer));
        assert_eq!(relay.refuses(&user, &device.registration(b"")), expected(Layer::Device));
        assert_eq!(relay.refuses(&user, &device.joining()), expected(Layer::Device));
        let account = User { account_keys: credentials(profile, 31), ..User::new(profile) };
        assert_eq!(relay.refuses(&user, &account.registration(b"")), expected(Layer::Account));
    }
}

#[test]
fn keys_of_the_other_profile_do_not_replace_registered_ones() {
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        let mut relay = Relay::with(&user);
        relay.records.devices.get_mut(&user.device).unwrap().credentials.as_mut().unwrap().profile =
            other(profile);
        let expected = SecurityError::OtherProfile { registered: other(profile), found: profile };
        assert_eq!(
            relay.refuses(&user, &user.registration(b"")),
            (RegisterStatus::AlreadyRegistered, expected)
        );
    }
}

#[test]
fn a_known_account_joins_a_new_device_by_proof_of_its_key() {
    for profile in BOTH_PROFILES {
        let (user, second) = (User::new(profile), User::on_other_device(profile));
        let mut relay = Relay::with(&user);
        assert_eq!(relay.accepts(&second, &second.joining()), 2);
        assert_eq!(
            relay.records.accounts[&user.account].devices,
            [user.device.clone(), second.device.clone()]
        );
        assert_eq!(relay.records.devices[&second.device].accounts, vec![user.account.clone()]);
    }
}

#[test]
fn joining_without_the_account_key_is_refused() {
    for profile in BOTH_PROFILES {
        let (user, second) = (
            User::new(profile),
            User { account_keys: credentials(profile, 30), ..User::on_other_device(profile) },
        );
        let expected = SecurityError::WrongMac(MessageId::SecAccountOnNewDeviceRegister);
        assert_eq!(
            Relay::with(&user).refuses(&second, &second.joining()),
            (RegisterStatus::SignatureInvalid, expected)
        );
    }
}

#[test]
fn joining_needs_a_registered_account() {
    for profile in BOTH_PROFILES {
        let (mut relay, user) = (Relay::new(), User::new(profile));
        let expected = (RegisterStatus::UnknownAccount, SecurityError::UnknownAccount);
        assert_eq!(relay.refuses(&user, &user.joining()), expected);
        relay.account(&user).identities.push(identity());
        assert_eq!(relay.refuses(&user, &user.joining()), expected);
    }
}

#[test]
fn an_overheard_account_message_does_not_bring_the_account_to_another_device() {
    for profile in BOTH_PROFILES {
        let (user, thief) = (User::new(profile), User::on_other_device(profile));
        let relay = Relay::with(&user);
        let expected = (RegisterStatus::NotPermitted, SecurityError::NewDeviceNotProven);
        assert_eq!(relay.refuses(&thief, &thief.registration(b"")), expected);
    }
}

#[test]
fn a_second_account_may_live_on_the_same_device() {
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        let mut relay = Relay::with(&user);
        let other = User {
            account: AccountUrl::new("grooveAccount://other@").unwrap(),
            account_keys: credentials(profile, 30),
            ..User::new(profile)
        };
        assert_eq!(relay.accepts(&other, &other.registration(b"")), 2);
        assert_eq!(relay.records.devices[&user.device].accounts, [user.account, other.account]);
    }
}

#[test]
fn a_listed_token_has_to_be_presented_at_the_first_registration_only() {
    for profile in BOTH_PROFILES {
        let (user, mut relay) = (User::new(profile), Relay::new());
        relay.account(&user).pre_auth_token = Some(SecretKey::new(b"let me in".to_vec()));
        let expected = (RegisterStatus::PreAuthenticationFailed, SecurityError::PreAuthenticationFailed);
        for wrong in [&b""[..], b"let me i", b"let me in ", b"Let me in"] {
            assert_eq!(relay.refuses(&user, &user.registration(wrong)), expected);
        }
        relay.accepts(&user, &user.registration(b"let me in"));
        relay.accepts(&user, &user.registration(b""));
    }
}

#[test]
fn where_pre_authentication_is_required_an_unlisted_account_is_refused() {
    for profile in BOTH_PROFILES {
        let (user, mut relay) = (User::new(profile), Relay::new());
        relay.pre_authentication_required = true;
        let expected = (RegisterStatus::PreAuthenticationFailed, SecurityError::PreAuthenticationFailed);
        assert_eq!(relay.refuses(&user, &user.registration(b"token")), expected);
        relay.account(&user).identities.push(identity());
        assert_eq!(relay.refuses(&user, &user.registration(b"")), expected);
    }
}

#[test]
fn the_first_account_that_claims_an_identity_owns_it() {
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        let mut relay = Relay::with(&user);
        assert_eq!(relay.accepts(&user, &user.identity(&identity())), 2);
        assert_eq!(relay.records.identities[&identity()].account, user.account);
        assert_eq!(relay.records.accounts[&user.account].identities, [identity()]);
        assert_eq!(relay.accepts(&user, &user.identity(&identity())), 0);

        let other = User {
            account: AccountUrl::new("grooveAccount://other@").unwrap(),
            account_keys: credentials(profile, 30),
            ..User::new(profile)
        };
        relay.accepts(&other, &other.registration(b""));
        let expected = (RegisterStatus::NotPermitted, SecurityError::IdentityOfAnotherAccount);
        assert_eq!(relay.refuses(&other, &other.identity(&identity())), expected);
    }
}

#[test]
fn where_pre_authentication_is_required_only_listed_identities_are_accepted() {
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        let mut relay = Relay::with(&user);
        relay.pre_authentication_required = true;
        let expected = (RegisterStatus::PreAuthenticationFailed, SecurityError::IdentityNotListed);
        assert_eq!(relay.refuses(&user, &user.identity(&identity())), expected);
        relay.account(&user).identities.push(identity());
        assert_eq!(relay.accepts(&user, &user.identity(&identity())), 1);
        assert_eq!(relay.records.identities[&identity()].account, user.account);
    }
}

#[test]
fn an_identity_needs_a_registered_account_and_its_key() {
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        let token = user.identity(&identity());
        let expected = (RegisterStatus::UnknownAccount, SecurityError::UnknownAccount);
        assert_eq!(Relay::new().refuses(&user, &token), expected);
        let stranger = User { account_keys: credentials(profile, 30), ..User::new(profile) };
        let (status, reason) = Relay::with(&user).refuses(&user, &stranger.identity(&identity()));
        assert_eq!(status, RegisterStatus::SignatureInvalid);
        assert_eq!(reason, SecurityError::WrongMac(MessageId::SecIdentityRegister));
    }
}

#[test]
fn an_identity_that_is_no_url_is_a_protocol_error() {
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        let relay = Relay::with(&user);
        let long = vec![b'x'; 1025];
        for bad in [&b""[..], b"with space", &long] {
            let [major, minor] = relay_version(profile);
            let count = (bad.len() as u16).to_le_bytes();
            let token = [&[major, minor, 16][..], &count, bad, &[0; 36]].concat();
            assert!(matches!(relay.malformed(&user, &token), TokenError::IdentityUrl(_)));
        }
    }
}

#[test]
fn a_locked_out_device_or_account_registers_nothing() {
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        let mut relay = Relay::with(&user);
        relay.account(&user).locked_out = true;
        let expected = |layer| (RegisterStatus::NotPermitted, SecurityError::LockedOut(layer));
        assert_eq!(relay.refuses(&user, &user.registration(b"")), expected(Layer::Account));
        assert_eq!(relay.refuses(&user, &user.joining()), expected(Layer::Account));
        assert_eq!(relay.refuses(&user, &user.identity(&identity())), expected(Layer::Account));
        relay.account(&user).locked_out = false;
        relay.records.devices.get_mut(&user.device).unwrap().locked_out = true;
        assert_eq!(relay.refuses(&user, &user.registration(b"")), expected(Layer::Device));
    }
}

#[test]
fn records_do_not_grow_without_bound() {
    for profile in BOTH_PROFILES {
        let (user, second) = (User::new(profile), User::on_other_device(profile));
        let full = |layer| (RegisterStatus::NotPermitted, SecurityError::RecordFull(layer));
        let mut relay = Relay::with(&user);
        relay.account(&user).devices = (0..MAX_DEVICES_PER_ACCOUNT)
            .map(|n| DeviceUrl::new(format!("dpp://host/{n}")).unwrap())
            .collect();
        assert_eq!(relay.refuses(&second, &second.joining()), full(Layer::Account));
        relay.account(&user).identities =
            (0..MAX_IDENTITIES_PER_ACCOUNT).map(|n| IdentityUrl::new(format!("id{n}")).unwrap()).collect();
        assert_eq!(relay.refuses(&user, &user.identity(&identity())), full(Layer::Account));
        let mut relay = Relay::new();
        let accounts =
            (0..MAX_ACCOUNTS_PER_DEVICE).map(|n| AccountUrl::new(format!("account{n}")).unwrap()).collect();
        relay.records.devices.insert(user.device.clone(), DeviceRecord { accounts, ..Default::default() });
        assert_eq!(relay.refuses(&user, &user.registration(b"")), full(Layer::Device));
    }
}

#[test]
fn keys_sealed_to_another_relay_or_for_another_name_are_undecryptable() {
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        let other_relay = RelayKeys::generate(&mut Seeded::new(1));
        let token = register_device_account(
            &user.device,
            &user.device_keys,
            &user.account,
            &user.account_keys,
            other_relay.public(),
            b"",
            &mut Seeded::new(2),
        )
        .unwrap();
        let (status, _) = Relay::new().refuses(&user, &token);
        assert_eq!(status, RegisterStatus::KeyUndecryptable);
    }
}

#[test]
fn modern_keys_are_sealed_for_one_name() {
    let profile = Profile::Modern;
    let user = User::new(profile);
    let elsewhere = User { device: DeviceUrl::new("dpp://host/other").unwrap(), ..User::new(profile) };
    let (_, reason) = Relay::new().refuses(&elsewhere, &user.registration(b""));
    assert_eq!(reason, SecurityError::KeyUndecryptable(Layer::Device));
    let elsewhere = User { account: AccountUrl::new("other").unwrap(), ..User::new(profile) };
    let (_, reason) = Relay::new().refuses(&elsewhere, &user.registration(b""));
    assert_eq!(reason, SecurityError::KeyUndecryptable(Layer::Account));
}

#[test]
fn a_legacy_key_that_is_not_24_bytes_is_refused() {
    let user = User::new(Profile::Legacy);
    let credentials::Signer::Legacy(signer) = &user.device_keys.signer else { panic!("made legacy") };
    for length in [0, 23, 25, 189] {
        let secret = SecretKey::new(vec![7; length]);
        let relay = relay_keys().public().legacy_key();
        let registrant = legacy::Registrant { secret: &secret, signer, relay };
        let message = registrant.write_account_register(b"", &mut Seeded::new(1));
        let (_, reason) = Relay::new().refuses(&user, &user.device_message(&message));
        assert_eq!(reason, SecurityError::KeyUndecryptable(Layer::Account));
    }
}

#[test]
fn the_unusable_key_of_a_relay_is_noticed_by_the_client() {
    let user = User::new(Profile::Modern);
    let relay = RelayPublicKeys::new([0; 32], &relay_keys().public().legacy_der()).unwrap();
    let (device, account) = (&user.device_keys, &user.account_keys);
    let entropy = &mut Seeded::new(1);
    let made = register_account_on_new_device(&user.device, device, &user.account, account, &relay, entropy);
    assert_eq!(made, Err(SecurityError::UnusableRelayKey));
}

#[test]
fn a_client_does_not_mix_profiles() {
    for profile in BOTH_PROFILES {
        let user = User { account_keys: credentials(other(profile), 11), ..User::new(profile) };
        let (device, account) = (&user.device_keys, &user.account_keys);
        let (relay, entropy) = (relay_keys().public(), &mut Seeded::new(1));
        let made = register_device_account(&user.device, device, &user.account, account, relay, b"", entropy);
        assert_eq!(made, Err(SecurityError::MixedProfiles));
        let made =
            register_account_on_new_device(&user.device, device, &user.account, account, relay, entropy);
        assert_eq!(made, Err(SecurityError::MixedProfiles));
    }
}

#[test]
fn a_client_does_not_send_a_token_that_is_too_long() {
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        let long = vec![0; MAX_PRE_AUTH_TOKEN_BYTES + 1];
        let made = register_identity(&user.account, &user.account_keys, &identity(), &long);
        assert_eq!(made, Err(SecurityError::PreAuthTokenTooLong(long.len())));
        user.registration(&long[1..]);
    }
}

#[test]
fn every_altered_or_missing_byte_of_a_registration_leads_to_failure() {
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        let relay = Relay::with(&user);
        let second = User::on_other_device(profile);
        for (user, token) in [
            (&user, user.registration(b"token")),
            (&second, second.joining()),
            (&user, user.identity(&identity())),
        ] {
            each_alteration(&token, |altered| {
                let accepted = matches!(relay.judge(user, altered), RegisterVerdict::Accepted { .. });
                assert!(!accepted, "{altered:?}");
            });
        }
    }
}

#[test]
fn a_message_that_is_no_registration_is_a_protocol_error() {
    let (user, relay) = (User::new(Profile::Modern), Relay::new());
    let unexpected = TokenError::UnexpectedMessage;
    let cases: &[(&[u8], TokenError)] = &[
        (&[], TokenError::Truncated("header")),
        (&[2, 0, 1, 0, 0, 0, 0], unexpected(MessageId::SecConnect)),
        (&[2, 0, 14], unexpected(MessageId::SecAccountRegister)),
        (&[2, 0, 12], TokenError::Truncated("SealedDeviceKey")),
        (&[2, 0, 12, 0, 0], TokenError::FieldLength { name: "SealedDeviceKey", bytes: 0 }),
        (&[1, 3, 15], unexpected(MessageId::SecAccountOnNewDeviceRegister)),
        (&[1, 3, 12], TokenError::Truncated("EncryptedDeviceKey")),
        (&[1, 3, 12, 0, 0], TokenError::FieldLength { name: "EncryptedDeviceKey", bytes: 0 }),
    ];
    for (token, expected) in cases {
        assert_eq!(relay.malformed(&user, token), *expected, "{token:?}");
    }
}

#[test]
fn the_embedded_account_message_has_to_be_one_of_the_same_profile() {
    for profile in BOTH_PROFILES {
        let (user, relay) = (User::new(profile), Relay::new());
        let [major, minor] = relay_version(profile);
        let [other_major, other_minor] = relay_version(other(profile));
        let first = if profile == Profile::Modern { "Nonce" } else { "IV" };
        let cases: &[(&[u8], TokenError)] = &[
            (&[], TokenError::Truncated("header")),
            (&[other_major, other_minor, 14], TokenError::UnexpectedProfile(other(profile))),
            (&[major, minor, 16], TokenError::UnexpectedMessage(MessageId::SecIdentityRegister)),
            (&[major, minor, 15], TokenError::Truncated(first)),
            (&[major, minor, 14], TokenError::Truncated("UserPreAuthToken")),
        ];
        for (message, expected) in cases {
            assert_eq!(relay.malformed(&user, &user.device_message(message)), *expected, "{message:?}");
        }
    }
}

#[test]
fn an_account_message_signed_by_another_key_is_refused() {
    for profile in BOTH_PROFILES {
        let (user, relay) = (User::new(profile), Relay::new());
        let [major, minor] = relay_version(profile);
        let message = match profile {
            Profile::Modern => {
                [&[major, minor, 14, 0, 0, 80, 0][..], &[0; 80], &[32, 0], &[9; 32], &[64, 0], &[0; 64]]
                    .concat()
            }
            Profile::Legacy => {
                let keys = user.account_keys.as_registered().public_keys;
                let count = (keys.len() as u16).to_le_bytes();
                let head = [&[major, minor, 14, 0, 0, 128, 1][..], &[0; 384]].concat();
                [&head[..], &count, &keys, &[0, 1], &[0; 256]].concat()
            }
        };
        let expected = SecurityError::SignatureInvalid(MessageId::SecAccountRegister);
        let (status, reason) = relay.refuses(&user, &user.device_message(&message));
        assert_eq!((status, reason), (RegisterStatus::SignatureInvalid, expected));
    }
}

impl User {
    /// A right SecDeviceAccountRegister around any account message.
    fn device_message(&self, account_message: &[u8]) -> Bytes {
        let (secret, relay) = (self.device_keys.secret(), relay_keys().public());
        let entropy = &mut Seeded::new(1);
        match &self.device_keys.signer {
            credentials::Signer::Modern(signer) => {
                let (url, relay) = (self.device.as_str(), relay.modern());
                let registrant = modern::Registrant { url, secret, signer, relay };
                registrant.write_device_register(account_message, entropy).unwrap()
            }
            credentials::Signer::Legacy(signer) => {
                let registrant = legacy::Registrant { secret, signer, relay: relay.legacy_key() };
                registrant.write_device_register(account_message, entropy)
            }
        }
    }
}

#[test]
fn a_busy_relay_answers_each_kind_of_registration_with_its_response() {
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        for (token, id) in [(user.registration(b""), 13), (user.identity(&identity()), 17)] {
            let busy = busy_response(&token).unwrap();
            assert_eq!(busy, [&relay_version(profile)[..], &[id, 7]].concat());
            assert_eq!(read_register_response(&busy), Ok(RegisterStatus::Busy));
        }
        let expected = TokenError::UnexpectedMessage(MessageId::SecConnect);
        assert_eq!(busy_response(&[2, 0, 1]), Err(SecurityError::Token(expected)));
    }
}

#[test]
fn a_response_has_one_known_status() {
    for status in 0..=u8::MAX {
        let read = read_register_response(&[2, 0, 17, status]);
        match RegisterStatus::from_byte(status) {
            Some(known) => assert_eq!((read, known as u8), (Ok(known), status)),
            None => assert_eq!(read, Err(SecurityError::Token(TokenError::UnknownStatus(status)))),
        }
    }
    assert!(read_register_response(&[2, 0, 13]).is_err());
    assert!(read_register_response(&[2, 0, 13, 0, 0]).is_err());
    assert!(read_register_response(&[2, 0, 12, 0]).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_a_registration_parser_panic_or_succeed(token in hostile()) {
        let user = User::new(Profile::Modern);
        let accepted = matches!(Relay::new().judge(&user, &token), RegisterVerdict::Accepted { .. });
        prop_assert!(!accepted);
        let _ = (busy_response(&token), read_register_response(&token));
    }

    #[test]
    fn no_account_message_inside_a_right_modern_device_message_makes_the_relay_panic(message in hostile()) {
        let user = User::new(Profile::Modern);
        let verdict = Relay::new().judge(&user, &user.device_message(&message));
        let accepted = matches!(verdict, RegisterVerdict::Accepted { .. });
        prop_assert!(!accepted);
    }
}

proptest! {
    // Each case costs an RSA signature and an exponentiation.
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_account_message_inside_a_right_legacy_device_message_makes_the_relay_panic(message in hostile()) {
        let user = User::new(Profile::Legacy);
        let verdict = Relay::new().judge(&user, &user.device_message(&message));
        let accepted = matches!(verdict, RegisterVerdict::Accepted { .. });
        prop_assert!(!accepted);
    }
}
