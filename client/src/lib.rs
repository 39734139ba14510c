//! A client of SSTP relays for applications: send to identities and devices, receive, and stay connected.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use client::{Client, ClientProfile, Config, Message, Register, RelayIdentity};
//!
//! let relay = RelayIdentity::load("relay.toml".as_ref())?;
//! let profile = ClientProfile::generate(relay);
//! let me = profile.identities[0].clone();
//! let client = Client::connect(Config::new(profile))?;
//! client.register(Register::new().identity(me.clone())).await?;
//!
//! client.send(Message::to(me).body("hello")).await?.await?;
//!
//! let mut incoming = client.incoming();
//! if let Some(mut received) = incoming.recv().await {
//!     println!("{:?}", received.bytes(1 << 20).await?);
//!     received.acknowledge();
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # The contract: at least once
//!
//! *Sending.* [`Client::send`] takes a message when there is room for it and gives a [`Delivery`]. Until that resolves the
//! message is kept in this process and sent again after every loss of the connection. It resolves with a [`Receipt`] once the relay has the
//! message safely (on its disk, or acknowledged by the recipient), or with an error that says why it was given up. An error
//! does not prove that nobody got the message. Messages of equal resource and recipients arrive in the order of their
//! `send`; duplicates are possible after a loss. A process that ends takes unresolved messages with it: [`Client::flush`]
//! waits for them.
//!
//! *Receiving.* The relay keeps a message until [`Received::acknowledge`] has been called and the relay has heard of it;
//! [`Client::close`] makes sure of the latter. A [`Received`] that is dropped without acknowledgement comes again, after a few seconds
//! and over a new connection. Since SSTP acknowledges in order of arrival, what was acknowledged behind it may come again with
//! it. So: store or handle first, acknowledge then, and expect now and then what was seen before.
//!
//! *Presence.* [`Client::publish`] states the status of this device for as long as there is a connection; it goes offline with it.
//! [`Client::watch`] gives the statuses of other devices as a stream; one [`StatusWatch`] can ask at several relays. While a relay
//! cannot be reached its devices are unknown, and then come back by themselves.
//!
//! *Ways.* Where a firewall closes the straight way, a client goes through proxies or inside HTTP: [`Carrier`] has the order in which
//! it tries, [`Config`] the proxies, and the one that worked is remembered where [`Config::memory`] says.
//!
//! *Memory.* Queued bodies, incoming bytes that nobody has read, and output are bounded by [`Config::limits`]. A body from
//! [`Body::file`] or a [`BodySource`] of one's own is read in pieces while it is sent; an incoming body can be read in pieces while it arrives.
#![forbid(unsafe_code)]

mod body;
mod bridge;
mod carrier;
mod clock;
mod driver;
mod entropy;
mod handle;
mod incoming;
mod naming;
mod outgoing;
mod presence;
mod profile;
mod relay_identity;
mod tls;

pub use body::{Body, BodySource, Read};
pub use bridge::carry;
pub use carrier::{Carrier, Proxies, Proxy, ProxyUrlError, UnknownCarrier};
pub use clock::Clock;
pub use entropy::SystemEntropy;
pub use handle::{Client, Config, NotReady, Register, State};
pub use incoming::{BodyError, Incoming, IncomingBody, Received};
pub use naming::{Key, new_account_url, new_device_url, new_identity_url};
pub use outgoing::{Delivery, Message, Receipt, SendError};
pub use presence::{StatusChange, StatusWatch};
pub use profile::{ClientProfile, ProfileError};
pub use relay_identity::{Fallback, RelayIdentity, RelayIdentityError};
pub use tls::{RelayTls, RelayTlsError};

pub use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl, InvalidUrl, ResourceUrl};
pub use relay_core::client::{
    Disconnected, Limits, QueueError, Recipient, RegistrationError, RegistrationStep, SendFailure,
    UrlsTooLong,
};
pub use relay_core::directory::Profile as SecurityProfile;
pub use relay_core::http::proxy::Credentials as ProxyCredentials;
pub use relay_core::presence::{Status, UnknownStatus};
pub use relay_core::security::RegisterStatus;
pub use relay_core::sstp::{CloseReason, ConnectResponseId, OpenResponseId, StatusId};
