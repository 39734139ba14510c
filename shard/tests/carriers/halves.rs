//! GET and POST halves of KeepAlive connections, on sockets of their own.

use relay_core::http::Guid;
use relay_core::relay::ShardId;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Which shard accepts is the kernel's choice; with so many GUIDs of both shards every combination comes up.
pub(crate) fn halves_meet(http: &str) {
    let guids: Vec<_> = (0..24).map(|number| format!("guid{number}")).collect();
    for guid in &guids {
        let target = format!("/2.0/relay/{guid},ConnType=KeepAlive HTTP/1.0\r\nConnection: Keep-Alive\r\n");
        let dial = || {
            let stream = TcpStream::connect(http).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        };
        let (mut get, mut post) = (dial(), dial());
        write!(get, "GET {target}\r\n").unwrap();
        write!(post, "POST {target}Content-Length: 22\r\n\r\nGroovePing: 1.0,Ping\r\n").unwrap();
        let mut answer = [0; 512];
        let length = get.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.0 200 OK\r\n"), "{guid}");
    }
    let owners: Vec<_> = guids.iter().map(|guid| Guid::parse(guid.as_bytes()).unwrap().owner(2)).collect();
    assert!(owners.contains(&ShardId(0)) && owners.contains(&ShardId(1)));
}
