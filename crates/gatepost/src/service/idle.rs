//! Idle time-outs and orderly ends, at the price of one number and one waker a session.
//!
//! Each worker thread has a wheel whose slots are seconds. A session stands in the slot of its deadline
//! and writes down when it last saw a byte; only when its slot comes up is that looked at, and the
//! session moved on to its new deadline or told to end. A busy session costs no timer at all.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// Seconds a wheel reaches ahead. A deadline further away is looked at on the way, again and again.
const SLOTS: u32 = 512;
/// A session that lasts this long is told so.
const SETTLE_SECONDS: u32 = 5;
/// A session that said nothing for this many ticks, and so for more than a second, may be asked to go.
const QUIET_SECONDS: u32 = 2;

/// Why a session must end though both peers would go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing was said for too long.
    Idle,
    /// Gatepost is stopping; to be declined by a session that is in the middle of something.
    Drained,
    /// Gatepost stops now.
    Stopped,
    /// What the session was let in by is over.
    Expired,
}

/// What the wheel has to say to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// It has lasted for a while: what short sessions do without is worth its price now. Said once.
    Settled,
    /// It must end.
    End(Verdict),
}

/// A session's own end of its [`Pulse`]: the wheel forgets the session when it goes.
#[derive(Debug)]
pub(crate) struct Heart(Arc<Pulse>);

/// One session's sign of life.
#[derive(Debug)]
struct Pulse {
    /// The wheel's second at which a byte was last seen.
    last: AtomicU32,
    timeout_seconds: AtomicU32,
    state: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

/// What a pulse's `state` is: lasting for less than [`SETTLE_SECONDS`]; to be told that it has settled;
/// told; and then why it must end.
const NEW: u8 = 0;
const SETTLED: u8 = 1;
const OPEN: u8 = 2;
const IDLE: u8 = 3;
const DRAINED: u8 = 4;
const STOPPED: u8 = 5;
const EXPIRED: u8 = 6;
const GONE: u8 = 7;

impl Heart {
    /// A byte passed.
    pub(crate) fn beat(&self) {
        self.0.last.store(Wheel::now(), Ordering::Relaxed);
    }

    /// Tells the session to end when so much time has passed, whatever it does. Few sessions are told, so that
    /// each has a timer of its own.
    pub(crate) fn end_after(&self, time: Duration) {
        let pulse = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if let Some(pulse) = pulse.upgrade().filter(|pulse| pulse.is_alive()) {
                pulse.say(EXPIRED);
            }
        });
    }

    /// Sets another time-out, which counts from the last byte.
    pub(crate) fn set_timeout(&self, timeout: Duration) {
        self.0.timeout_seconds.store(seconds(timeout), Ordering::Relaxed);
        // It may stand in a slot that is too late. Standing in two is harmless.
        Wheel::with(|wheel| wheel.place(Arc::clone(&self.0)));
    }

    /// What there is to say. The waker is woken when that changes.
    pub(crate) fn word(&self, waker: &Waker) -> Option<Word> {
        let mut kept = self.0.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
        match self.0.state() {
            SETTLED => {
                self.0.state.store(OPEN, Ordering::Relaxed);
                Some(Word::Settled)
            }
            IDLE => Some(Word::End(Verdict::Idle)),
            DRAINED => Some(Word::End(Verdict::Drained)),
            STOPPED => Some(Word::End(Verdict::Stopped)),
            EXPIRED => Some(Word::End(Verdict::Expired)),
            _ => None,
        }
    }

    /// Not now: ask again later.
    pub(crate) fn decline(&self) {
        let _ = self.0.state.compare_exchange(DRAINED, OPEN, Ordering::Relaxed, Ordering::Relaxed);
        Wheel::with(|wheel| wheel.place(Arc::clone(&self.0)));
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.0.state.store(GONE, Ordering::Relaxed);
        *self.0.waker.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Pulse {
    fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }

    /// Whether it lives on, as far as the wheel knows.
    fn is_alive(&self) -> bool {
        self.state() <= OPEN
    }

    fn say(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    fn deadline(&self) -> u32 {
        self.last.load(Ordering::Relaxed).saturating_add(self.timeout_seconds.load(Ordering::Relaxed))
    }
}

/// A time-out in the wheel's whole seconds; part of one counts as one.
fn seconds(timeout: Duration) -> u32 {
    let whole = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX / 2);
    whole.saturating_add(u32::from(timeout.subsec_nanos() > 0)).max(1)
}

/// A worker thread's sessions by their deadlines.
#[derive(Debug)]
pub(crate) struct Wheel {
    now: u32,
    slots: Vec<Vec<Arc<Pulse>>>,
}

impl Wheel {
    fn new() -> Self {
        Self { now: 0, slots: (0..SLOTS).map(|_| Vec::new()).collect() }
    }

    /// Lends the thread's wheel to `work`.
    fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        thread_local! {
            static WHEEL: RefCell<Wheel> = RefCell::new(Wheel::new());
        }
        WHEEL.with_borrow_mut(work)
    }

    fn now() -> u32 {
        Self::with(|wheel| wheel.now)
    }

    /// A new session on this thread.
    pub(crate) fn enter(timeout: Duration) -> Heart {
        Self::with(|wheel| {
            let pulse = Arc::new(Pulse {
                last: AtomicU32::new(wheel.now),
                timeout_seconds: AtomicU32::new(seconds(timeout)),
                state: AtomicU8::new(NEW),
                waker: Mutex::new(None),
            });
            wheel.place(Arc::clone(&pulse));
            Heart(pulse)
        })
    }

    /// One second has passed on this thread.
    pub(crate) fn tick() {
        Self::with(Self::advance);
    }

    /// Asks at most `count` quiet sessions of this thread to end; with `all`, tells every session.
    pub(crate) fn drain(count: usize, all: bool) {
        Self::with(|wheel| {
            let now = wheel.now;
            let pulses = wheel.slots.iter().flatten();
            let ready = pulses.filter(|pulse| {
                let quiet = now.saturating_sub(pulse.last.load(Ordering::Relaxed)) >= QUIET_SECONDS;
                pulse.is_alive() && (quiet || all)
            });
            let state = if all { STOPPED } else { DRAINED };
            ready.take(count).for_each(|pulse| pulse.say(state));
        });
    }

    fn advance(&mut self) {
        self.now += 1;
        let due = std::mem::take(&mut self.slots[(self.now % SLOTS) as usize]);
        for pulse in due {
            if !pulse.is_alive() {
                continue;
            }
            if pulse.deadline() <= self.now {
                pulse.say(IDLE);
                continue;
            }
            if pulse.state() == NEW {
                pulse.say(SETTLED);
            }
            self.place(pulse);
        }
    }

    fn place(&mut self, pulse: Arc<Pulse>) {
        let reach = if pulse.state() == NEW { SETTLE_SECONDS } else { SLOTS - 1 };
        let ahead = pulse.deadline().saturating_sub(self.now).clamp(1, reach);
        self.slots[((self.now + ahead) % SLOTS) as usize].push(pulse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_over(pulse: &Heart) -> bool {
        matches!(pulse.word(Waker::noop()), Some(Word::End(_)))
    }

    #[test]
    fn a_session_that_lasts_is_told_once() {
        let pulse = Wheel::enter(Duration::from_mins(35));
        for _ in 1..SETTLE_SECONDS {
            Wheel::tick();
            pulse.beat();
            assert_eq!(pulse.word(Waker::noop()), None);
        }
        Wheel::tick();
        assert_eq!(pulse.word(Waker::noop()), Some(Word::Settled));
        for _ in 0..2000 {
            Wheel::tick();
            assert_eq!(pulse.word(Waker::noop()), None);
        }
    }

    #[test]
    fn a_silent_session_ends_and_a_busy_one_does_not() {
        let silent = Wheel::enter(Duration::from_secs(2000));
        let busy = Wheel::enter(Duration::from_secs(2000));
        for second in 1..2000 {
            Wheel::tick();
            if second % 500 == 0 {
                busy.beat();
            }
        }
        assert!(!is_over(&silent));
        Wheel::tick();
        assert_eq!(silent.word(Waker::noop()), Some(Word::End(Verdict::Idle)));
        for _ in 0..1499 {
            Wheel::tick();
        }
        assert!(!is_over(&busy));
        Wheel::tick();
        assert!(is_over(&busy));
    }

    #[test]
    fn a_shorter_time_out_takes_effect_at_once() {
        let pulse = Wheel::enter(Duration::from_mins(35));
        Wheel::tick();
        pulse.beat();
        pulse.set_timeout(Duration::from_secs(3));
        Wheel::tick();
        Wheel::tick();
        assert!(!is_over(&pulse));
        Wheel::tick();
        assert!(is_over(&pulse));
    }

    #[test]
    fn a_drain_takes_quiet_sessions_first() {
        let quiet = Wheel::enter(Duration::from_mins(35));
        let busy = Wheel::enter(Duration::from_mins(35));
        Wheel::tick();
        Wheel::tick();
        Wheel::tick();
        busy.beat();
        Wheel::drain(usize::MAX, false);
        assert!(is_over(&quiet) && !is_over(&busy));
        Wheel::drain(usize::MAX, true);
        assert!(is_over(&busy));
    }

    #[test]
    fn sessions_that_ended_leave_the_wheel() {
        drop(Wheel::enter(Duration::from_secs(1)));
        Wheel::tick();
        assert_eq!(Wheel::with(|wheel| wheel.slots.iter().map(Vec::len).sum::<usize>()), 0);
    }
}
