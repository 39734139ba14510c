//! Tokens of the modern profile, byte for byte, computed by another implementation of the wire profile's words.

use super::*;

fn client(secret: &[u8], seed: u8) -> ClientCredentials {
    let file = format!("furrow-keys 1 client-modern\nsecret {}\ned25519 {}\n", hex(secret), hex(&[seed; 32]));
    ClientCredentials::decode(file.as_bytes()).unwrap()
}

#[test]
fn modern_handshake_tokens_are_those_of_the_wire_profile() {
    let credentials = client(&(100..132).collect::<Vec<u8>>(), 0);
    let record = DeviceRecord {
        credentials: Some(credentials.as_registered()),
        accounts: vec![account()],
        locked_out: false,
    };
    let hello = hello(Layer::Device, device().as_str(), &credentials, &mut Counting(0));
    assert_eq!(
        hex(&hello.token),
        "0200012000000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2000\
         6638251e8c3ab9c06836c3d87fedea98ac9f50eb11599796545c233a9bc176eb"
    );
    let HelloVerdict::Challenged { token, challenge } =
        answer_connect(&hello.token, &device(), Some(&record), &mut Counting(32))
    else {
        panic!("the relay knows the key")
    };
    assert_eq!(
        hex(&token),
        "0200022000202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f2000\
         18825a70e6fd9de673f28a49edacd531f356b7194c3fe09ffc59d205607577c3"
    );
    let HelloAnswer::Proof { token } = hello.answer(&token).unwrap() else { panic!("a challenge") };
    assert_eq!(hex(&token), "020005200084bdc1df24f3432205eec2a3816a57a087d560fc145e377e7e788e8e5ae86543");
    challenge.verify(&token).unwrap();
}

#[test]
fn modern_account_layer_tokens_are_those_of_the_wire_profile() {
    let credentials = client(&(100..132).collect::<Vec<u8>>(), 0);
    let record = AccountRecord { credentials: Some(credentials.as_registered()), ..Default::default() };
    let hello = hello(Layer::Account, account().as_str(), &credentials, &mut Counting(0));
    let HelloVerdict::Challenged { token, .. } =
        answer_attach(&hello.token, &account(), Some(&record), &mut Counting(32))
    else {
        panic!("the relay knows the key")
    };
    let HelloAnswer::Proof { token } = hello.answer(&token).unwrap() else { panic!("a challenge") };
    assert_eq!(hex(&token), "02000a20003837ee897c00aa674f9913a76f2ab310ad9b63d0be35941ed434dad00142e548");
    assert_eq!(
        hex(&register_identity(&account(), &credentials, &identity(), b"token").unwrap()),
        "020010150067726f6f76654964656e746974793a2f2f6b6579400500746f6b656e2000\
         21712b4d5f48d73f1f8797375bceae50cf3a1979e2cfb9e94a966f1b97d08836"
    );
}

#[test]
fn modern_registration_token_is_that_of_the_wire_profile() {
    let token = register_device_account(
        &device(),
        &client(&[1; 32], 3),
        &account(),
        &client(&[2; 32], 4),
        example_relay().public(),
        b"token",
        &mut Counting(0),
    )
    .unwrap();
    assert_eq!(token.len(), 379);
    let digest = ring::digest::digest(&ring::digest::SHA256, &token);
    assert_eq!(hex(digest.as_ref()), "bd73437e8166aa550014b072d6f6a917968b4df9c4d1f91881a4f79d1d173af6");
}

#[test]
fn modern_new_device_message_is_that_of_the_wire_profile() {
    let key = client(&(100..132).collect::<Vec<u8>>(), 0);
    let token =
        modern::write_new_device(key.secret(), account().as_str(), device().as_str(), &mut Counting(0));
    assert_eq!(
        hex(&token),
        "02000f2000000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2000\
         af2c02c16d9caad57c96e1084fb6aab2ae7df803c1cbeb14955432cb6fc5cc6e"
    );
}
