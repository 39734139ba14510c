//! KeepAlive, the relay's end.

use crate::desk::{Desk, ECHO, GUID, get, post};
use relay_core::http::server::SocketId;

fn established(desk: &mut Desk) -> (SocketId, SocketId) {
    let (down, up) = (desk.socket(), desk.socket());
    desk.say(down, get("KeepAlive", GUID));
    desk.say(up, post("KeepAlive", GUID, 22, ECHO.as_bytes()));
    assert_eq!(desk.answer(up), Some((200, Vec::new())));
    assert_eq!(desk.answer(down), Some((200, ECHO.into())));
    (down, up)
}

fn data(body: &[u8]) -> Vec<u8> {
    post("KeepAlive", GUID, body.len(), body)
}

#[test]
fn section_9_1_printed_handshake_in_either_order() {
    let printed_get = "GET /2.0/server.domain.net/kicxp8rrgwqdwhf7c6xsgbagmcdnxm9phtvbj5a,ConnType=KeepAlive HTTP/1.0\r\n\
        Accept: */*\r\nContent-Type: application/octet-stream\r\nUser-Agent: Mozilla/4.0 (compatible; MSIE 5.5; Win32)\r\n\
        Host: 10.150.1.226\r\nPragma: no-cache\r\nCache-Control: no-cache\r\nExpires: 0\r\nConnection: Keep-Alive\r\n\
        Cache-Control: max-age=0\r\n\r\n";
    let printed_post = "POST /2.0/server.domain.net/kicxp8rrgwqdwhf7c6xsgbagmcdnxm9phtvbj5a,ConnType=KeepAlive HTTP/1.0\r\n\
        Accept: */*\r\nContent-Type: application/octet-stream\r\nUser-Agent: Mozilla/4.0 (compatible; MSIE 5.5; Win32)\r\n\
        UserAgent: server.domain.net\r\nConnection: Keep-Alive\r\nContent-Length: 22\r\nPragma: no-cache\r\n\
        Cache-Control: no-cache\r\nExpires: 0\r\nCache-Control: max-age=0\r\n\r\nGroovePing: 1.0,Ping\r\n";
    for order in [[0, 1], [1, 0]] {
        let mut desk = Desk::new();
        let sockets = [desk.socket(), desk.socket()];
        for half in order {
            assert_eq!(desk.answer(sockets[0]), None);
            assert_eq!(desk.answer(sockets[1]), None);
            desk.say(sockets[half], [printed_get, printed_post][half]);
        }
        let answer = String::from_utf8(desk.heard(sockets[1])).unwrap();
        assert!(
            answer.starts_with("HTTP/1.0 200 OK\r\nDate: Wed, 26 Dec 2007 19:50:26 GMT\r\nServer: Furrow/")
        );
        assert!(answer.ends_with("Connection: Keep-Alive\r\nContent-Length: 0\r\n\r\n"), "{answer}");
        assert_eq!(desk.answer(sockets[0]), Some((200, ECHO.into())));
    }
}

#[test]
fn section_6_3_a_get_is_held_until_there_is_data() {
    let mut desk = Desk::new();
    let (down, _) = established(&mut desk);
    desk.say(down, get("KeepAlive", GUID));
    assert_eq!(desk.answer(down), None);
    assert!(desk.send(b"news"));
    assert_eq!(desk.answer(down), Some((200, b"news".to_vec())));
    assert!(desk.send(b"more"), "without a GET it waits in order");
    assert_eq!(desk.answer(down), None);
    desk.say(down, get("KeepAlive", GUID));
    assert_eq!(desk.answer(down), Some((200, b"more".to_vec())));
}

#[test]
fn section_3_2_6_3_a_get_is_held_45_seconds_at_most() {
    let mut desk = Desk::new();
    let (down, _) = established(&mut desk);
    desk.say(down, get("KeepAlive", GUID));
    desk.wait(44);
    assert_eq!(desk.answer(down), None);
    desk.wait(1);
    assert_eq!(desk.answer(down), Some((200, Vec::new())));
    assert!(!desk.has_ended());
}

#[test]
fn section_3_4_4_3_a_body_has_at_most_32768_octets() {
    let mut desk = Desk::new();
    let (down, up) = established(&mut desk);
    let stream: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();
    assert!(desk.send(&stream));
    let mut got = Vec::new();
    while got.len() < stream.len() {
        desk.say(down, get("KeepAlive", GUID));
        let (_, body) = desk.answer(down).unwrap();
        assert!(body.len() <= 32_768);
        got.extend_from_slice(&body);
    }
    assert_eq!(got, stream);
    desk.say(up, post("KeepAlive", GUID, 32_769, b""));
    assert_eq!(desk.answer(up).unwrap().0, 413);
}

#[test]
fn section_7_4_a_post_is_answered_once_the_owner_has_room_and_no_second_one_comes_before() {
    let mut desk = Desk::new();
    let (_, up) = established(&mut desk);
    for _ in 0..2 {
        desk.say(up, data(&[1; 30_000]));
        assert_eq!(desk.answer(up), Some((200, Vec::new())));
    }
    desk.say(up, data(&[1; 30_000]));
    assert_eq!(desk.answer(up), None);
    assert_eq!(desk.received().unwrap().len(), 90_000);
    assert_eq!(desk.answer(up), Some((200, Vec::new())));

    for _ in 0..3 {
        desk.say(up, data(&[1; 30_000]));
    }
    assert_eq!(desk.ask(data(b"impatient")).unwrap().0, 400);
    assert_eq!(desk.received().unwrap().len(), 90_000);
    assert!(desk.has_ended());
}

#[test]
fn section_3_3_4_2_a_post_may_come_on_a_new_connection() {
    let mut desk = Desk::new();
    let (down, up) = established(&mut desk);
    desk.lose(up);
    assert_eq!(desk.ask(data(b"a")), Some((200, Vec::new())));
    assert_eq!(desk.ask(data(b"b")), Some((200, Vec::new())));
    assert_eq!(desk.received().unwrap(), b"ab");
    assert!(!desk.server.is_finished(down));
}

#[test]
fn gap_g9_a_get_may_come_on_a_new_connection_and_the_newest_wins() {
    let mut desk = Desk::new();
    let (first, _) = established(&mut desk);
    desk.say(first, get("KeepAlive", GUID));
    let second = desk.socket();
    desk.say(second, get("KeepAlive", GUID));
    assert!(desk.server.is_finished(first));
    desk.lose(first);
    assert!(desk.send(b"x"));
    assert_eq!(desk.answer(second), Some((200, b"x".to_vec())));
    desk.lose(second);
    assert!(!desk.has_ended(), "the last GET was answered; another may come");
    desk.wait(60);
    assert!(desk.has_ended(), "none came");
}

#[test]
fn section_7_8_an_answer_that_is_lost_on_its_way_ends_it() {
    let mut desk = Desk::new();
    let (down, _) = established(&mut desk);
    desk.say(down, get("KeepAlive", GUID));
    assert!(desk.send(b"half of this was sent"));
    desk.lose(down);
    assert!(desk.has_ended(), "or the stream would have a hole");
}

#[test]
fn an_http_1_0_proxy_that_asks_for_a_close_gets_one_after_each_answer() {
    let mut desk = Desk::new();
    let close = |request: Vec<u8>| {
        String::from_utf8(request)
            .unwrap()
            .replace("Connection: Keep-Alive", "Connection: close")
            .into_bytes()
    };
    let (down, up) = (desk.socket(), desk.socket());
    desk.say(down, close(get("KeepAlive", GUID).into()));
    desk.say(up, close(post("KeepAlive", GUID, 22, ECHO.as_bytes())));
    for socket in [down, up] {
        assert_eq!(desk.answer(socket).unwrap().0, 200);
        assert!(desk.server.is_finished(socket));
        desk.lose(socket);
    }
    assert_eq!(desk.ask(close(data(b"a"))).unwrap().0, 200);
    assert_eq!(desk.received().unwrap(), b"a");
}

#[test]
fn what_is_left_of_an_ended_connection_begins_nothing() {
    let mut desk = Desk::new();
    assert_eq!(desk.ask(data(b"late")).unwrap().0, 400);
    assert_eq!(desk.opened(), 0);
}

#[test]
fn section_7_4_a_handshake_with_another_body_is_refused() {
    let mut desk = Desk::new();
    let down = desk.socket();
    desk.say(down, get("KeepAlive", GUID));
    assert_eq!(desk.ask(data(b"GroovePing: 1.0,Pong\r\n")).unwrap().0, 400);
    assert!(desk.has_ended());
}
