//! What carries a connection between its line and the relay: one task that reads, one that writes while the kernel takes no more.

use super::Worker;
use super::line::Line;
use crate::transport::ReadBuffers;
use glommio::spawn_local;
use glommio::timer::sleep;
use relay_core::relay::ConnectionId;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// How long a closed connection is read to its end, so that our last words are not lost to a reset.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// What carries one connection.
pub(super) struct Carrier {
    pub(super) id: ConnectionId,
    pub(super) socket: Line,
    /// Its reader waits here: for bytes, for leave to read, or for the end.
    pub(super) reader: Cell<Option<Waker>>,
    /// Set once the relay knows the connection no more.
    pub(super) fate: Cell<Fate>,
    /// A writer waits for the kernel to take bytes.
    pub(super) blocked: Cell<bool>,
    /// Where it waits.
    pub(super) writer: Cell<Option<Waker>>,
    /// The relay has said that the connection has ended.
    pub(super) ended: Cell<bool>,
}

/// What a connection's reader is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Read.
    Live,
    /// The connection has ended: read to its end and close.
    Linger,
    /// The socket is another's, or broken: touch it no more.
    Drop,
}

impl Carrier {
    pub(super) fn wake_reader(&self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_writer(&self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

impl Worker {
    pub(super) fn carrier(&self, id: ConnectionId) -> Option<Rc<Carrier>> {
        let sockets = self.sockets.borrow();
        sockets.get(id.index())?.as_ref().filter(|carrier| carrier.id == id).cloned()
    }

    /// Takes a connection out of the table; its reader then sees it off.
    pub(super) fn forget(&self, carrier: &Carrier, fate: Fate) {
        carrier.fate.set(fate);
        carrier.wake_reader();
        carrier.wake_writer();
        let mut sockets = self.sockets.borrow_mut();
        if let Some(entry) = sockets.get_mut(carrier.id.index())
            && entry.as_ref().is_some_and(|found| found.id == carrier.id)
        {
            *entry = None;
        }
    }

    pub(super) async fn read_connection(self: Rc<Self>, carrier: Rc<Carrier>) {
        loop {
            let received = poll_fn(|context| {
                if carrier.fate.get() != Fate::Live {
                    return Poll::Ready(None);
                }
                carrier.reader.set(Some(context.waker().clone()));
                if !self.relay.borrow_mut().wants_read(carrier.id) {
                    return Poll::Pending;
                }
                carrier.socket.poll_receive(context, &self.buffers).map(Some)
            })
            .await;
            match received {
                None if carrier.fate.get() == Fate::Linger => {
                    // A task of its own, or every reader would be as large as it.
                    spawn_local(async move { self.linger(&carrier.socket).await }).detach();
                    return;
                }
                None => return,
                Some(Ok(Some(bytes))) => {
                    if carrier.socket.wants_write() {
                        self.send(&carrier);
                    }
                    if !bytes.is_empty() {
                        self.relay.borrow_mut().received(self.now(), carrier.id, bytes);
                        // Before anybody else's turn: a connection that is handed over has left the relay already, and
                        // the next one that is accepted may get its index, and with it its place in the table of sockets.
                        self.perform_actions();
                        self.after_input();
                    }
                }
                Some(_) => {
                    self.relay.borrow_mut().disconnected(self.now(), carrier.id);
                    self.forget(&carrier, Fate::Drop);
                    self.after_input();
                    return;
                }
            }
            // Everybody who is ready reads once before anybody reads again, and then all output goes out.
            futures_lite::future::yield_now().await;
        }
    }

    /// Sends a connection's output as far as the kernel takes it; a writer waits for the rest.
    pub(super) fn send(self: &Rc<Self>, carrier: &Rc<Carrier>) {
        if carrier.blocked.get() {
            return;
        }
        let sent = {
            let mut relay = self.relay.borrow_mut();
            let now = self.now();
            loop {
                let Some(output) = relay.prepare_output(now, carrier.id) else { return };
                if output.is_empty() && !carrier.socket.wants_write() {
                    break Ok(true);
                }
                match self.meter.sending(output, |output| carrier.socket.send(output)) {
                    Ok(true) => relay.sent(now, carrier.id),
                    other => break other,
                }
            }
        };
        match sent {
            Ok(true) => self.finish_if_ended(carrier),
            Ok(false) => {
                carrier.blocked.set(true);
                if carrier.ended.get() {
                    self.give_up_later(carrier.clone());
                }
                spawn_local(self.clone().write_when_possible(carrier.clone())).detach();
            }
            Err(_) => {
                self.relay.borrow_mut().disconnected(self.now(), carrier.id);
                self.forget(carrier, Fate::Drop);
                self.after_input();
            }
        }
    }

    pub(super) async fn write_when_possible(self: Rc<Self>, carrier: Rc<Carrier>) {
        let written = poll_fn(|context| {
            if carrier.fate.get() != Fate::Live {
                return Poll::Ready(Ok(()));
            }
            carrier.writer.set(Some(context.waker().clone()));
            let mut relay = self.relay.borrow_mut();
            match relay.prepare_output(self.now(), carrier.id) {
                Some(output) => {
                    self.meter.sending(output, |output| carrier.socket.poll_writable(context, output))
                }
                None => Poll::Ready(Ok(())),
            }
        })
        .await;
        carrier.blocked.set(false);
        if carrier.fate.get() != Fate::Live {
            return;
        }
        if written.is_ok() {
            self.relay.borrow_mut().sent(self.now(), carrier.id);
        }
        // A broken connection shows itself again in `send`.
        self.send(&carrier);
        self.after_input();
    }

    pub(super) fn finish_if_ended(&self, carrier: &Carrier) {
        let mut relay = self.relay.borrow_mut();
        if relay.is_finished(carrier.id) {
            relay.disconnected(self.now(), carrier.id);
            drop(relay);
            carrier.socket.finish_sending();
            self.forget(carrier, Fate::Linger);
            self.after_input();
        }
    }

    /// A connection that has ended may have last words that its peer does not read. It gets a while, no more.
    pub(super) fn give_up_later(self: &Rc<Self>, carrier: Rc<Carrier>) {
        let this = self.clone();
        spawn_local(async move {
            sleep(LINGER).await;
            if carrier.fate.get() == Fate::Live {
                this.relay.borrow_mut().disconnected(this.now(), carrier.id);
                this.forget(&carrier, Fate::Drop);
                this.after_input();
            }
        })
        .detach();
    }

    /// Reads what the peer still sends, for a while, so that closing does not reset the connection under our last words.
    /// Only so many at a time: those above are closed at once.
    pub(super) async fn linger(&self, socket: &Line) {
        if self.lingering.get() >= self.options.relay.max_unauthenticated {
            return;
        }
        self.lingering.set(self.lingering.get() + 1);
        linger(socket, &self.buffers).await;
        self.lingering.set(self.lingering.get() - 1);
    }
}

/// Reads to the end, or until the time is over.
async fn linger(socket: &Line, buffers: &RefCell<ReadBuffers>) {
    let mut deadline = pin!(sleep(LINGER));
    poll_fn(|context| {
        if deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        loop {
            match socket.poll_receive(context, buffers) {
                Poll::Ready(Ok(Some(_))) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}
