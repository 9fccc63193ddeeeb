//! How long a refusal takes: nobody learns from the clock which of several reasons it has.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Dovecot's delay after a failure, until a back end has shown its own.
const PACE_DEFAULT: Duration = Duration::from_secs(2);

/// How long back ends took lately to refuse wrong passwords, so that a refusal that needs no back end
/// (nobody knows the user) can take as long.
#[derive(Debug, Default)]
pub(crate) struct RefusalPace {
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    samples: [Option<Duration>; 16],
    next: usize,
}

impl RefusalPace {
    /// A back end took this long to refuse.
    pub(crate) fn record(&self, took: Duration) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let next = recent.next;
        recent.samples[next] = Some(took);
        recent.next = (next + 1) % recent.samples.len();
    }

    /// How long the next refusal should take: as long as one of the latest, by chance.
    pub(crate) fn sample(&self) -> Duration {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known: Vec<_> = recent.samples.iter().flatten().collect();
        let mut random = [0; 1];
        // Without randomness the first serves as well.
        let _ = getrandom::fill(&mut random);
        known.get(usize::from(random[0]) % known.len().max(1)).map_or(PACE_DEFAULT, |&&took| took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_takes_as_long_as_one_of_the_latest() {
        let pace = RefusalPace::default();
        assert_eq!(pace.sample(), PACE_DEFAULT);
        let took = Duration::from_millis;
        pace.record(took(7));
        assert_eq!(pace.sample(), took(7));
        // Sixteen are kept: of forty, the last sixteen.
        (0..40).for_each(|n| pace.record(took(n)));
        let seen: std::collections::BTreeSet<_> = (0..2000).map(|_| pace.sample()).collect();
        assert_eq!(seen, (24..40).map(took).collect());
    }
}
