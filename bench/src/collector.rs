//! Receivers that collect mail and keep a ledger of it: what came, what came again, what came damaged. They survive the loss of
//! their connection.

use crate::link::{Epoll, Link, Ready};
use crate::load::LoadError;
use crate::payload::{Pattern, Reading};
use crate::sstp_wire::{Role, SstpWire};
use crate::wire::{Wire, Witness};
use std::net::SocketAddr;
use std::time::Duration;

/// What one receiver has got of its sender's messages.
#[derive(Debug)]
pub(crate) struct Ledger {
    reading: Reading,
    seen: Vec<bool>,
    /// Different messages that came whole.
    pub(crate) received: u64,
    /// Messages that came again.
    pub(crate) duplicates: u64,
    /// Messages that are not what was sent.
    pub(crate) damaged: u64,
    /// First arrivals with a number below that of an earlier arrival.
    pub(crate) out_of_order: u64,
    highest: u64,
}

impl Ledger {
    /// For the messages of `sender`.
    pub(crate) fn new(pattern: Pattern, sender: u32) -> Self {
        Self {
            reading: Reading::new(pattern, sender),
            seen: Vec::new(),
            received: 0,
            duplicates: 0,
            damaged: 0,
            out_of_order: 0,
            highest: 0,
        }
    }

    /// Messages below `end` that have not come.
    pub(crate) fn missing_below(&self, end: u64) -> u64 {
        let end = end as usize;
        let known = self.seen.len().min(end);
        (end - known) as u64 + self.seen[..known].iter().filter(|seen| !**seen).count() as u64
    }
}

impl Witness for Ledger {
    fn acknowledged(&mut self, _count: u64) {}

    fn begin(&mut self) {
        self.reading.begin();
    }

    fn piece(&mut self, bytes: &[u8]) {
        self.reading.piece(bytes);
    }

    fn end(&mut self) {
        /// No run sends more; a larger number is a damaged one.
        const MOST: u64 = 1 << 30;
        let number = match self.reading.end() {
            Ok((number, _)) if number < MOST => number,
            _ => {
                self.damaged += 1;
                return;
            }
        };
        let place = number as usize;
        if place >= self.seen.len() {
            self.seen.resize(place + 1, false);
        }
        if std::mem::replace(&mut self.seen[place], true) {
            self.duplicates += 1;
            return;
        }
        self.received += 1;
        self.out_of_order += u64::from(number < self.highest);
        self.highest = self.highest.max(number);
    }
}

#[derive(Debug)]
struct Receiver {
    role: Role,
    connection: Option<(Link, SstpWire)>,
    ledger: Ledger,
}

/// Receivers of one thread.
#[derive(Debug)]
pub(crate) struct Collector {
    receivers: Vec<Receiver>,
    epoll: Epoll,
    ready: Vec<Ready>,
    scratch: Vec<u8>,
}

impl Collector {
    /// Receivers with their ledgers, not yet connected.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new(receivers: Vec<(Role, Ledger)>) -> Result<Self, LoadError> {
        let receivers =
            receivers.into_iter().map(|(role, ledger)| Receiver { role, connection: None, ledger }).collect();
        Ok(Self { receivers, epoll: Epoll::new()?, ready: Vec::new(), scratch: Vec::new() })
    }

    /// Connects those who are not.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn connect(&mut self, address: SocketAddr) -> Result<(), LoadError> {
        for (token, receiver) in self.receivers.iter_mut().enumerate() {
            if receiver.connection.is_none() {
                let mut link = Link::connect(address)?;
                let mut wire = SstpWire::new(receiver.role.clone());
                self.epoll.add(&link, token)?;
                wire.greet(&mut link.out);
                link.flush(&self.epoll, token)?;
                receiver.connection = Some((link, wire));
            }
        }
        Ok(())
    }

    /// Waits for at most `patience` and takes in what has come. A lost connection stays away until
    /// [`Collector::connect`].
    ///
    /// # Errors
    /// What a relay said that it should not.
    pub(crate) fn turn(&mut self, patience: Duration) -> Result<(), LoadError> {
        self.epoll.wait(patience, &mut self.ready)?;
        for event in &self.ready {
            let Receiver { connection, ledger, .. } = &mut self.receivers[event.token];
            let Some((link, wire)) = connection else { continue };
            let received = link.receive(&mut self.scratch, |input, out| {
                wire.take(input, out, ledger).map_err(|error| LoadError::Wire { end: event.token, error })
            });
            let alive = match received {
                Ok(open) => open,
                Err(LoadError::Socket { .. }) => false,
                Err(error) => return Err(error),
            };
            let sent = if event.writable {
                link.unblock(&self.epoll, event.token)
            } else {
                link.flush(&self.epoll, event.token)
            };
            if !alive || sent.is_err() {
                *connection = None;
            }
        }
        Ok(())
    }

    /// The ledgers, in the order of the receivers.
    pub(crate) fn ledgers(&self) -> impl Iterator<Item = &Ledger> {
        self.receivers.iter().map(|receiver| &receiver.ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_tells_missing_repeated_and_damaged_messages() {
        let pattern = Pattern::new(50);
        let mut ledger = Ledger::new(pattern.clone(), 2);
        let mut hear = |number, spoil: bool| {
            let mut payload = vec![0; 50];
            pattern.write(2, number, 0, &mut payload);
            payload[20] ^= u8::from(spoil);
            ledger.begin();
            ledger.piece(&payload);
            ledger.end();
        };
        for number in [0, 1, 3, 3, 2] {
            hear(number, false);
        }
        hear(4, true);
        assert_eq!((ledger.received, ledger.duplicates, ledger.damaged), (4, 1, 1));
        assert_eq!(ledger.out_of_order, 1);
        assert_eq!([4, 5, 7].map(|end| ledger.missing_below(end)), [0, 1, 3]);
    }
}
