//! What a management server's requests do: to the user database at once, to mail and connections by [`Orders`]. One
//! request at a time, so nothing comes between its reading and its writing but registrations, which the database keeps
//! apart.

use super::ManagementOptions;
use super::orders::{NotDone, Orders};
use crate::events;
use client::SystemEntropy;
use relay_core::address::AccountUrl;
use relay_core::security::RelayKeys;
use relay_core::spmr::*;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use storage::{ListingState, ManagerStore, Shared, StorageError, UserDatabase};

/// Users that are listed before a registration has its turn.
const USERS_A_TURN: usize = 256;
/// Refusals that are told to the log in a minute.
const TOLD_A_MINUTE: u32 = 60;

/// The body of an HTTP response.
pub(super) enum Answer {
    /// It was done.
    Response(Vec<u8>),
    /// It was refused.
    Fault(Vec<u8>),
}

/// See the module's head.
pub(super) struct Operations {
    users: UserDatabase,
    keys: Arc<RelayKeys>,
    ledger: Ledger,
    accept: bool,
    orders: Orders,
    quiescent: Arc<AtomicBool>,
    entropy: SystemEntropy,
    told: Told,
}

/// What [`judge`] asks: the configured keys, and the database.
struct Ledger {
    store: ManagerStore,
    servers: BTreeMap<String, ManagerPublicKey>,
}

fn read<T>(result: Result<T, StorageError>) -> Result<T, LedgerFailed> {
    result.map_err(|error| {
        tracing::error!(event = events::MANAGERS_UNREADABLE, %error, "what is remembered of management servers cannot be read");
        LedgerFailed
    })
}

impl KeyLedger for Ledger {
    fn shared_key(&self, server: &str) -> Result<Option<SharedKey>, LedgerFailed> {
        read(self.store.shared_key(server))
    }

    fn was_taken(&self, server: &str, message: &MessageTrace) -> Result<bool, LedgerFailed> {
        read(self.store.was_taken(server, message))
    }

    fn is_former_key(&self, server: &str, trace: &[u8; 32]) -> Result<bool, LedgerFailed> {
        read(self.store.is_former_key(server, trace))
    }

    fn public_key(&self, server: &str) -> Option<ManagerPublicKey> {
        self.servers.get(server).cloned()
    }
}

/// Why a request that was right is not done.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Shards(#[from] NotDone),
    #[error("too many keys")]
    TooManyKeys,
}

impl Failed {
    /// What the management server is told; the log is told the rest.
    fn tell(self, operation: Operation) -> SpmrError {
        if matches!(self, Self::TooManyKeys) {
            return SpmrError::TooManyKeys;
        }
        tracing::error!(event = events::MANAGEMENT_FAILED, %operation, error = %self, "a management request failed");
        SpmrError::Internal
    }
}

impl Operations {
    pub(super) fn new(options: ManagementOptions) -> Self {
        let ManagementOptions { settings, patience, users, keys, mesh, quiescent } = options;
        Self {
            ledger: Ledger { store: users.managers().clone(), servers: settings.servers },
            users,
            keys,
            accept: settings.accept,
            orders: Orders::new(mesh, patience),
            quiescent,
            entropy: SystemEntropy::default(),
            told: Told::default(),
        }
    }

    /// Judges a request, does it, and answers it.
    pub(super) async fn answer(
        &mut self,
        peer: SocketAddr,
        content_type: Option<&[u8]>,
        body: &[u8],
    ) -> Answer {
        let refused = match judge(content_type, body, self.accept, &self.keys, &self.ledger) {
            Ok(judged) => {
                let operation = judged.reply.operation();
                match self.perform(&judged.server, judged.command).await {
                    Ok(outcome) => {
                        let (server, form) = (&judged.server, judged.form);
                        tracing::info!(event = events::MANAGEMENT_DONE, %peer, server, %operation, ?outcome, ?form, "management request");
                        return Answer::Response(judged.reply.write(outcome, &mut self.entropy));
                    }
                    Err(failed) => failed.tell(operation),
                }
            }
            Err(error) => error,
        };
        let code = refused.fault_code();
        if let Some(untold) = self.told.tell() {
            let code = code.number();
            tracing::warn!(event = events::MANAGEMENT_REFUSED, %peer, code, reason = %refused, untold, "management request refused");
        }
        Answer::Fault(write_fault(code, &refused.to_string()))
    }

    async fn perform(&mut self, server: &str, command: Command) -> Result<Outcome, Failed> {
        let (request, message) = match command {
            Command::Share(key) => {
                return match self.ledger.store.share(server, &key)? {
                    Shared::Yes => Ok(Outcome::Success),
                    Shared::TooManyKeys => Err(Failed::TooManyKeys),
                };
            }
            Command::Do(request, message) => (request, message),
        };
        self.ledger.store.take(server, &message)?;
        match request {
            Request::UserAdd(users) => self.add(&users).await,
            Request::AccountModify(accounts) => self.modify(&accounts).await,
            Request::UserPurge(accounts) => self.purge(accounts).await,
            Request::RelayDefault(defaults) => {
                {
                    let _exclusive = self.users.exclusive();
                    self.ledger.store.set_defaults(defaults)?;
                }
                self.orders.defaults(defaults).await?;
                Ok(Outcome::Success)
            }
            Request::RelayQuiescent(true) => self.rest().await,
            Request::RelayQuiescent(false) => self.activate().await,
        }
    }

    /// userAdd (management-soap-spmr 6.3, 7.10).
    async fn add(&mut self, users: &[ListedUser]) -> Result<Outcome, Failed> {
        match (self.users.listing_state(), self.quiescent.load(Ordering::Acquire)) {
            (ListingState::Ready, _) => {
                for some in users.chunks(USERS_A_TURN) {
                    let changed = {
                        let _exclusive = self.users.exclusive();
                        self.users.list(some)?
                    };
                    self.orders.quotas(changed).await?;
                }
                self.users.flush()?;
                Ok(Outcome::Success)
            }
            (_, false) => Ok(Outcome::NeedsBuild),
            (_, true) => {
                self.users.list_aside(users)?;
                Ok(Outcome::Success)
            }
        }
    }

    /// accountModify (7.9).
    async fn modify(&mut self, accounts: &[(AccountUrl, bool)]) -> Result<Outcome, Failed> {
        let known: HashSet<AccountUrl> = {
            let _exclusive = self.users.exclusive();
            self.users.lock_out(accounts)?.into_iter().collect()
        };
        let locked_out: Vec<AccountUrl> = accounts
            .iter()
            .filter(|(account, locked_out)| *locked_out && known.contains(account))
            .map(|(account, _)| account.clone())
            .collect();
        self.orders.lock_out(&self.users, &locked_out).await?;
        Ok(all_known(accounts.iter().all(|(account, _)| known.contains(account))))
    }

    /// userPurge (7.11).
    async fn purge(&mut self, accounts: Vec<AccountUrl>) -> Result<Outcome, Failed> {
        let mut known = Vec::new();
        let asked = accounts.len();
        for account in accounts {
            if self.users.is_known(&account)? {
                known.push(account);
            }
        }
        self.orders.purge(&self.users, &known).await?;
        Ok(all_known(known.len() == asked))
    }

    /// RelayQuiescent, status 1 (7.8).
    async fn rest(&mut self) -> Result<Outcome, Failed> {
        if !self.quiescent.swap(true, Ordering::AcqRel) {
            self.orders.rest().await?;
            tracing::warn!(
                event = events::RELAY_QUIESCENT,
                "the relay is quiescent: it serves nobody until it is activated"
            );
        }
        Ok(Outcome::Success)
    }

    /// RelayQuiescent, status 0: what was built is in force before anybody is let in.
    async fn activate(&mut self) -> Result<Outcome, Failed> {
        let built = {
            let _exclusive = self.users.exclusive();
            self.users.activate_listing()?
        };
        if self.quiescent.load(Ordering::Acquire) {
            self.orders.resume().await?;
            self.quiescent.store(false, Ordering::Release);
            tracing::info!(event = events::RELAY_ACTIVE, built, "the relay is active");
        }
        Ok(Outcome::Success)
    }
}

fn all_known(all: bool) -> Outcome {
    if all { Outcome::Success } else { Outcome::UnknownUser }
}

/// How many refusals the log was told in the present minute, so that strangers cannot fill it.
#[derive(Default)]
struct Told {
    since: Option<Instant>,
    told: u32,
    untold: u32,
}

impl Told {
    /// Whether one more is told, and then how many were not before it.
    fn tell(&mut self) -> Option<u32> {
        if self.since.is_none_or(|since| since.elapsed() > Duration::from_secs(60)) {
            (self.since, self.told) = (Some(Instant::now()), 0);
        }
        self.told += 1;
        if self.told > TOLD_A_MINUTE {
            self.untold += 1;
            return None;
        }
        Some(std::mem::take(&mut self.untold))
    }
}
