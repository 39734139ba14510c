//! Tokens of the legacy profile, byte for byte, computed by another implementation of the wire profile's words.

use super::*;

fn counting_from<const N: usize>(first: u8) -> [u8; N] {
    Counting(first).bytes()
}

#[test]
fn legacy_device_layer_tokens_are_those_of_the_wire_profile() {
    let credentials = legacy_credentials(&counting_from(100));
    let record = DeviceRecord {
        credentials: Some(credentials.as_registered()),
        accounts: vec![account()],
        locked_out: false,
    };
    let hello = hello(Layer::Device, device().as_str(), &credentials, &mut Counting(0));
    assert_eq!(
        hex(&hello.token),
        "0103011800000102030405060708090a0b0c0d0e0f101112131415161714009c4941221c7d3633fd\
         e7523db1855befd8cd1ad4140014f7c5626243410328123239f6f72623fdc56564"
    );
    let verdict = answer_connect(&hello.token, &device(), Some(&record), &mut Counting(64));
    let HelloVerdict::Challenged { token, challenge } = verdict else { panic!("the relay knows the key") };
    assert_eq!(token.len(), 95);
    assert_eq!(
        hex(&token),
        "0104021800404142434445464748494a4b4c4d4e4f505152535455565714009002c02507e1300cd3\
         930b848d6e49407aa7d575140018191a1b1c1d1e1f202122232425262728292a2b1400f29d096ef4\
         2fe3404798e88335e892ae8935e2b4"
    );
    let HelloAnswer::Proof { token } = hello.answer(&token).unwrap() else { panic!("a challenge") };
    assert_eq!(
        hex(&token),
        "0103051400f67e063ebd37f71c0c6fd30796624746cfe6d25f140058595a5b5c5d5e5f6061626364\
         65666768696a6b"
    );
    challenge.verify(&token).unwrap();
}

#[test]
fn legacy_account_layer_tokens_are_those_of_the_wire_profile() {
    let credentials = legacy_credentials(&counting_from(100));
    let record = AccountRecord { credentials: Some(credentials.as_registered()), ..Default::default() };
    let hello = hello(Layer::Account, account().as_str(), &credentials, &mut Counting(0));
    assert_eq!(
        hex(&hello.token),
        "0104061800000102030405060708090a0b0c0d0e0f1011121314151617140083a36cd0d2c42fcf4f\
         017273b1ef0652d1c79a2d140014f7c5626243410328123239f6f72623fdc56564"
    );
    let verdict = answer_attach(&hello.token, &account(), Some(&record), &mut Counting(64));
    let HelloVerdict::Challenged { token, challenge } = verdict else { panic!("the relay knows the key") };
    let HelloAnswer::Proof { token } = hello.answer(&token).unwrap() else { panic!("a challenge") };
    assert_eq!(
        hex(&token),
        "01040a14007a9e0e5620d2982e5779001a90170b595bd4cebc140058595a5b5c5d5e5f6061626364\
         65666768696a6b"
    );
    challenge.verify(&token).unwrap();
}

#[test]
fn legacy_registration_messages_are_those_of_the_wire_profile() {
    let credentials = legacy_credentials(&counting_from(100));
    assert_eq!(
        hex(&legacy::write_new_device(credentials.secret(), &mut Counting(0))),
        "01040f1800000102030405060708090a0b0c0d0e0f101112131415161714003d693f6c5873733ea1\
         8c199c5d04e81d46f27890140014f7c5626243410328123239f6f72623fdc56564"
    );
    assert_eq!(
        hex(&register_identity(&account(), &credentials, &identity(), b"token").unwrap()),
        "010410150067726f6f76654964656e746974793a2f2f6b6579400500746f6b656e14008e1255cb87\
         2a18346f09abaebc17dd0797638a06"
    );
    let token = register_device_account(
        &device(),
        &legacy_credentials(&[1; 24]),
        &account(),
        &legacy_credentials(&[2; 24]),
        example_relay().public(),
        b"token",
        &mut Counting(0),
    )
    .unwrap();
    assert_eq!(token.len(), 2307);
    let digest = ring::digest::digest(&ring::digest::SHA256, &token);
    assert_eq!(hex(digest.as_ref()), "3294531ba2640369a4f95b4511daa4f186cd7eea2773257fbf9925e49da45e5b");
}
