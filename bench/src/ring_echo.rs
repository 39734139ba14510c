//! The echo on io_uring: glommio's streams and nothing above them, on one executor.

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::sleep;
use glommio::{LocalExecutor, spawn_local};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// What one read takes at most.
const BUFFER_BYTES: usize = 64 * 1024;
/// How often the thread looks whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Tells its address, and sends back what it receives until it is over.
///
/// # Errors
/// What the system says, for example that there is no io_uring.
pub(crate) fn serve(told: &mpsc::Sender<SocketAddr>, over: &AtomicBool) -> io::Result<()> {
    LocalExecutor::default().run(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        // Whoever waits for the address is there.
        let _ = told.send(listener.local_addr()?);
        let accepting = spawn_local(async move {
            while let Ok(stream) = listener.accept().await {
                spawn_local(echo(stream)).detach();
            }
        });
        while !over.load(Ordering::SeqCst) {
            sleep(LOOK_EVERY).await;
        }
        accepting.cancel().await;
        Ok(())
    })
}

/// Until the other side is gone.
async fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    if stream.set_nodelay(true).is_err() {
        return;
    }
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
