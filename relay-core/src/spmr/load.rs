//! Loading many users: batches, and the dance with a relay whose user database needs to be built (management-soap-spmr
//! 9.7): make it quiescent, send everything from the start, activate it. Decides what to ask next; sends nothing.

use super::request::{ListedUser, Outcome, Request};

/// Where the users come from.
pub trait UserSource {
    /// Why it fails.
    type Error;

    /// The next user; `None` at the end.
    ///
    /// # Errors
    /// The source cannot be read on.
    fn next_user(&mut self) -> Result<Option<ListedUser>, Self::Error>;

    /// Goes back to the first user.
    ///
    /// # Errors
    /// The source cannot be read again.
    fn rewind(&mut self) -> Result<(), Self::Error>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Sending batches to a relay that serves.
    Adding,
    /// Making it quiescent, to build.
    Quiescing,
    /// Sending batches to a quiescent relay.
    Building,
    Activating,
    Done,
}

/// Why a load stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadFailed {
    /// The relay wants its user database built although that was under way.
    #[error(
        "the relay does not go on building its user database: it was restarted, or an operator has ended \
             that. Send everything again"
    )]
    NotBuilding,
    /// The relay gives userAdd or RelayQuiescent an outcome that does not belong to it.
    #[error("the relay answers with an outcome that does not belong to the request")]
    OtherOutcome,
}

/// A load under way: [`Load::next_request`], and with its outcome [`Load::answered`], until there is none.
#[derive(Debug)]
pub struct Load {
    batch_users: usize,
    stage: Stage,
    /// The source stands at its start.
    at_start: bool,
    in_batch: u64,
    added: u64,
    rebuilt: bool,
}

impl Load {
    /// A load in batches of `batch_users`, at least 1. With `rebuild` the relay is made quiescent without being asked.
    pub fn new(batch_users: usize, rebuild: bool) -> Self {
        Self {
            batch_users: batch_users.max(1),
            stage: if rebuild { Stage::Quiescing } else { Stage::Adding },
            at_start: true,
            in_batch: 0,
            added: 0,
            rebuilt: rebuild,
        }
    }

    /// Users added so far.
    pub fn added(&self) -> u64 {
        self.added
    }

    /// Whether the relay had to be made quiescent.
    pub fn rebuilt(&self) -> bool {
        self.rebuilt
    }

    /// Whether the relay is quiescent at present because of the load.
    pub fn is_quiescing(&self) -> bool {
        matches!(self.stage, Stage::Building | Stage::Activating)
    }

    /// What to ask next; `None` if all is done.
    ///
    /// # Errors
    /// What the source says.
    pub fn next_request<S: UserSource>(&mut self, source: &mut S) -> Result<Option<Request>, S::Error> {
        match self.stage {
            Stage::Quiescing => return Ok(Some(Request::RelayQuiescent(true))),
            Stage::Activating => return Ok(Some(Request::RelayQuiescent(false))),
            Stage::Done => return Ok(None),
            Stage::Adding | Stage::Building => {}
        }
        if self.at_start {
            source.rewind()?;
            self.at_start = false;
        }
        let mut batch = Vec::new();
        while batch.len() < self.batch_users
            && let Some(user) = source.next_user()?
        {
            batch.push(user);
        }
        if !batch.is_empty() {
            self.in_batch = batch.len() as u64;
            return Ok(Some(Request::UserAdd(batch)));
        }
        self.stage = if self.stage == Stage::Building { Stage::Activating } else { Stage::Done };
        self.next_request(source)
    }

    /// Takes the outcome of what was asked.
    ///
    /// # Errors
    /// [`LoadFailed`].
    pub fn answered(&mut self, outcome: Outcome) -> Result<(), LoadFailed> {
        self.stage = match (self.stage, outcome) {
            (Stage::Quiescing, Outcome::Success) => Stage::Building,
            (Stage::Activating, Outcome::Success) => Stage::Done,
            (stage @ (Stage::Adding | Stage::Building), Outcome::Success) => {
                self.added += self.in_batch;
                stage
            }
            (Stage::Adding, Outcome::NeedsBuild) => {
                // What went before went into a database that is to be replaced.
                (self.added, self.at_start, self.rebuilt) = (0, true, true);
                Stage::Quiescing
            }
            (Stage::Building, Outcome::NeedsBuild) => return Err(LoadFailed::NotBuilding),
            _ => return Err(LoadFailed::OtherOutcome),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::AccountUrl;

    struct Numbers {
        next: u32,
        end: u32,
        rewinds: u32,
    }

    impl UserSource for Numbers {
        type Error = std::convert::Infallible;

        fn next_user(&mut self) -> Result<Option<ListedUser>, Self::Error> {
            if self.next == self.end {
                return Ok(None);
            }
            self.next += 1;
            Ok(Some(ListedUser {
                account: AccountUrl::new(self.next.to_string()).unwrap(),
                identities: vec![],
                token: None,
                quota_bytes: None,
                lifetime_seconds: None,
            }))
        }

        fn rewind(&mut self) -> Result<(), Self::Error> {
            (self.next, self.rewinds) = (0, self.rewinds + 1);
            Ok(())
        }
    }

    /// Runs a load against answers; gives what was asked, in words.
    fn run(mut load: Load, answer: impl Fn(usize, &Request) -> Outcome) -> (Vec<String>, Load) {
        let mut source = Numbers { next: 0, end: 5, rewinds: 0 };
        let mut asked = Vec::new();
        while let Some(request) = load.next_request(&mut source).unwrap() {
            load.answered(answer(asked.len(), &request)).unwrap();
            asked.push(match request {
                Request::UserAdd(users) => {
                    format!("add {}..{}", users[0].account, users[users.len() - 1].account)
                }
                other => format!("{other:?}"),
            });
        }
        (asked, load)
    }

    #[test]
    fn a_ready_relay_gets_batches_and_nothing_else() {
        let (asked, load) = run(Load::new(2, false), |_, _| Outcome::Success);
        assert_eq!(asked, ["add 1..2", "add 3..4", "add 5..5"]);
        assert_eq!((load.added(), load.rebuilt()), (5, false));
    }

    #[test]
    fn an_empty_relay_is_made_quiescent_filled_from_the_start_and_activated() {
        for refused in [0, 1, 2] {
            let (asked, load) = run(Load::new(2, false), |index, _| match index == refused {
                true => Outcome::NeedsBuild,
                false => Outcome::Success,
            });
            let dance = ["RelayQuiescent(true)", "add 1..2", "add 3..4", "add 5..5", "RelayQuiescent(false)"];
            assert_eq!(asked[refused + 1..], dance);
            assert_eq!((load.added(), load.rebuilt(), load.is_quiescing()), (5, true, false));
        }
        let (asked, _) = run(Load::new(100, true), |_, _| Outcome::Success);
        assert_eq!(asked, ["RelayQuiescent(true)", "add 1..5", "RelayQuiescent(false)"]);
    }

    #[test]
    fn outcomes_that_make_no_sense_stop_the_load() {
        let mut load = Load::new(2, true);
        assert_eq!(load.answered(Outcome::NeedsBuild), Err(LoadFailed::OtherOutcome));
        load.answered(Outcome::Success).unwrap();
        assert!(load.is_quiescing());
        assert_eq!(load.answered(Outcome::NeedsBuild), Err(LoadFailed::NotBuilding));
        assert_eq!(load.answered(Outcome::UnknownUser), Err(LoadFailed::OtherOutcome));
    }
}
