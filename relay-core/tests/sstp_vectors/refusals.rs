//! Everything that decoding must refuse: fields that do not fit and values that are not allowed (sstp-messages 4,
//! wire-profile 1).

use super::*;

#[test]
fn every_command_is_refused_wherever_it_is_cut() {
    for Vector { name, versions, hex: bytes, .. } in all_vectors() {
        let opaque_end = name.contains("Fragmentation") || name.contains("all flags");
        if matches!(name, "Data" | "SessionStatus multi") || opaque_end {
            continue;
        }
        let (bytes, version) = (hex(bytes), versions[0]);
        let (command, least, _) = LENGTH_LIMITS[usize::from(bytes[0]) - 1];
        for length in 3..bytes.len() {
            let expected = if length < least {
                DecodeError::Length { command, length }
            } else {
                DecodeError::Truncated(command)
            };
            assert_eq!(
                decode(&with_length(bytes[..length].to_vec()), version),
                Err(expected),
                "{name} cut to {length}"
            );
        }
    }
}

#[test]
fn session_status_multi_is_refused_wherever_it_is_cut_but_in_front_of_its_indexes() {
    let bytes = hex("12 17 00  05 00 00 00  01  00  72 65 6c 61 79 42 00  00  02 00  00 00  01 00");
    for length in 11..bytes.len() {
        let decoded = decode(&with_length(bytes[..length].to_vec()), Version::V1_6);
        if length == 17 {
            assert_eq!(decoded, Ok(session_status(&[])));
        } else {
            assert_eq!(decoded, Err(DecodeError::Truncated(CommandId::SessionStatus)), "cut to {length}");
        }
    }
}

#[test]
fn fragmentation_fields_may_have_any_length_but_what_is_in_front_of_them_may_not() {
    let vectors = all_vectors();
    let all = vectors.iter().find(|vector| vector.name.contains("all flags")).expect("it is there");
    let bytes = hex(all.hex);
    for length in 13..bytes.len() - 1 {
        assert_eq!(
            decode(&with_length(bytes[..length].to_vec()), Version::V1_6),
            Err(DecodeError::Truncated(CommandId::Message)),
            "cut to {length}"
        );
    }
    assert!(decode(&with_length(bytes[..bytes.len() - 1].to_vec()), Version::V1_6).is_ok());
}

#[test]
fn every_command_with_a_byte_behind_its_last_field_is_refused() {
    for Vector { name, versions, hex: bytes, .. } in all_vectors() {
        if name == "Data" || name.contains("Fragmentation") || name.contains("all flags") {
            continue; // their last field takes whatever there is
        }
        for &version in versions {
            let mut bytes = hex(bytes);
            let (command, _, most) = LENGTH_LIMITS[usize::from(bytes[0]) - 1];
            bytes.push(0);
            let expected = if bytes.len() > most {
                DecodeError::Length { command, length: bytes.len() }
            } else if name == "SessionStatus single" && version == Version::V1_6 {
                DecodeError::Truncated(command) // half of NumFanoutDeviceIndexes
            } else {
                DecodeError::Trailing(command)
            };
            assert_eq!(decode(&with_length(bytes), version), Err(expected), "{name} in {version:?}");
        }
    }
}

#[test]
fn session_status_with_indexes_is_refused_in_1_5() {
    assert_eq!(
        decode(&encode(&session_status(&[0, 1])), Version::V1_5),
        Err(DecodeError::Trailing(CommandId::SessionStatus))
    );
}

#[test]
fn fanout_open_of_the_other_version_is_refused() {
    let lists = [
        vec![entry("idB", "devB", "")],
        vec![entry("idB", "devB", ""), entry("idC", "", "")],
        vec![entry("", "", "")],
        vec![entry("", "", ""), entry("", "", ""), entry("", "", "r")],
    ];
    for entries in lists {
        for (sent, received) in [(Version::V1_6, Version::V1_5), (Version::V1_5, Version::V1_6)] {
            let decoded = decode(&encode(&fanout(&entries, sent)), received);
            assert!(decoded.is_err(), "{entries:?} of {sent:?} in {received:?}");
        }
    }
    let two = [entry("idB", "devB", ""), entry("idC", "", "")];
    assert_eq!(
        decode(&encode(&fanout(&two, Version::V1_6)), Version::V1_5),
        Err(DecodeError::Trailing(CommandId::FanoutOpen))
    );
    assert_eq!(
        decode(&encode(&fanout(&two, Version::V1_5)), Version::V1_6),
        Err(DecodeError::Reserved(CommandId::FanoutOpen))
    );
}

#[test]
fn fanout_open_that_announces_more_entries_than_it_has_is_refused() {
    let mut bytes = encode(&fanout(&[entry("idB", "devB", "")], Version::V1_5));
    bytes[19..21].copy_from_slice(&u16::MAX.to_le_bytes());
    assert_eq!(decode(&bytes, Version::V1_5), Err(DecodeError::Truncated(CommandId::FanoutOpen)));
}

#[test]
fn decode_of_less_than_a_prefix_is_refused() {
    assert!(Command::decode(Bytes::new(), Version::V1_6).is_err());
    assert!(Command::decode(Bytes::from_static(&[0x10]), Version::V1_6).is_err());
    assert!(Command::decode(Bytes::from_static(&[0x0f, 7]), Version::V1_6).is_err());
}

#[test]
fn unknown_command_ids_are_refused() {
    for id in (0x13..=0xff).chain([0]) {
        let mut reader = FrameReader::default();
        reader.push(Bytes::copy_from_slice(&[id]));
        assert_eq!(reader.next_frame(), Err(DecodeError::UnknownCommand(id)));
    }
}

#[test]
fn reserved_bits_and_fields_are_refused() {
    let base = |name: &str| {
        let vector = all_vectors().into_iter().find(|vector| vector.name == name).expect(name);
        (hex(vector.hex), vector.versions[0])
    };
    let cases = [
        ("Connect 1.6", 5, CommandId::Connect),
        ("Open device-targeted", 35, CommandId::Open),
        ("Open device-targeted", 36, CommandId::Open),
        ("FanoutOpen 1.5", 37, CommandId::FanoutOpen),
        ("FanoutOpen 1.5", 38, CommandId::FanoutOpen),
        ("SessionStatus single", 8, CommandId::SessionStatus),
    ];
    for (name, offset, command) in cases {
        let (mut bytes, version) = base(name);
        assert_eq!(bytes[offset], 0, "{name}");
        bytes[offset] = 1;
        assert_eq!(decode(&bytes, version), Err(DecodeError::Reserved(command)), "{name} at {offset}");
    }
}

#[test]
fn message_with_r1_or_r2_is_refused_and_with_any_other_flag_is_not() {
    for bit in 0..8 {
        let flags = 1u8 << bit;
        let mut bytes = hex("0d 00 00  01 00 00 00  03 00 00 00  00  00");
        bytes[11] = flags;
        if flags == 0x02 {
            bytes.extend([0; 4]);
        }
        if flags == 0x10 {
            bytes.extend([0; 24]);
        }
        let decoded = decode(&with_length(bytes), Version::V1_6);
        if flags & 0x88 != 0 {
            assert_eq!(decoded, Err(DecodeError::Reserved(CommandId::Message)), "{flags:#04x}");
        } else {
            assert!(
                matches!(decoded, Ok(Command::Message(Message { flags: found, .. })) if found == flags),
                "{flags:#04x}"
            );
        }
    }
}

#[test]
fn open_and_fanout_open_ignore_i_and_refuse_r1_to_r7() {
    for (command, flag_offset, version) in [
        (open(1, "device2"), 34, Version::V1_6),
        (fanout(&[entry("idB", "", "")], Version::V1_5), 18, Version::V1_5),
    ] {
        let plain = encode(&command);
        let id = CommandId::from_byte(plain[0]).unwrap();
        for bit in 0..8 {
            let mut bytes = plain.clone();
            assert_eq!(bytes[flag_offset], 0);
            bytes[flag_offset] = 1 << bit;
            let expected = if bit == 0 { Ok(command.clone()) } else { Err(DecodeError::Reserved(id)) };
            assert_eq!(decode(&bytes, version), expected, "{id:?} bit {bit}");
        }
    }
}

#[test]
fn failover_device_urls_must_be_empty() {
    let mut bytes = encode(&fanout(&[entry("idB", "", "")], Version::V1_6));
    let end = bytes.len();
    bytes.splice(end - 3..end - 2, *b"f\0");
    assert_eq!(decode(&with_length(bytes), Version::V1_6), Err(DecodeError::Reserved(CommandId::FanoutOpen)));
}

#[test]
fn a_string_that_is_not_ascii_is_refused() {
    let cases = [
        ("01 0d 00  01 06 00  00  01 00  00 00  00  00", 6),
        ("01 0d 00  01 06 00  00  01 00  00 00  00  00", 8),
        ("01 0d 00  01 06 00  00  01 00  00 00  00  00", 11),
        ("01 0d 00  01 06 00  00  01 00  00 00  00  00", 12),
        ("05 0e 00  01 00 00 00  72 00  00  00  00  00 00", 7),
        ("05 0e 00  01 00 00 00  72 00  00  00  00  00 00", 9),
        ("05 0e 00  01 00 00 00  72 00  00  00  00  00 00", 10),
        ("06 11 00  01 00 00 00  72 00  00  01 00  00 00 00  00 00", 7),
        ("06 11 00  01 00 00 00  72 00  00  01 00  00 00 00  00 00", 12),
        ("06 11 00  01 00 00 00  72 00  00  01 00  00 00 00  00 00", 13),
        ("06 11 00  01 00 00 00  72 00  00  01 00  00 00 00  00 00", 14),
        ("08 0c 00  01 00 00 00  00  61 00  00 00", 7),
        ("08 0c 00  01 00 00 00  00  61 00  00 00", 8),
        ("0b 0c 00  01 00 00 00  00  61 00  00 00", 8),
        ("0d 0d 00  01 00 00 00  00 00 00 00  00  00", 12),
        ("12 0b 00  01 00 00 00  01  00  00  00", 9),
        ("12 0b 00  01 00 00 00  01  00  00  00", 10),
    ];
    for (bytes, offset) in cases {
        let plain = hex(bytes);
        let id = CommandId::from_byte(plain[0]).unwrap();
        assert!(decode(&plain, Version::V1_5).is_ok(), "{id:?}");
        for (byte, fine) in [(0x7f, true), (0x80, false), (0xff, false)] {
            let mut bytes = plain.clone();
            bytes.insert(offset, byte);
            let decoded = decode(&with_length(bytes), Version::V1_5);
            if fine {
                assert!(decoded.is_ok(), "{id:?} at {offset} with {byte:#04x}");
            } else {
                assert_eq!(decoded, Err(DecodeError::NotAscii(id)), "{id:?} at {offset} with {byte:#04x}");
            }
        }
    }
}

#[test]
fn session_0_is_refused_in_every_command_that_has_a_session() {
    let mut checked = 0;
    for Vector { name, versions, hex: bytes, .. } in all_vectors() {
        let mut bytes = hex(bytes);
        let id = CommandId::from_byte(bytes[0]).unwrap();
        if matches!(bytes[0], 0x01..=0x04 | 0x10) {
            continue;
        }
        bytes[3..7].fill(0);
        assert_eq!(decode(&bytes, versions[0]), Err(DecodeError::SessionZero(id)), "{name}");
        checked += 1;
    }
    assert!(checked >= 13);
}

#[test]
fn connect_without_a_source_device_is_refused() {
    assert_eq!(
        decode(&hex("01 0d 00  01 06 00  74 00  00  00 00  00  00"), Version::V1_6),
        Err(DecodeError::NoSourceDevice)
    );
}

#[test]
fn connect_of_another_major_version_is_told_apart_whatever_follows() {
    for major in [0, 2, 255] {
        let mut bytes = vec![0xff; 40];
        bytes[0] = 0x01;
        bytes[3] = major;
        assert_eq!(decode(&with_length(bytes), Version::V1_6), Err(DecodeError::MajorVersion(major)));
    }
}

#[test]
fn an_empty_resource_url_or_account_url_is_refused() {
    let cases = [
        ("05 0e 00  01 00 00 00  00  69 00  00  00  00 00", "ResourceURL"),
        ("06 0e 00  01 00 00 00  00  00  00 00  00 00 00", "ResourceURL"),
        ("08 0c 00  01 00 00 00  72 00  00  00 00", "AccountURL"),
        ("0b 0c 00  01 00 00 00  72 00  00  00 00", "AccountURL"),
    ];
    for (bytes, field) in cases {
        let bytes = hex(bytes);
        let command = CommandId::from_byte(bytes[0]).unwrap();
        assert_eq!(decode(&bytes, Version::V1_6), Err(DecodeError::EmptyField { command, field }));
    }
}

#[test]
fn unlisted_codes_survive_both_ways() {
    for bytes in
        ["11 08 00  01 00 00 00  63", "07 08 00  01 00 00 00  63", "02 0c 00  01 06 63  00 00 00 00  00 00"]
    {
        let bytes = hex(bytes);
        assert_eq!(encode(&decode(&bytes, Version::V1_6).unwrap()), bytes);
    }
}
