//! How long to wait before the next connection: exponential, jittered, and never shorter than the relay asked for.

use crate::time::Entropy;
use std::time::Duration;

/// The shortest pause.
const FIRST: Duration = Duration::from_millis(250);
/// The longest pause of our own choice.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest pause that a relay can impose with RetryTime or ReturnTime: a garbled number must not silence a client
/// for years.
const LONGEST_IMPOSED: Duration = Duration::from_secs(24 * 3600);

/// Counts failures and turns them into pauses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The connection was of use: the next failure is the first one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure: between half of 0.25 s, doubled for each earlier failure up to 60 s, and the whole of
    /// it; but no shorter than `imposed`, of which a day is believed.
    pub fn next(&mut self, imposed: Duration, entropy: &mut dyn Entropy) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let mut random = [0; 4];
        entropy.fill(&mut random);
        let share = f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX);
        let own = whole.mul_f64(0.5 + 0.5 * share);
        match imposed.min(LONGEST_IMPOSED) {
            Duration::ZERO => own,
            imposed => imposed + own.min(imposed / 4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Constant(u8);

    impl Entropy for Constant {
        fn fill(&mut self, buffer: &mut [u8]) {
            buffer.fill(self.0);
        }
    }

    #[test]
    fn pauses_double_from_a_quarter_second_to_a_minute() {
        let mut backoff = Backoff::default();
        let mut pauses = (0..12).map(|_| backoff.next(Duration::ZERO, &mut Constant(0xff)).as_millis());
        assert_eq!(pauses.by_ref().take(4).collect::<Vec<_>>(), [250, 500, 1000, 2000]);
        assert_eq!(pauses.last(), Some(60_000));
        backoff.reset();
        assert_eq!(
            backoff.next(Duration::ZERO, &mut Constant(0)).as_millis(),
            125,
            "jitter takes up to half"
        );
    }

    #[test]
    fn an_imposed_pause_is_never_cut_short_but_for_nonsense() {
        let mut backoff = Backoff::default();
        for random in [0, 0xff] {
            let pause = backoff.next(Duration::from_secs(30), &mut Constant(random));
            assert!(pause >= Duration::from_secs(30) && pause <= Duration::from_secs(38), "{pause:?}");
        }
        let nonsense = backoff.next(Duration::from_secs(u32::MAX.into()), &mut Constant(0));
        assert!(nonsense < Duration::from_secs(2 * 24 * 3600));
    }
}
