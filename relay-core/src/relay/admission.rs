//! Admission: who gets in, and what they may collect. Connect, ConnectAuthenticate, Attach, AttachAuthenticate and
//! Register, in the order of checks of sstp-behaviour 7.0 and sstp-security 7.1.

use super::home;
use super::mesh::{ConnectionId, MeshItem, Target};
use super::peer::Attachment;
use super::presence::aliases;
use super::{Action, Relay, SecurityFailure};
use crate::address::{AccountUrl, DeviceUrl};
use crate::directory::{DeviceRecord, Unreadable};
use crate::security::{self, HelloVerdict, MessageId, SecurityError};
use crate::sstp::command::{AccountRequest, Connect};
use crate::sstp::text::Text;
use crate::sstp::{CloseReason, ConnectResponseId, SessionId};
use crate::time::Timestamp;
use bytes::Bytes;
use std::net::IpAddr;

/// A Register for the driver to judge with [`security::answer_register`]. Registrations read records, change them and write
/// them back: of this half, [`security::OpenedRegister::judge`], one at a time for the whole relay.
#[derive(Debug)]
pub struct Registration {
    /// The connection.
    pub connection: ConnectionId,
    /// EventId of the Register.
    pub event: SessionId,
    /// First SourceDeviceURL of the connection.
    pub device: DeviceUrl,
    /// AccountURL of the Register.
    pub account: AccountUrl,
    /// Its security message.
    pub token: Bytes,
}

/// What became of a [`Registration`].
#[derive(Debug)]
pub enum Registered {
    /// Judged, and durable if it changed something; `failure` says why it was refused.
    Answered {
        /// The token of RegisterResponse.
        response: Bytes,
        /// Why it was refused, if it was.
        failure: Option<RegisterFailure>,
    },
    /// The relay has no capacity to judge it.
    Busy {
        /// The token of RegisterResponse.
        response: Bytes,
    },
    /// Not a registration message: the exchange is closed with ProtocolError.
    Malformed(RegisterFailure),
    /// It was right, but could not be made durable: the exchange is closed with InternalError.
    Failed,
}

/// Why a registration was refused, with what the security log says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterFailure {
    /// AccountURL of the Register.
    pub account: AccountUrl,
    /// Which registration it was.
    pub message: MessageId,
    /// What was wrong.
    pub reason: SecurityError,
}

impl Registration {
    /// That this registration was refused.
    pub fn failure(&self, reason: SecurityError) -> RegisterFailure {
        let message = security::claimed_registration(&self.token);
        RegisterFailure { account: self.account.clone(), message, reason }
    }
}

impl Registered {
    /// The outcome of a registration if there is no capacity to judge it.
    pub fn busy(registration: &Registration) -> Self {
        match security::busy_response(&registration.token) {
            Ok(response) => Self::Busy { response },
            Err(reason) => Self::Malformed(registration.failure(reason)),
        }
    }
}

impl Relay {
    /// Whether the driver is to drop a transport that it has just accepted from `address`, without a word and without
    /// [`Relay::connected`], since the address has too many half-open connections. Costs no memory.
    /// The same goes for a transport with TLS if the address has begun too many TLS handshakes of late.
    pub fn turns_away(&mut self, now: Timestamp, address: IpAddr, tls: bool) -> bool {
        let source = self.strangers.source(address, &mut *self.entropy);
        let handshakes = self.config.tls_handshakes_per_address_per_minute;
        let turns_away = self.strangers.half_open(source) >= self.config.max_unauthenticated_per_address
            || (tls && !self.strangers.may_begin_tls(now, source, handshakes));
        self.stats.turned_away += u64::from(turns_away);
        turns_away
    }

    /// Connections at present whose device has not proven itself.
    pub fn unauthenticated(&self) -> usize {
        self.strangers.len()
    }

    /// Drops the oldest half-open connections above the bound.
    pub(super) fn make_room(&mut self) {
        while let Some(oldest) = self.strangers.oldest_above(self.config.max_unauthenticated.max(1)) {
            self.stats.pushed_out += 1;
            self.connection(oldest).transport_lost();
            self.poll_connection(oldest);
            self.settle();
        }
    }

    /// Connect, from row 4 on (the machine has checked rows 0 to 3).
    pub(super) fn connect_received(&mut self, id: ConnectionId, connect: Connect) {
        let Ok(device) = DeviceUrl::new(connect.source_device_urls[0].as_bytes()) else {
            return self.connection(id).close(CloseReason::ProtocolError, 0);
        };
        let Ok(record) = self.device_record(&device) else { return self.try_later(id) };
        let home = record.as_ref().and_then(|record| record.accounts.first());
        if let Some(shard) = home.map(|account| home::home(account, self.config.shards))
            && shard != self.shard
            && !self.peer(id).handed_here
        {
            return self.hand_off(id, shard, connect);
        }
        match self.is_rejected(&connect, record.as_ref()) {
            Ok(false) => {}
            Ok(true) => {
                return self.connection(id).refuse(ConnectResponseId::ConnectRejected, 0, Bytes::new());
            }
            Err(Unreadable) => return self.try_later(id),
        }
        let peer = self.peer_mut(id);
        (peer.device, peer.aliases) = (Some(device.clone()), aliases(&connect));
        if self.has_too_many_connections(&device) || self.crosses_our_call(&device) {
            let connection = self.connection(id);
            connection.accept(Default::default(), Bytes::new(), false);
            return connection.close(CloseReason::CrossedConnections, 0);
        }
        if self.draining || self.is_full() || self.puts_off(id) {
            return self.try_later(id);
        }
        let now = self.now;
        if connect.authentication_token.is_empty() {
            return self.connection(id).accept(now, Bytes::new(), false);
        }
        let token = &connect.authentication_token;
        match security::answer_connect(token, &device, record.as_ref(), &mut *self.entropy) {
            HelloVerdict::RegistrationNeeded { token } => self.connection(id).accept(now, token, false),
            HelloVerdict::Failed { token, reason } => {
                self.report(id, MessageId::SecConnect, None, reason);
                self.connection(id).refuse(ConnectResponseId::AuthenticationFailed, 0, token);
            }
            HelloVerdict::Challenged { token, challenge } => {
                let peer = self.peer_mut(id);
                peer.challenge = Some(Box::new(challenge));
                peer.connection.accept(now, token, true);
            }
        }
    }

    fn try_later(&mut self, id: ConnectionId) {
        let retry_time = self.config.retry_time.as_secs() as u32;
        self.connection(id).refuse(ConnectResponseId::TryLater, retry_time, Bytes::new());
    }

    /// TryLater for a connection that is open already.
    pub(super) fn send_back_later(&mut self, id: ConnectionId) {
        let return_time = self.config.retry_time.as_secs() as u32;
        self.connection(id).close(CloseReason::Resting, return_time);
    }

    /// Whether there is no room for another connection, by the shard's own bound or by the operator's word.
    fn is_full(&mut self) -> bool {
        self.stats.refused_newcomers += u64::from(!self.newcomers);
        !self.newcomers || self.peers.len() > self.config.max_connections
    }

    /// Only connections that have proven to be the device's count, or strangers could shut it out by naming it.
    fn has_too_many_connections(&self, device: &DeviceUrl) -> bool {
        let connections = self.devices.get(device).map_or(0, |&connections| connections as usize);
        connections >= self.config.max_connections_per_device
    }

    /// Whether a Connect has to wait: its address has failed too often, or has too many half-open connections (those that
    /// other shards hand over are not turned away at the door).
    fn puts_off(&mut self, id: ConnectionId) -> bool {
        let half_open = self.peer(id).source.map_or(0, |source| self.strangers.half_open(source));
        let puts_off =
            half_open > self.config.max_unauthenticated_per_address || self.has_failed_too_often(id);
        self.stats.put_off += u64::from(puts_off);
        puts_off
    }

    /// Whether the connection's address may prove nothing for now.
    fn has_failed_too_often(&self, id: ConnectionId) -> bool {
        let failures = self.config.failures_per_address_per_minute;
        self.peer(id).source.is_some_and(|source| !self.strangers.may_try(self.now, source, failures))
    }

    /// The connection is half-open no more.
    pub(super) fn no_stranger(&mut self, id: ConnectionId) {
        let peer = self.peer_mut(id);
        if let Some(turn) = peer.turn.take() {
            self.strangers.leave(turn);
        }
    }

    /// Whether one of the devices is locked out, or all accounts of the first are.
    fn is_rejected(&self, connect: &Connect, record: Option<&DeviceRecord>) -> Result<bool, Unreadable> {
        for device in &connect.source_device_urls {
            if self.is_locked_out(device)? {
                return Ok(true);
            }
        }
        record.map_or(Ok(false), |record| self.has_only_locked_out_accounts(record))
    }

    fn is_locked_out(&self, device: &Text) -> Result<bool, Unreadable> {
        let Ok(device) = DeviceUrl::new(device.as_bytes()) else { return Ok(false) };
        Ok(self.directory.device(&device)?.is_some_and(|record| record.locked_out))
    }

    /// A device all of whose users are locked out is so itself (management-soap-spmr 7.9).
    pub(super) fn has_only_locked_out_accounts(&self, record: &DeviceRecord) -> Result<bool, Unreadable> {
        for account in &record.accounts {
            if !self.is_account_locked_out(account)? {
                return Ok(false);
            }
        }
        Ok(!record.accounts.is_empty())
    }

    /// The accounts of a device whose mail may be collected.
    fn open_accounts(&self, device: &DeviceUrl) -> Result<Vec<AccountUrl>, Unreadable> {
        let mut accounts = self.directory.device(device)?.unwrap_or_default().accounts;
        let mut open = Vec::with_capacity(accounts.len());
        for account in accounts.drain(..) {
            if !self.is_account_locked_out(&account)? {
                open.push(account);
            }
        }
        Ok(open)
    }

    fn hand_off(&mut self, id: ConnectionId, shard: home::ShardId, connect: Connect) {
        self.no_stranger(id);
        self.uncount_output(id);
        let peer = self.peers.remove(id.index());
        let bytes = peer.connection.hand_off(connect);
        self.stats.handed_off += 1;
        self.actions.push_back(Action::HandOff { connection: id, shard, bytes });
    }

    /// ConnectAuthenticate: from here on the device's mail is collected.
    pub(super) fn connect_authenticate_received(&mut self, id: ConnectionId, token: &[u8]) {
        let peer = self.peer_mut(id);
        let challenge = peer.challenge.take().expect("the machine lets it through only after a challenge");
        if let Err(reason) = challenge.verify(token) {
            self.report(id, MessageId::SecConnectAuthenticate, None, reason);
            return self.connection(id).close(CloseReason::DeviceAuthenticationFailed, 0);
        }
        self.no_stranger(id);
        let device = self.peer(id).device.clone().expect("set by Connect");
        if self.has_too_many_connections(&device) {
            return self.connection(id).close(CloseReason::CrossedConnections, 0);
        }
        *self.devices.entry(device.clone()).or_insert(0) += 1;
        let peer = self.peer_mut(id);
        peer.connection.authenticated();
        peer.authenticated = true;
        self.stats.authenticated += 1;
        if let Some(relay) = self.remote_relay(device.as_bytes()) {
            return self.link_proven(id, relay);
        }
        let Ok(accounts) = self.open_accounts(&device) else { return self.send_back_later(id) };
        self.device_seen(id);
        for account in accounts {
            self.collect(id, account.clone(), Target::Device(account, device.clone()));
        }
    }

    fn collect(&mut self, id: ConnectionId, account: AccountUrl, target: Target) {
        let shard = home::home(&account, self.config.shards);
        let peer = self.peer_mut(id);
        if !peer.collects.iter().any(|(_, collected)| *collected == target) {
            // Most connections collect for one account on one device.
            peer.collects.reserve_exact(2_usize.saturating_sub(peer.collects.len()));
            peer.collects.push((shard, target.clone()));
            self.mesh.send(shard, MeshItem::Collect { target, connection: id });
        }
    }

    /// Attach (3.3.5.14). Only a device that has proven itself may collect an account's mail.
    pub(super) fn attach_received(&mut self, id: ConnectionId, request: AccountRequest) {
        let event = request.event;
        let Ok(account) = AccountUrl::new(request.account_url.as_bytes()) else {
            return self.connection(id).close_session(event, CloseReason::UserAuthenticationFailed);
        };
        if !self.peer(id).authenticated || self.peer(id).relay.is_some() {
            return self.connection(id).close_session(event, CloseReason::DeviceAuthenticationFailed);
        }
        let token = &request.authentication_token;
        if self.has_failed_too_often(id) {
            self.stats.put_off += 1;
            let token = security::attach_failed(token);
            return self.connection(id).attach_response(event, token);
        }
        let Ok(record) = self.directory.account(&account) else { return self.send_back_later(id) };
        match security::answer_attach(token, &account, record.as_ref(), &mut *self.entropy) {
            HelloVerdict::RegistrationNeeded { token } => self.connection(id).attach_response(event, token),
            HelloVerdict::Failed { token, reason } => {
                self.report(id, MessageId::SecAttach, Some(account), reason);
                self.connection(id).attach_response(event, token);
            }
            HelloVerdict::Challenged { token, challenge } => {
                let challenge = Some(Box::new(challenge));
                let peer = self.peer_mut(id);
                peer.attachments.reserve_exact(1_usize.saturating_sub(peer.attachments.len()));
                peer.attachments.push(Attachment { event, account, challenge });
                peer.connection.attach_response(event, token);
            }
        }
    }

    /// AttachAuthenticate: from here on the account's mail is collected.
    pub(super) fn attach_authenticate_received(&mut self, id: ConnectionId, event: SessionId, token: &[u8]) {
        let peer = self.peer_mut(id);
        let attachment = peer.attachments.iter_mut().find(|attachment| attachment.event == event);
        let Some((account, challenge)) = attachment.and_then(|attachment| {
            attachment.challenge.take().map(|challenge| (attachment.account.clone(), challenge))
        }) else {
            return peer.connection.close_session(event, CloseReason::StaleAttachAuthenticate);
        };
        if let Err(reason) = challenge.verify(token) {
            self.report(id, MessageId::SecAttachAuthenticate, Some(account), reason);
            let peer = self.peer_mut(id);
            peer.attachments.retain(|attachment| attachment.event != event);
            return peer.connection.close_session(event, CloseReason::UserAuthenticationFailed);
        }
        let Ok(locked_out) = self.is_account_locked_out(&account) else { return self.send_back_later(id) };
        if locked_out {
            let peer = self.peer_mut(id);
            peer.attachments.retain(|attachment| attachment.event != event);
            return peer.connection.close_session(event, CloseReason::UserAuthenticationFailed);
        }
        self.stats.attached += 1;
        self.collect(id, account.clone(), Target::Account(account));
    }

    /// Close of an Attach exchange detaches the account.
    pub(super) fn detach(&mut self, id: ConnectionId, event: SessionId) {
        let peer = self.peer_mut(id);
        let Some(index) = peer.attachments.iter().position(|attachment| attachment.event == event) else {
            return;
        };
        let account = peer.attachments.swap_remove(index).account;
        let still_attached = |other: &Attachment| other.account == account && other.challenge.is_none();
        if peer.attachments.iter().any(still_attached) {
            return;
        }
        let target = Target::Account(account);
        if let Some(index) = peer.collects.iter().position(|(_, collected)| *collected == target) {
            let (shard, target) = peer.collects.swap_remove(index);
            self.mesh.send(shard, MeshItem::Uncollect { target, connection: id });
        }
    }

    /// Register (3.3.5.17): for the driver to judge.
    pub(super) fn register_received(&mut self, id: ConnectionId, request: AccountRequest) {
        let account = AccountUrl::new(request.account_url.as_bytes());
        // The keys of another relay come from the configuration, and nobody can bring others.
        let device = self.peer(id).device.clone();
        let device = device.filter(|device| self.remote_relay(device.as_bytes()).is_none());
        let (Ok(account), Some(device)) = (account, device) else {
            return self.connection(id).close_session(request.event, CloseReason::ProtocolError);
        };
        let (event, token) = (request.event, request.authentication_token);
        let registration = Registration { connection: id, event, device, account, token };
        let most = self.config.registrations_per_address_per_minute;
        if let Some(source) = self.peer(id).source
            && !self.strangers.may_register(self.now, source, most)
        {
            return self.registration_done(id, event, Registered::busy(&registration));
        }
        self.actions.push_back(Action::Register(registration));
    }

    /// A Register was judged.
    pub(super) fn registration_done(&mut self, id: ConnectionId, event: SessionId, outcome: Registered) {
        if self.live_peer(id).is_none() {
            return;
        }
        match outcome {
            Registered::Answered { response, failure } => {
                match failure {
                    Some(failure) => self.report_registration(id, failure),
                    None => self.stats.registered += 1,
                }
                self.connection(id).register_response(event, response);
            }
            Registered::Busy { response } => {
                self.stats.busy += 1;
                self.connection(id).register_response(event, response);
            }
            Registered::Malformed(failure) => {
                self.report_registration(id, failure);
                self.connection(id).close_session(event, CloseReason::ProtocolError);
            }
            Registered::Failed => self.connection(id).close_session(event, CloseReason::InternalError),
        }
        self.touch(id);
    }

    fn report_registration(&mut self, id: ConnectionId, failure: RegisterFailure) {
        self.report(id, failure.message, Some(failure.account), failure.reason);
    }

    /// Counts a failure, and has it logged unless the log is to be spared.
    pub(super) fn report(
        &mut self,
        id: ConnectionId,
        message: MessageId,
        account: Option<AccountUrl>,
        reason: SecurityError,
    ) {
        let peer = self.peer(id);
        let (device, address, source) = (peer.device.clone(), peer.address, peer.source);
        self.stats.security_failures += 1;
        if let Some(source) = source {
            self.strangers.failed(self.now, source, self.config.failures_per_address_per_minute);
        }
        if let Some(untold) = self.strangers.log_line(self.now, source) {
            let failure =
                SecurityFailure { connection: id, address, device, account, message, reason, untold };
            self.actions.push_back(Action::SecurityFailed(failure));
        }
    }
}
