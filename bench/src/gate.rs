//! Between the generator and the relay, where a carrier other than the straight one is to be measured: connections to a port of this
//! process are carried by the client library.

use crate::failure::Failure;
use crate::loopback::free_address;
use crate::relay_process::{RelayOptions, RelayProcess};
use client::{Carrier, Fallback, Proxies, RelayIdentity, carry};
use std::net::{Ipv4Addr, SocketAddr};

/// See the module's head.
pub(crate) struct Gate {
    carrier: Carrier,
    /// Where the relay is to listen for HTTP.
    http: SocketAddr,
    options: RelayOptions,
}

impl Gate {
    /// Decides where the relay listens for what the carrier needs.
    ///
    /// # Errors
    /// No port is free.
    pub(crate) fn plan(carrier: Carrier, options: &RelayOptions) -> Result<Self, Failure> {
        let http = free_address().map_err(Failure::system("free port"))?;
        let mut options = options.clone();
        if matches!(carrier, Carrier::LongLived | Carrier::KeepAlive | Carrier::Polling) {
            options.settings.push(format!("listen.http=[\"{http}\"]"));
        }
        Ok(Self { carrier, http, options })
    }

    /// With what the relay is to be started.
    pub(crate) fn relay_options(&self) -> &RelayOptions {
        &self.options
    }

    /// The address that the generator connects to.
    ///
    /// # Errors
    /// [`Failure::System`].
    pub(crate) fn open(self, relay: &RelayProcess) -> Result<SocketAddr, Failure> {
        if self.carrier == Carrier::Direct {
            return Ok(relay.address());
        }
        let address = relay.address().to_string();
        let fallback = Fallback { tunnel: vec![address.clone()], http: vec![self.http.to_string()] };
        let identity = RelayIdentity { addresses: vec![address], fallback, ..relay.identity().clone() };
        let failed = || Failure::system("the gate to the relay");
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed())?;
        listener.set_nonblocking(true).map_err(failed())?;
        let gate = listener.local_addr().map_err(failed())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed())?;
        let carrier = self.carrier;
        std::thread::spawn(move || runtime.block_on(serve(listener, identity, carrier)));
        Ok(gate)
    }
}

/// Carries every connection, until the process ends.
async fn serve(listener: std::net::TcpListener, relay: RelayIdentity, carrier: Carrier) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return eprintln!("relay-bench: the gate to the relay: {error}"),
    };
    let proxies = Proxies::from_environment();
    while let Ok((stream, _)) = listener.accept().await {
        let (relay, proxies) = (relay.clone(), proxies.clone());
        tokio::spawn(async move {
            if let Err(error) = carry(stream, relay, carrier, proxies).await {
                eprintln!("relay-bench: {carrier}: {error}");
            }
        });
    }
}
