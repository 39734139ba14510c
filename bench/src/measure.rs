//! Puts a load on a server from several threads at once, and puts together what they counted with what the server used.

use crate::clock;
use crate::load::{Driver, Load, LoadError, Outcome, Party, Schedule};
use crate::proc_stat::Usage;
use crate::tally::Tally;
use crate::wire::Wire;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// From the moment at which everybody is connected to the beginning of the warm-up.
const HEAD_START: Duration = Duration::from_millis(20);

/// How long is measured, and by how many threads.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Timing {
    /// Seconds of one round
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Rounds; the median is reported, and how far they spread
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Seconds of load before the first round
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warm_up: f64,
    /// Threads of the load generator
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
}

/// One round of all threads.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// Counts and latencies.
    pub(crate) tally: Tally,
    /// Its length.
    pub(crate) seconds: f64,
    /// CPU seconds that the server used in it.
    pub(crate) server_cpu: f64,
    /// CPU seconds that the generator used in it.
    pub(crate) own_cpu: f64,
    /// The server's resident bytes at its end.
    pub(crate) resident: u64,
}

/// What a load has shown.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The rounds.
    pub(crate) rounds: Vec<Round>,
    /// Messages that each sender has sent, warm-up and closing included.
    pub(crate) sent: Vec<(u32, u64)>,
}

/// Deals `parties` out to the threads, connects them, and measures.
///
/// # Errors
/// The first thread's [`LoadError`].
pub(crate) fn measure<W: Wire + Send>(
    address: SocketAddr,
    server: u32,
    load: &Load,
    parties: Vec<Party<W>>,
    timing: &Timing,
) -> Result<Measured, LoadError> {
    let threads = timing.threads.clamp(1, parties.len().max(1));
    let mut hands: Vec<Vec<Party<W>>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, party) in parties.into_iter().enumerate() {
        hands[index % threads].push(party);
    }
    let connected = Barrier::new(threads + 1);
    let scheduled = Barrier::new(threads + 1);
    let start = AtomicU64::new(0);
    let schedule = |start| Schedule {
        start,
        warm_up: Duration::from_secs_f64(timing.warm_up),
        round: Duration::from_secs_f64(timing.seconds),
        rounds: timing.rounds,
    };
    let drive = |hand: Vec<Party<W>>| {
        let driver = Driver::connect(address, load.clone(), hand);
        connected.wait();
        scheduled.wait();
        driver?.run(schedule(start.load(Ordering::SeqCst)))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = hands.into_iter().map(|hand| scope.spawn(|| drive(hand))).collect();
        connected.wait();
        start.store(clock::now() + clock::nanoseconds(HEAD_START), Ordering::SeqCst);
        scheduled.wait();
        let samples = sample(server, &schedule(start.load(Ordering::SeqCst)), || {
            threads.iter().any(|thread| thread.is_finished())
        });
        let mut outcomes = Vec::new();
        for thread in threads {
            outcomes.push(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(combine(timing, &samples, outcomes))
    })
}

/// What the server and this process have used at the end of the warm-up and of each round; fewer if `over` says that
/// waiting is of no use.
fn sample(server: u32, schedule: &Schedule, over: impl Fn() -> bool) -> Vec<(Usage, Usage)> {
    let mut samples = Vec::new();
    for round in 0..=schedule.rounds {
        let end = schedule.end_of(round);
        while clock::now() < end {
            if over() && round < schedule.rounds {
                return samples;
            }
            clock::sleep_until(end.min(clock::now() + 20_000_000));
        }
        samples.push((Usage::of(server), Usage::of(std::process::id())));
    }
    samples
}

fn combine(timing: &Timing, samples: &[(Usage, Usage)], outcomes: Vec<Outcome>) -> Measured {
    let mut measured = Measured { rounds: Vec::new(), sent: Vec::new() };
    for (round, pair) in samples.windows(2).enumerate() {
        let mut tally = Tally::default();
        for outcome in &outcomes {
            tally.add(&outcome.tallies[round]);
        }
        let [before, after] = pair else { continue };
        measured.rounds.push(Round {
            tally,
            seconds: timing.seconds,
            server_cpu: after.0.cpu() - before.0.cpu(),
            own_cpu: after.1.cpu() - before.1.cpu(),
            resident: after.0.resident,
        });
    }
    for outcome in outcomes {
        measured.sent.extend(outcome.sent);
    }
    measured
}
