//! How connections come to a shard: its listeners, those that one shard accepts for all, and calls to other relays.

use super::carrier::{Carrier, Fate};
use super::line::Line;
use super::{HAND_OVER_AGAIN, Worker};
use crate::activation::{Inherited, Spoken};
use crate::dialer;
use crate::events;
use crate::letter::Letter;
use crate::mesh::Sender;
use crate::transport::{Listener, Protocol, Socket};
use bytes::Bytes;
use glommio::spawn_local;
use glommio::timer::sleep;
use relay_core::relay::{ConnectionId, RemoteRelay, ShardId};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// How long to wait after an accept that failed, for example for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Connections that a shard accepts before it rests from accepting for [`ACCEPT_REST`]. An accept that succeeds at once waits
/// for nothing, so without this a flood of connections, though each is turned away, would stop everything else on the shard.
/// This way it takes a quarter of a processor, and up to about 6000 connections a second come in.
const ACCEPTS_A_TURN: u32 = 8;
const ACCEPT_REST: Duration = Duration::from_millis(1);

impl Worker {
    /// Binds the addresses to listen on.
    ///
    /// # Errors
    /// What the system says of an address.
    pub fn listen(&self) -> Result<Vec<Listener>, (SocketAddr, std::io::Error)> {
        let plain = self.options.listen.iter().map(|&address| (address, Protocol::Sstp));
        let tls = self.options.listen_tls.iter().flat_map(|(addresses, certificate)| {
            addresses.iter().map(move |&address| (address, Protocol::Tls(certificate.clone())))
        });
        let http = self.options.listen_http.iter().map(|&address| (address, Protocol::Http));
        let bind = |(address, protocol): (SocketAddr, Protocol)| {
            let peer_timeout = self.options.relay.connection.idle_deadline;
            Listener::bind(address, self.options.backlog, peer_timeout, protocol)
                .map_err(|error| (address, error))
        };
        plain
            .chain(tls)
            .chain(http)
            .map(bind)
            .chain(self.options.inherited.iter().map(|from| self.inherit(from)))
            .collect()
    }

    pub(super) fn speaks_http(&self) -> bool {
        let inherits = || self.options.inherited.iter().any(|socket| socket.spoken == Spoken::Http);
        !self.options.listen_http.is_empty() || inherits()
    }

    pub(super) fn inherit(&self, from: &Inherited) -> Result<Listener, (SocketAddr, std::io::Error)> {
        let protocol = match from.spoken {
            Spoken::Sstp => Protocol::Sstp,
            Spoken::Http => Protocol::Http,
            Spoken::Tls => {
                let (_, certificate) = self.options.listen_tls.as_ref().expect("the server has checked it");
                Protocol::Tls(certificate.clone())
            }
        };
        let peer_timeout = self.options.relay.connection.idle_deadline;
        Listener::inherit(from, peer_timeout, protocol).map_err(|error| (from.address, error))
    }

    pub(super) async fn accept(self: Rc<Self>, listener: Rc<Listener>) {
        let mut taken: u32 = 0;
        loop {
            match listener.accept().await {
                Ok(socket) => self.greet(socket, &listener),
                Err(error) => {
                    tracing::warn!(event = events::ACCEPT_FAILED, shard = self.options.shard.0, %error, "a connection could not be accepted");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
            taken = taken.wrapping_add(1);
            match taken.is_multiple_of(ACCEPTS_A_TURN) {
                true => sleep(ACCEPT_REST).await,
                false => futures_lite::future::yield_now().await,
            }
        }
    }

    /// Accepts from an inherited socket and deals the connections out to all shards, as SO_REUSEPORT would.
    pub(super) async fn accept_for_all(self: Rc<Self>, index: usize, listener: Rc<Listener>) {
        let shards = self.options.relay.shards;
        let mut taken: u32 = 0;
        loop {
            match listener.accept().await {
                Ok(socket) => {
                    let to = ShardId((taken % u32::from(shards)) as u16);
                    if !self.deal(&socket, to, index).await {
                        self.greet(socket, &listener);
                    }
                }
                Err(error) => {
                    tracing::warn!(event = events::ACCEPT_FAILED, shard = self.options.shard.0, %error, "a connection could not be accepted");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
            taken = taken.wrapping_add(1);
            match taken.is_multiple_of(ACCEPTS_A_TURN * u32::from(shards)) {
                true => sleep(ACCEPT_REST).await,
                false => futures_lite::future::yield_now().await,
            }
        }
    }

    /// Gives a new connection to another shard. `false` if it is for this one: because it is its turn, or the other cannot
    /// take it.
    pub(super) async fn deal(&self, socket: &Socket, to: ShardId, listener: usize) -> bool {
        let (this, mesh) = (self.options.shard, &self.options.mesh);
        if to == this {
            return false;
        }
        let Ok(socket) = socket.give_away() else { return false };
        let Some(socket) = self.handover.send_ahead(mesh, to, socket) else { return false };
        let mut letter = Letter::Accepted { socket, listener };
        while let Err(back) = mesh.push(Sender::Shard(this), to, letter) {
            letter = back;
            sleep(HAND_OVER_AGAIN).await;
        }
        mesh.ring(to);
        true
    }

    /// Takes a connection in, unless it is gone already or one too many of its address.
    pub(super) fn greet(self: &Rc<Self>, socket: Socket, listener: &Listener) {
        let Some(peer) = socket.peer() else { return };
        let turned_away = self.relay.borrow_mut().turns_away(self.now(), peer.ip(), listener.is_tls());
        if turned_away {
            return socket.reset();
        }
        if listener.is_http() {
            return self.welcome_http(socket, None);
        }
        match listener.wrap(socket) {
            Ok(socket) => self.add_connection(socket, None),
            Err(error) => {
                tracing::error!(event = events::TLS_FAILED, shard = self.options.shard.0, %error, "TLS cannot begin")
            }
        }
    }

    pub(super) fn add_connection(self: &Rc<Self>, socket: Socket, handed_over: Option<Bytes>) {
        let address = socket.peer().map(|peer| peer.ip());
        let id = self.relay.borrow_mut().connected(self.now(), address, handed_over);
        self.add_carrier(Line::Socket(socket), id);
    }

    pub(super) fn add_carrier(self: &Rc<Self>, socket: Line, id: ConnectionId) {
        let carrier = Rc::new(Carrier {
            id,
            socket,
            reader: Cell::new(None),
            fate: Cell::new(Fate::Live),
            blocked: Cell::new(false),
            writer: Cell::new(None),
            ended: Cell::new(false),
        });
        let mut sockets = self.sockets.borrow_mut();
        if sockets.len() <= id.index() {
            sockets.resize(id.index() + 1, None);
        }
        sockets[id.index()] = Some(carrier.clone());
        drop(sockets);
        self.after_input();
        spawn_local(self.clone().read_connection(carrier)).detach();
    }

    /// Another relay has been looked up: calls it.
    pub(super) async fn dial(self: Rc<Self>, relay: RemoteRelay, addresses: Vec<SocketAddr>) {
        match dialer::connect(&addresses, self.options.dial_patience).await {
            Ok(socket) => {
                let address = socket.peer().map(|peer| peer.ip());
                let dialed = self.relay.borrow_mut().dialed(self.now(), relay, address);
                if let Some(id) = dialed {
                    self.add_carrier(Line::Socket(socket), id);
                }
            }
            Err(failure) => self.relay.borrow_mut().dial_failed(self.now(), relay, failure),
        }
        self.after_input();
    }
}
