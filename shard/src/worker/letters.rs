//! Letters from other threads, and those to other shards; sockets that go with them.

use super::carrier::Fate;
use super::line::Line;
use super::{HAND_OVER_AGAIN, Worker};
use crate::descriptors::{Ear, Parcel};
use crate::events;
use crate::letter::{Letter, Passed};
use crate::mesh::Sender;
use crate::transport::Socket;
use bytes::Bytes;
use glommio::spawn_local;
use glommio::timer::sleep;
use relay_core::relay::{ConnectionId, MeshItem, ShardId};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

/// Items taken from one queue before the next one has its turn.
const ITEMS_A_TURN: usize = 512;
/// Items in one letter.
const ITEMS_A_LETTER: usize = 256;
/// Emptied letters that are kept to be written again, one written each for each read.
const SPARE_LETTERS: usize = 16;
/// Connections that may wait for room at their home.
const MOST_WAITING: usize = 1024;

impl Worker {
    pub(super) async fn read_letters(self: Rc<Self>, mut ear: Option<Ear>) {
        let mut slept = false;
        let this = self.options.shard;
        let shards = (0..self.options.relay.shards).map(ShardId).filter(|from| *from != this);
        let senders: Vec<_> = shards.map(Sender::Shard).chain([Sender::Side]).collect();
        let mut letters = Vec::new();
        loop {
            poll_fn(|context| {
                ear.iter_mut().for_each(|ear| ear.listen(context));
                self.options.mesh.poll_letters(this, context, &mut slept)
            })
            .await;
            for &sender in &senders {
                self.options.mesh.take(sender, this, ITEMS_A_TURN, |letter| letters.push(letter));
                self.letters(sender, &mut letters);
            }
            self.after_input();
            futures_lite::future::yield_now().await;
        }
    }

    pub(super) fn letters(self: &Rc<Self>, sender: Sender, letters: &mut Vec<Letter>) {
        let mut now = self.now();
        for letter in letters.drain(..) {
            match (letter, sender) {
                (Letter::Mesh(mut items), Sender::Shard(from)) => {
                    let mut relay = self.relay.borrow_mut();
                    items.drain(..).for_each(|item| relay.mesh_received(now, from, item));
                    self.keep(items);
                }
                (letter, _) => {
                    self.letter(letter);
                    now = self.now();
                }
            }
        }
        self.relay.borrow_mut().mesh_drained();
    }

    pub(super) fn letter(self: &Rc<Self>, letter: Letter) {
        match letter {
            Letter::Mesh(_) => debug_assert!(false, "the side thread sends no mesh items"),
            Letter::HandOff { socket, tls, http, bytes } => {
                match self.handover.unpack(&self.options.mesh, socket) {
                    Ok(socket) if http => self.welcome_http(Socket::adopt(socket, tls), Some(bytes)),
                    Ok(socket) => self.add_connection(Socket::adopt(socket, tls), Some(bytes)),
                    Err(error) => {
                        tracing::warn!(event = events::HAND_OVER_LOST, shard = self.options.shard.0, %error, "a connection was lost on its way here")
                    }
                }
            }
            Letter::Accepted { socket, listener } => {
                let listener = self.inherited.borrow().get(listener).cloned();
                if let (Some(listener), Ok(socket)) =
                    (listener, self.handover.unpack(&self.options.mesh, socket))
                {
                    self.greet(Socket::adopt(socket, None), &listener);
                }
            }
            Letter::Reconfigure(config) => self.relay.borrow_mut().reconfigure(config),
            Letter::Registered { connection, event, outcome } => {
                self.relay.borrow_mut().registered(self.now(), connection, event, outcome);
                self.after_input();
            }
            Letter::Command(command) => self.obey(command),
            Letter::Resolved { relay, addresses } => {
                spawn_local(self.clone().dial(relay, addresses)).detach();
            }
            Letter::Order { home, order, receipt } => {
                self.relay.borrow_mut().order(self.now(), home, order, receipt);
                self.after_input();
            }
            Letter::Defaults(defaults, done) => {
                let lifetime = defaults.lifetime_seconds.map(|seconds| Duration::from_secs(seconds.into()));
                self.relay.borrow_mut().set_defaults(defaults.quota_bytes, lifetime);
                drop(done);
            }
            Letter::Rest(done) => {
                let this = self.clone();
                let rest = async move {
                    this.rest(this.now()).await;
                    drop(done);
                };
                spawn_local(rest).detach();
            }
            Letter::Resume(done) => {
                self.relay.borrow_mut().resume(self.now());
                self.after_input();
                drop(done);
            }
            Letter::Stop => {
                self.stopping.set(true);
                self.stopped.raise();
            }
        }
    }

    pub(super) fn post_letters(&self) {
        let mut relay = self.relay.borrow_mut();
        let from = Sender::Shard(self.options.shard);
        for to in (0..self.options.relay.shards).map(ShardId).filter(|to| *to != self.options.shard) {
            let outbox = relay.outbox(to);
            let before = outbox.len();
            while !outbox.is_empty() {
                let room = self.options.mesh.room(from, to).min(ITEMS_A_LETTER);
                if room == 0 {
                    break;
                }
                let mut items = self.spare.borrow_mut().pop().unwrap_or_default();
                match outbox.len() <= room {
                    true => std::mem::swap(&mut items, outbox),
                    false => items.extend(outbox.drain(..room)),
                }
                if let Err(Letter::Mesh(items)) = self.options.mesh.push(from, to, Letter::Mesh(items)) {
                    debug_assert!(false, "nobody else sends from here");
                    items.into_iter().rev().for_each(|item| outbox.push_front(item));
                    break;
                }
            }
            if outbox.len() < before {
                self.options.mesh.ring(to);
            }
        }
        relay.outbox_drained();
    }

    /// Keeps an emptied letter, unless it once held very many items, or enough are kept.
    fn keep(&self, items: VecDeque<MeshItem>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_LETTERS && items.capacity() <= 2 * ITEMS_A_LETTER {
            spare.push(items);
        }
    }

    pub(super) fn hand_off(self: &Rc<Self>, connection: ConnectionId, to: ShardId, bytes: Bytes) {
        let Some(carrier) = self.carrier(connection) else { return };
        self.forget(&carrier, Fate::Drop);
        self.give_to(to, &carrier.socket, false, bytes);
    }

    /// Gives a socket to another shard, with what was received on it.
    pub(super) fn give_to(self: &Rc<Self>, to: ShardId, line: &Line, http: bool, bytes: Bytes) {
        let given = line.give_away().map(|socket| {
            let parcel = Parcel { to, socket: Passed::Open(socket), tls: line.take_tls(), http, bytes };
            self.handover.post(&self.options.mesh, parcel)
        });
        match given {
            Ok(Ok(())) => {}
            Ok(Err(parcel)) if self.waiting.get() < MOST_WAITING => {
                spawn_local(self.clone().hand_off_later(parcel)).detach();
            }
            Ok(Err(_)) => tracing::warn!(
                event = events::HAND_OVER_DROPPED,
                shard = self.options.shard.0,
                to = to.0,
                "a connection was dropped: the queue to its home is full"
            ),
            Err(error) => {
                tracing::warn!(event = events::HAND_OVER_FAILED, shard = self.options.shard.0, %error, "a connection could not be handed over")
            }
        }
    }

    pub(super) async fn hand_off_later(self: Rc<Self>, mut parcel: Parcel) {
        self.waiting.set(self.waiting.get() + 1);
        while !self.stopping.get() {
            sleep(HAND_OVER_AGAIN).await;
            match self.handover.post(&self.options.mesh, parcel) {
                Ok(()) => break,
                Err(back) => parcel = back,
            }
        }
        self.waiting.set(self.waiting.get() - 1);
    }
}
