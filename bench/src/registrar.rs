//! Registrations of new devices with new accounts: a connection each, as a client makes them. Blocking, since the relay's
//! public-key work and its flush cost far more than a thread here.

use crate::clock;
use crate::failure::Failure;
use crate::population::User;
use crate::relay_process::RelayProcess;
use crate::sstp_wire::{connect, encode};
use crate::tally::{Latency, Tally};
use bytes::Bytes;
use client::SystemEntropy;
use relay_core::security::{self, ClientCredentials, Layer, RegisterStatus};
use relay_core::sstp::command::AccountRequest;
use relay_core::sstp::frame::FrameReader;
use relay_core::sstp::text::Text;
use relay_core::sstp::{Command, SessionId, Version};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Numbers of users who are not in the database yet begin here.
const FIRST_USER: u32 = 1_000_000_000;
/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was registered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registered {
    /// How many a second.
    pub(crate) per_second: f64,
    /// How long one took, the making of its token included.
    pub(crate) latency: Latency,
}

/// Registers from `threads` threads for `time`.
///
/// # Errors
/// [`Failure`], if one is refused for another reason than that the relay is busy.
pub(crate) fn register_many(
    relay: &RelayProcess,
    keys: &ClientCredentials,
    threads: u32,
    time: Duration,
) -> Result<Registered, Failure> {
    let next = AtomicU32::new(FIRST_USER);
    let start = clock::now();
    let end = start + clock::nanoseconds(time);
    let work = || {
        let mut tally = Tally::default();
        while clock::now() < end {
            let began = clock::now();
            let user = User::new(next.fetch_add(1, Ordering::Relaxed));
            if register(relay, keys, &user)? == RegisterStatus::Ok {
                tally.acknowledged += 1;
                tally.acknowledgement(clock::now() - began);
            }
        }
        Ok::<_, Failure>(tally)
    };
    let mut all = Tally::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            all.add(&thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<_, Failure>(())
    })?;
    let seconds = (clock::now() - start) as f64 / 1e9;
    Ok(Registered { per_second: all.acknowledged as f64 / seconds, latency: all.acknowledgement_latency() })
}

fn register(relay: &RelayProcess, keys: &ClientCredentials, user: &User) -> Result<RegisterStatus, Failure> {
    let mut stream = TcpStream::connect(relay.address()).map_err(Failure::system("connecting"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(Failure::system("time-out"))?;
    let mut reader = FrameReader::default();
    let hello = security::hello_without_key(Layer::Device, keys.profile());
    say(&mut stream, &connect(&user.device, hello))?;
    hear(&mut stream, &mut reader)?;
    let token = security::register_device_account(
        &user.device,
        keys,
        &user.account,
        keys,
        &relay.identity().public_keys,
        &[],
        &mut SystemEntropy::default(),
    )
    .map_err(|error| Failure::Wrong(error.to_string()))?;
    let request = AccountRequest {
        event: SessionId(1),
        resource_url: Text::EMPTY,
        account_url: (&user.account).into(),
        authentication_token: token,
    };
    say(&mut stream, &Command::Register(request))?;
    match hear(&mut stream, &mut reader)? {
        Command::RegisterResponse { token, .. } => match security::read_register_response(&token) {
            Ok(status @ (RegisterStatus::Ok | RegisterStatus::Busy)) => Ok(status),
            other => Err(Failure::Wrong(format!("a registration was answered with {other:?}"))),
        },
        other => Err(Failure::Wrong(format!("a registration was answered with {other:?}"))),
    }
}

fn say(stream: &mut TcpStream, command: &Command) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    encode(command, &mut bytes);
    stream.write_all(&bytes).map_err(Failure::system("registering"))
}

fn hear(stream: &mut TcpStream, reader: &mut FrameReader) -> Result<Command, Failure> {
    loop {
        let frame = reader.next_frame().map_err(|error| Failure::Wrong(error.to_string()))?;
        if let Some(frame) = frame {
            return Command::decode(frame, Version::V1_6).map_err(|error| Failure::Wrong(error.to_string()));
        }
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).map_err(Failure::system("registering"))?;
        if count == 0 {
            return Err(Failure::Wrong("the relay closed the connection of a registration".into()));
        }
        reader.push(Bytes::copy_from_slice(&buffer[..count]));
    }
}
