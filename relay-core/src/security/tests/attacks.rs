//! What an attacker does to the bytes of tokens, apart from altering some: too many of them, and the same ones again.

use super::super::token::{Header, Writer};
use super::handshakes::{Known, challenged, proof};
use super::registrations::{Relay, User};
use super::*;
use std::collections::HashSet;

fn longer(token: &[u8]) -> Vec<u8> {
    [token, &[0]].concat()
}

#[test]
fn an_oversized_handshake_token_is_refused_by_both_ends() {
    for (profile, layer) in CASES {
        let client = credentials(profile, 1);
        let known = Known::new(layer, &client);
        let hello = hello(layer, &known.url(), &client, &mut Seeded::new(2));
        let too_long = TokenError::TrailingBytes(1);
        let answer = known.answer(&longer(&hello.token), 3);
        assert!(
            matches!(answer, HelloVerdict::Failed { reason: SecurityError::Token(error), .. } if error == too_long)
        );
        let (response, challenge) = challenged(known.answer(&hello.token, 3));
        assert_eq!(hello.answer(&longer(&response)), Err(too_long.into()));
        let proof = proof(hello.answer(&response));
        assert_eq!(challenge.verify(&longer(&proof)), Err(too_long.into()));
    }
}

#[test]
fn an_oversized_registration_token_is_refused() {
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        let relay = Relay::new();
        assert_eq!(relay.malformed(&user, &longer(&user.registration(b""))), TokenError::TrailingBytes(1));
        let relay = Relay::with(&user);
        assert_eq!(
            relay.malformed(&user, &longer(&user.identity(&identity()))),
            TokenError::TrailingBytes(1)
        );
    }
}

#[test]
fn an_oversized_pre_authentication_token_is_refused_before_anything_is_verified() {
    let bytes = MAX_PRE_AUTH_TOKEN_BYTES + 1;
    for profile in BOTH_PROFILES {
        let user = User::new(profile);
        let [_, minor] = relay_version(profile);
        let header = Header { profile, minor, id: MessageId::SecIdentityRegister };
        let token = Writer::new(header).field(identity().as_bytes()).field(&vec![7; bytes]).finish();
        let expected = TokenError::FieldLength { name: "UserPreAuthToken", bytes };
        assert_eq!(Relay::with(&user).malformed(&user, &token), expected);
    }
}

#[test]
fn no_nonce_and_no_iv_is_used_twice_by_either_end() {
    for (profile, layer) in CASES {
        let client = credentials(profile, 1);
        let known = Known::new(layer, &client);
        let entropy = &mut Seeded::new(2);
        let hellos: Vec<_> = (0..50).map(|_| hello(layer, &known.url(), &client, entropy)).collect();
        let of_clients: HashSet<_> = hellos.iter().map(|hello| first_field(&hello.token)).collect();
        // The same hello again and again: an attacker who has overheard it can do no better.
        let answers: Vec<_> =
            (100..150).map(|seed| challenged(known.answer(&hellos[0].token, seed)).0).collect();
        let of_relay: HashSet<_> = answers.iter().map(|answer| first_field(answer)).collect();
        assert_eq!((of_clients.len(), of_relay.len()), (50, 50));
        assert!(of_clients.is_disjoint(&of_relay));
    }
}

/// The nonce (modern) or the IV (legacy) behind the header and its count.
fn first_field(token: &[u8]) -> Vec<u8> {
    token[5..5 + 24].to_vec()
}
