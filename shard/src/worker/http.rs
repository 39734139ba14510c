//! The tasks of port 80: sockets whose bytes the shard's [`HttpServer`] understands, and the virtual connections that come of
//! them, which the worker then serves like any other.
//!
//! [`HttpServer`]: relay_core::http::server::HttpServer

use super::carrier::{Fate, LINGER};
use super::line::{HttpSocket, Line, VirtualLine};
use super::{LONGEST_SLEEP, Worker};
use crate::transport::Socket;
use bytes::Bytes;
use glommio::spawn_local;
use glommio::timer::sleep;
use relay_core::http::server::{Action, SocketId, VirtualId};
use relay_core::relay::ShardId;
use std::cell::Cell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

impl Worker {
    /// Takes an HTTP connection in, with what another shard received on it, unless there are too many.
    pub(super) fn welcome_http(self: &Rc<Self>, socket: Socket, handed_over: Option<Bytes>) {
        let address = socket.peer().map(|peer| peer.ip());
        let Some(id) = self.door.http.borrow_mut().accepted(self.now(), address, handed_over) else { return };
        let socket = Rc::new(HttpSocket {
            id,
            line: Line::Socket(socket),
            reader: Cell::new(None),
            writer: Cell::new(None),
            blocked: Cell::new(false),
            given_time: Cell::new(false),
            fate: Cell::new(Fate::Live),
        });
        self.door.sockets.borrow_mut().insert(id, socket.clone());
        spawn_local(self.clone().read_http(socket)).detach();
        self.after_http();
    }

    async fn read_http(self: Rc<Self>, socket: Rc<HttpSocket>) {
        loop {
            let received = poll_fn(|context| {
                if socket.fate.get() != Fate::Live {
                    return Poll::Ready(None);
                }
                socket.reader.set(Some(context.waker().clone()));
                if !self.door.http.borrow().wants_read(socket.id) {
                    return Poll::Pending;
                }
                socket.line.poll_receive(context, &self.buffers).map(Some)
            })
            .await;
            match received {
                None if socket.fate.get() == Fate::Linger => return self.linger(&socket.line).await,
                None => return,
                Some(Ok(Some(bytes))) => {
                    self.door.http.borrow_mut().received(self.now(), socket.id, bytes);
                    self.after_http();
                }
                Some(_) => return self.lose_http(&socket, Fate::Drop),
            }
            futures_lite::future::yield_now().await;
        }
    }

    /// The socket is no more, or read to its end only.
    fn lose_http(self: &Rc<Self>, socket: &HttpSocket, fate: Fate) {
        self.forget_http(socket, fate);
        self.door.http.borrow_mut().lost(self.now(), socket.id);
        self.after_http();
    }

    fn forget_http(&self, socket: &HttpSocket, fate: Fate) {
        socket.fate.set(fate);
        self.door.sockets.borrow_mut().remove(&socket.id);
        for waker in [socket.reader.take(), socket.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    /// To be called after every input to the machine: sees to everything that it has to say.
    fn after_http(self: &Rc<Self>) {
        let mut touched = Vec::new();
        loop {
            while let Some(action) = self.next_http_action() {
                self.perform_http(action);
            }
            self.door.http.borrow_mut().take_touched(&mut touched);
            if touched.is_empty() {
                return;
            }
            for id in touched.drain(..) {
                if let Some(socket) = self.door.socket(id) {
                    self.send_http(&socket);
                }
            }
        }
    }

    fn next_http_action(&self) -> Option<Action> {
        self.door.http.borrow_mut().next_action()
    }

    fn perform_http(self: &Rc<Self>, action: Action) {
        match action {
            Action::HandOver { socket, shard, bytes } => self.hand_over_http(socket, shard, bytes),
            Action::Opened { connection, address } => self.open_virtual(connection, address),
            Action::Readable(connection) => self.door.wake_reader(connection),
            Action::Writable(connection) => self.door.wake_writer(connection),
            Action::Resume(socket) => {
                if let Some(waker) = self.door.socket(socket).and_then(|socket| socket.reader.take()) {
                    waker.wake();
                }
            }
        }
    }

    /// A virtual connection counts as a connection of its address from its first request on.
    fn open_virtual(self: &Rc<Self>, connection: VirtualId, address: Option<IpAddr>) {
        let line = VirtualLine::new(self.door.clone(), connection);
        let now = self.now();
        let turned_away =
            address.is_some_and(|address| self.relay.borrow_mut().turns_away(now, address, false));
        if !turned_away {
            let id = self.relay.borrow_mut().connected_virtually(now, address);
            self.add_carrier(Line::Virtual(line), id);
        }
    }

    fn hand_over_http(self: &Rc<Self>, id: SocketId, shard: ShardId, bytes: Bytes) {
        let Some(socket) = self.door.socket(id) else { return };
        self.forget_http(&socket, Fate::Drop);
        self.give_to(shard, &socket.line, true, bytes);
    }

    /// Sends what the socket has as far as the kernel takes it, and closes it if it is to be closed.
    fn send_http(self: &Rc<Self>, socket: &Rc<HttpSocket>) {
        if socket.blocked.get() {
            return self.give_time(socket);
        }
        let now = self.now();
        let sent = loop {
            let mut http = self.door.http.borrow_mut();
            let Some(output) = http.output(socket.id) else { return };
            if output.is_empty() {
                break Ok(true);
            }
            match socket.line.send(output) {
                Ok(true) => http.sent(now, socket.id),
                other => break other,
            }
        };
        match sent {
            Ok(true) if self.door.http.borrow().is_finished(socket.id) => {
                socket.line.finish_sending();
                self.forget_http(socket, Fate::Linger);
                self.door.http.borrow_mut().lost(now, socket.id);
            }
            Ok(true) => {}
            Ok(false) => {
                socket.blocked.set(true);
                self.give_time(socket);
                spawn_local(self.clone().write_http(socket.clone())).detach();
            }
            Err(_) => {
                self.forget_http(socket, Fate::Drop);
                self.door.http.borrow_mut().lost(now, socket.id);
            }
        }
    }

    async fn write_http(self: Rc<Self>, socket: Rc<HttpSocket>) {
        let written = poll_fn(|context| {
            if socket.fate.get() != Fate::Live {
                return Poll::Ready(Ok(()));
            }
            socket.writer.set(Some(context.waker().clone()));
            match self.door.http.borrow_mut().output(socket.id) {
                Some(output) => socket.line.poll_writable(context, output),
                None => Poll::Ready(Ok(())),
            }
        })
        .await;
        socket.blocked.set(false);
        if socket.fate.get() != Fate::Live {
            return;
        }
        if written.is_ok() {
            self.door.http.borrow_mut().sent(self.now(), socket.id);
        }
        // A broken connection shows itself again in `send_http`.
        self.send_http(&socket);
        self.after_http();
    }

    /// A peer that does not read the last words has a while for them, no more.
    fn give_time(self: &Rc<Self>, socket: &Rc<HttpSocket>) {
        if !self.door.http.borrow().is_ending(socket.id) || socket.given_time.replace(true) {
            return;
        }
        let (this, socket) = (self.clone(), socket.clone());
        spawn_local(async move {
            sleep(LINGER).await;
            if socket.fate.get() == Fate::Live {
                this.lose_http(&socket, Fate::Drop);
            }
        })
        .detach();
    }

    /// Sockets hear of what the owners of virtual connections have done.
    pub(super) async fn follow_owners(self: Rc<Self>) {
        loop {
            self.door.changed.wait().await;
            self.after_http();
            futures_lite::future::yield_now().await;
        }
    }

    pub(super) async fn keep_http_time(self: Rc<Self>) {
        loop {
            let due = self.door.http.borrow().poll_timeout();
            let wait = due.map_or(LONGEST_SLEEP, |due| due.since(self.now()));
            sleep(wait.clamp(Duration::from_millis(1), LONGEST_SLEEP)).await;
            self.door.http.borrow_mut().handle_timeout(self.now());
            self.after_http();
        }
    }

    /// Lets go of all sockets, so that their tasks end.
    pub(super) fn close_http(&self) {
        let sockets: Vec<_> = self.door.sockets.borrow().values().cloned().collect();
        for socket in sockets {
            self.forget_http(&socket, Fate::Drop);
        }
    }
}
