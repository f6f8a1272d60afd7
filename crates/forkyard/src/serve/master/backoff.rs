//! Trying again, later each time: 10 ms, doubling to 1 s.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// When something that failed may be tried again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    delay: Option<Duration>,
    until: Option<Instant>,
}

impl Backoff {
    /// It failed: the next try waits twice as long as the last one did.
    pub(super) fn failed(&mut self, now: Instant) {
        let delay = self.delay.map_or(FIRST, |delay| (2 * delay).min(LONGEST));
        *self = Backoff { delay: Some(delay), until: Some(now + delay) };
    }

    /// It worked, so the next failure starts from the shortest delay.
    pub(super) fn succeeded(&mut self) {
        *self = Backoff::default();
    }

    /// What it waited for may have come: the next try may be made now, the delay stays.
    pub(super) fn hurry(&mut self) {
        self.until = None;
    }

    /// When the next try may be made; `None` for now.
    pub(super) fn pending(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Backoff;

    #[test]
    fn delays_double_up_to_a_second_and_start_again() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.pending(now).is_none());
        let mut delays = Vec::new();
        for _ in 0..9 {
            backoff.failed(now);
            delays.push((backoff.pending(now).unwrap() - now).as_millis());
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert!(backoff.pending(now + Duration::from_secs(1)).is_none());
        backoff.succeeded();
        backoff.failed(now);
        assert_eq!(backoff.pending(now), Some(now + Duration::from_millis(10)));
    }
}
