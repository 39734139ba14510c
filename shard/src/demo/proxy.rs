//! The smallest proxy that opens tunnels, by CONNECT and by SOCKS 5, for the demonstration alone: it listens on loopback, trusts
//! everybody, and believes what it reads.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// Starts it; it ends with the runtime.
pub(super) async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // Who does not keep to the protocol is not served, and that is all.
                let _ = serve(stream).await;
            });
        }
    });
    Ok(address)
}

async fn serve(mut client: TcpStream) -> io::Result<()> {
    let mut first = [0; 1];
    client.peek(&mut first).await?;
    let (target, answer) =
        if first == [5] { socks(&mut client).await? } else { connect(&mut client).await? };
    let mut relay = TcpStream::connect(target).await?;
    // Both ends send whole commands; to gather them here would only keep them waiting for acknowledgements of TCP.
    client.set_nodelay(true)?;
    relay.set_nodelay(true)?;
    client.write_all(answer).await?;
    copy_bidirectional(&mut client, &mut relay).await.map(drop)
}

/// The target of a CONNECT, and the answer that opens the tunnel.
async fn connect(client: &mut TcpStream) -> io::Result<(String, &'static [u8])> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 4096 {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let target = target.ok_or(io::ErrorKind::InvalidData)?;
    Ok((target.to_owned(), b"HTTP/1.0 200 OK\r\n\r\n"))
}

/// The target of a SOCKS request for a name (RFC 1928), and the answer that opens the tunnel.
async fn socks(client: &mut TcpStream) -> io::Result<(String, &'static [u8])> {
    let mut greeting = [0; 2];
    client.read_exact(&mut greeting).await?;
    let mut methods = vec![0; usize::from(greeting[1])];
    client.read_exact(&mut methods).await?;
    client.write_all(&[5, 0]).await?;
    let mut request = [0; 5];
    client.read_exact(&mut request).await?;
    let mut name = vec![0; usize::from(request[4])];
    client.read_exact(&mut name).await?;
    let port = client.read_u16().await?;
    let answer = &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    Ok((format!("{}:{port}", String::from_utf8_lossy(&name)), answer))
}
