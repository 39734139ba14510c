//! A local TCP connection carried to a relay on a way of one's choice: for programs that speak SSTP themselves, such as
//! load generators.

use crate::carrier::ladder::Ladder;
use crate::carrier::{Carrier, Memory, Pipe, Proxies};
use crate::clock::Clock;
use crate::relay_identity::RelayIdentity;
use bytes::{Buf, BytesMut};
use relay_core::sstp::output::OutputQueue;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes that may wait in either direction.
const WAITING_BYTES: usize = 256 << 10;

/// Carries `local` to the relay until either end closes.
///
/// # Errors
/// The way cannot be opened, or either connection breaks.
pub async fn carry(
    mut local: TcpStream,
    relay: RelayIdentity,
    carrier: Carrier,
    proxies: Proxies,
) -> io::Result<()> {
    let mut ladder = Ladder::new(relay, proxies, Some(carrier), Memory(None), Clock::start());
    let (mut pipe, _) = ladder.dial().await?;
    local.set_nodelay(true)?;
    let (mut from_local, mut to_local) = local.split();
    let (mut up, mut down) = (OutputQueue::default(), BytesMut::new());
    let mut buffer = vec![0; WAITING_BYTES];
    loop {
        let (may_read, may_take) = (up.len() < WAITING_BYTES, down.len() < WAITING_BYTES);
        tokio::select! {
            read = from_local.read(&mut buffer), if may_read => match read? {
                0 => return finish(pipe, up).await,
                length => up.encode(|out| out.extend_from_slice(&buffer[..length])),
            },
            written = to_local.write(&down), if !down.is_empty() => down.advance(written?),
            ready = pipe.ready(may_take, !up.is_empty()) => {
                ready?;
                if may_take && let Some(bytes) = pipe.read()? {
                    down.extend_from_slice(&bytes);
                }
            }
        }
        pipe.write(&mut up)?;
    }
}

async fn finish(pipe: Pipe, mut up: OutputQueue) -> io::Result<()> {
    pipe.hang_up(up.take()).await;
    Ok(())
}
