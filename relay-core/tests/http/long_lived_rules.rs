//! LongLived, the relay's end.

use crate::desk::{Desk, ECHO, GUID, get, post};
use relay_core::http::server::SocketId;

const LENGTH: usize = 2_147_479_552;

fn get_with_length(length: usize) -> String {
    get(&format!("LongLived,ContentLength={length}"), GUID)
}

fn established(desk: &mut Desk) -> (SocketId, SocketId) {
    let (down, up) = (desk.socket(), desk.socket());
    desk.say(down, get_with_length(LENGTH));
    desk.say(up, post("LongLived", GUID, LENGTH, ECHO.as_bytes()));
    assert!(desk.heard(down).ends_with(ECHO.as_bytes()));
    (down, up)
}

#[test]
fn section_9_3_handshake_in_either_order_and_however_it_is_cut() {
    let requests = [get_with_length(LENGTH).into_bytes(), post("LongLived", GUID, LENGTH, ECHO.as_bytes())];
    for order in [[0, 1], [1, 0]] {
        for cut in 1..requests[1].len() {
            let mut desk = Desk::new();
            let sockets = [desk.socket(), desk.socket()];
            for half in order {
                let (first, second) = requests[half].split_at(cut.min(requests[half].len()));
                desk.say(sockets[half], first);
                desk.say(sockets[half], second);
            }
            let answer = String::from_utf8(desk.heard(sockets[0])).unwrap();
            assert!(
                answer.starts_with("HTTP/1.0 200 OK\r\nDate: Wed, 26 Dec 2007 19:50:26 GMT\r\n"),
                "{answer}"
            );
            assert!(answer.contains("\r\nContent-Length: 2147479552\r\n"));
            assert!(answer.ends_with(&format!("\r\n\r\n{ECHO}")));
            assert_eq!(desk.heard(sockets[1]), b"", "nothing answers a POST that does not end");
            assert_eq!(desk.opened(), 1);
        }
    }
}

#[test]
fn section_3_2_4_2_the_get_carries_nothing_before_data_came_on_the_post() {
    let mut desk = Desk::new();
    let (down, up) = established(&mut desk);
    assert!(desk.send(b"early"));
    assert_eq!(desk.heard(down), b"");
    desk.say(up, "connect");
    assert_eq!(desk.received().unwrap(), b"connect");
    assert!(desk.send(b", late"));
    assert_eq!(desk.heard(down), b"early, late");
}

#[test]
fn section_3_2_5_2_2_data_before_established_break_it_off_with_400_on_the_get() {
    let mut desk = Desk::new();
    let up = desk.socket();
    desk.say(up, post("LongLived", GUID, LENGTH, format!("{ECHO}x").as_bytes()));
    assert!(desk.has_ended());
    assert!(desk.server.is_finished(up));
}

#[test]
fn section_4_1_4_another_first_fragment_than_the_echo_string_is_refused() {
    let mut desk = Desk::new();
    let (down, up) = (desk.socket(), desk.socket());
    desk.say(down, get_with_length(LENGTH));
    desk.say(up, post("LongLived", GUID, LENGTH, b"GroovePing: 1.0,Pong\r\n"));
    assert_eq!(desk.answer(down).unwrap().0, 400);
    assert!(desk.has_ended());
}

#[test]
fn section_7_3_a_second_half_of_either_kind_is_400_and_harms_nobody() {
    let mut desk = Desk::new();
    let (down, up) = established(&mut desk);
    assert_eq!(desk.ask(get_with_length(LENGTH)).unwrap().0, 400);
    assert_eq!(desk.ask(post("LongLived", GUID, LENGTH, b"")).unwrap().0, 400);
    desk.say(up, "data");
    assert_eq!(desk.received().unwrap(), b"data");
    assert!(desk.send(b"back"));
    assert_eq!(desk.heard(down), b"back");
}

#[test]
fn section_3_1_neither_direction_carries_more_than_the_content_length() {
    let mut desk = Desk::new();
    let (down, up) = (desk.socket(), desk.socket());
    desk.say(down, get_with_length(ECHO.len() + 4));
    desk.say(up, post("LongLived", GUID, LENGTH, ECHO.as_bytes()));
    desk.heard(down);
    desk.say(up, "1234");
    assert_eq!(desk.received().unwrap(), b"1234");
    assert!(desk.send(b"5678"));
    assert_eq!(desk.heard(down), b"5678");
    desk.say(up, "x");
    assert!(desk.has_ended());
}

#[test]
fn section_7_8_losing_either_session_ends_it_and_closes_the_other() {
    for lost in 0..2 {
        let mut desk = Desk::new();
        let (down, up) = established(&mut desk);
        desk.say(up, "last words");
        desk.lose([down, up][lost]);
        assert_eq!(desk.received().unwrap(), b"last words");
        assert!(desk.has_ended());
        assert!(desk.server.is_finished([up, down][lost]));
    }
}

#[test]
fn section_6_1_network_receive_io_ends_it_after_60_silent_seconds() {
    let mut desk = Desk::new();
    let (_, up) = established(&mut desk);
    for _ in 0..3 {
        desk.wait(45);
        desk.say(up, "noop");
        assert_eq!(desk.received().unwrap(), b"noop");
    }
    desk.wait(59);
    assert!(!desk.has_ended());
    desk.wait(1);
    assert!(desk.has_ended());
}

#[test]
fn who_is_not_read_is_not_silent_and_is_read_again_once_there_is_room() {
    let mut desk = Desk::new();
    let (_, up) = established(&mut desk);
    assert!(desk.server.wants_read(up));
    desk.say(up, vec![7; 64 * 1024]);
    assert!(!desk.server.wants_read(up));
    desk.wait(61);
    desk.wait(61);
    assert_eq!(desk.received().unwrap().len(), 64 * 1024);
    assert!(desk.server.wants_read(up));
    assert!(desk.resumed.contains(&up));
}

#[test]
fn what_the_system_does_not_take_stays_with_the_owner() {
    let mut desk = Desk::new();
    let (down, up) = established(&mut desk);
    desk.say(up, "ready");
    let mut taken = 0;
    while desk.send(&[1; 10_000]) {
        taken += 10_000;
        assert!(taken < 1 << 20, "unbounded");
    }
    assert!(!desk.server.has_room(desk.first()));
    let first = desk.heard(down).len();
    assert!(desk.server.has_room(desk.first()));
    assert!(first + desk.heard(down).len() >= taken);
}

#[test]
fn finishing_sends_what_is_there_and_closes_both() {
    let mut desk = Desk::new();
    let (down, up) = established(&mut desk);
    desk.say(up, "hello");
    assert!(desk.send(b"goodbye"));
    desk.server.finish(desk.now, desk.first());
    assert!(!desk.server.is_finished(down), "not before it is sent");
    assert_eq!(desk.heard(down), b"goodbye");
    assert!(desk.server.is_finished(down) && desk.server.is_finished(up));
}
