//! Who is there: every session of a thread with its story, its idle time-out and the signal that ends it.
//!
//! Each worker thread has a wheel whose slots are seconds. A session stands in the slot of its deadline
//! and writes down when it last saw a byte; only when its slot comes up is that looked at, and the
//! session moved on to its new deadline or told to end. A busy session costs no timer at all.
//! Before its log-in, and where it takes mail, a session stands apart, since it sees to its deadlines itself.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::story::{EndReason, Story};

/// Seconds a wheel reaches ahead. A deadline further away is looked at on the way, again and again.
const SLOTS: u32 = 512;
/// The list of sessions without a deadline here, behind the slots.
const APART: u32 = SLOTS;
/// A session that lasts this long is told so.
const SETTLE_SECONDS: u32 = 5;
/// A session that said nothing for this many ticks, and so for more than a second, may be asked to go.
const QUIET_SECONDS: u32 = 2;

/// What the wheel has to say to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// It has lasted for a while: what short sessions do without is worth its price now.
    Settled,
    /// It must end.
    End(EndReason),
}

/// A session's own end of its [`Entry`]: the wheel forgets the session when it goes.
pub(super) struct SessionHandle(Arc<Entry>);

/// A session as others see it, at one moment.
#[derive(Clone)]
pub(crate) struct SessionRef {
    entry: Arc<Entry>,
    /// How long it has said nothing; of those that are logged in.
    pub(crate) idle_seconds: u32,
}

/// A session is at a back end for as long as this lives: whoever asks for the sessions there is told of it.
pub(super) struct Visit {
    session: Arc<Entry>,
    pub(super) backend: Arc<str>,
}

/// One session's sign of life, and its story.
struct Entry {
    /// The wheel's second at which a byte was last seen.
    last: AtomicU32,
    /// 0: it is no relay, or not yet.
    timeout_seconds: AtomicU32,
    /// The wheel's second at which it ends whatever it does; the last there is: never.
    expires: AtomicU32,
    /// Where the wheel has it: which list, and which place there.
    list: AtomicU32,
    index: AtomicU32,
    state: AtomicState,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    waker: Mutex<Option<Waker>>,
    story: Mutex<Story>,
}

/// How far a session has come, and then why it must end; the later, the graver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum State {
    /// On its way to a log-in, or taking mail.
    Talking,
    /// A relay for less than [`SETTLE_SECONDS`].
    New,
    /// To be told that it has settled.
    Settled,
    /// Told.
    Open,
    Idle,
    Drained,
    Stopped,
    Expired,
    Kicked,
}

/// A [`State`] that several threads may change.
struct AtomicState(AtomicU8);

impl State {
    const ALL: [Self; 9] = [
        Self::Talking,
        Self::New,
        Self::Settled,
        Self::Open,
        Self::Idle,
        Self::Drained,
        Self::Stopped,
        Self::Expired,
        Self::Kicked,
    ];

    /// Why the session must end, if it must.
    const fn end(self) -> Option<EndReason> {
        match self {
            Self::Talking | Self::New | Self::Settled | Self::Open => None,
            Self::Idle => Some(EndReason::Idle),
            Self::Drained => Some(EndReason::Drained),
            Self::Stopped => Some(EndReason::Stopped),
            Self::Expired => Some(EndReason::Expired),
            Self::Kicked => Some(EndReason::Kicked),
        }
    }
}

impl AtomicState {
    fn get(&self) -> State {
        State::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }

    /// Puts `to` in the place of `from`, and tells whether that was there.
    fn replace(&self, from: State, to: State) -> bool {
        self.0.compare_exchange(from as u8, to as u8, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Goes on to `to`, unless it is beyond that.
    fn raise(&self, to: State) {
        self.0.fetch_max(to as u8, Ordering::Relaxed);
    }
}

impl SessionHandle {
    /// What is known of the session. Not to be held while anything is waited for.
    pub(super) fn story(&self) -> MutexGuard<'_, Story> {
        self.0.story()
    }

    /// From now on bytes pass, and so long a silence ends it.
    pub(super) fn relays(&self, timeout: Duration) {
        self.0.state.replace(State::Talking, State::New);
        self.moved(0, 0);
        self.set_timeout(timeout);
    }

    /// So many bytes passed, from the client and to it.
    pub(super) fn moved(&self, up: u64, down: u64) {
        self.0.last.store(Wheel::now(), Ordering::Relaxed);
        // Nobody else writes them.
        let add = |to: &AtomicU64, more| to.store(to.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        add(&self.0.bytes_up, up);
        add(&self.0.bytes_down, down);
    }

    /// Bytes that passed so far, from the client and to it.
    pub(super) fn bytes(&self) -> (u64, u64) {
        self.0.bytes()
    }

    /// Tells the session to end when so much time has passed, whatever it does.
    pub(super) fn end_after(&self, time: Duration) {
        self.0.expires.store(Wheel::now().saturating_add(seconds(time)), Ordering::Relaxed);
        Wheel::with(|wheel| wheel.replace(&self.0));
    }

    /// Sets another time-out, which counts from the last byte.
    pub(super) fn set_timeout(&self, timeout: Duration) {
        self.0.timeout_seconds.store(seconds(timeout), Ordering::Relaxed);
        // It may stand in a slot that is too late.
        Wheel::with(|wheel| wheel.replace(&self.0));
    }

    /// What there is to say. The waker is woken when that changes.
    pub(super) fn signal(&self, waker: &Waker) -> Option<Signal> {
        let mut kept = self.0.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
        // Somebody else may have said more at this very moment.
        if self.0.state.replace(State::Settled, State::Open) {
            return Some(Signal::Settled);
        }
        self.0.state.get().end().map(Signal::End)
    }

    /// Waits until the session is told to end, and why. For sessions that are no relay.
    pub(super) async fn told(&self) -> EndReason {
        std::future::poll_fn(|cx| match self.signal(cx.waker()) {
            Some(Signal::End(reason)) => Poll::Ready(reason),
            Some(Signal::Settled) | None => Poll::Pending,
        })
        .await
    }

    /// It is at this back end from now on, as long as what is given lives.
    pub(super) fn visit(&self, backend: &Arc<str>) -> Visit {
        self.story().visits.push(Arc::clone(backend));
        Visit { session: Arc::clone(&self.0), backend: Arc::clone(backend) }
    }

    /// Not now: ask again later. What it was to be told before, it is told then.
    pub(super) fn decline(&self) {
        self.0.state.replace(State::Drained, State::Settled);
        Wheel::with(|wheel| wheel.replace(&self.0));
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        // A thread that ends has no wheel any more.
        let _ = WHEEL.try_with(|wheel| wheel.borrow_mut().remove(&self.0));
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut story = self.session.story();
        if let Some(n) = story.visits.iter().position(|backend| Arc::ptr_eq(backend, &self.backend)) {
            story.visits.remove(n);
        }
    }
}

impl SessionRef {
    /// What is known of it. Not to be held for long: the session waits.
    pub(crate) fn story(&self) -> MutexGuard<'_, Story> {
        self.entry.story()
    }

    /// Bytes that passed so far, from the client and to it.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        self.entry.bytes()
    }

    /// Whether it is logged in and passes bytes.
    pub(crate) fn is_relay(&self) -> bool {
        self.entry.is_relay()
    }

    /// Whether it has nothing under way, as far as can be told from silence.
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_relay() && self.idle_seconds >= QUIET_SECONDS
    }

    /// Asks it to go as soon as nothing is under way.
    pub(crate) fn ask_to_go(&self) {
        self.entry.say(State::Drained);
    }

    /// Ends it. A message that is being taken is taken first.
    pub(crate) fn kick(&self) {
        self.entry.say(State::Kicked);
    }
}

impl Entry {
    fn story(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> (u64, u64) {
        (self.bytes_up.load(Ordering::Relaxed), self.bytes_down.load(Ordering::Relaxed))
    }

    fn is_relay(&self) -> bool {
        self.timeout_seconds.load(Ordering::Relaxed) > 0
    }

    /// How long no byte was seen, up to `now`.
    fn idle_seconds(&self, now: u32) -> u32 {
        now.saturating_sub(self.last.load(Ordering::Relaxed))
    }

    /// Whether it lives on, as far as the wheel knows.
    fn is_alive(&self) -> bool {
        self.state.get().end().is_none()
    }

    /// Says something, unless something graver was said already, perhaps by another thread.
    fn say(&self, state: State) {
        self.state.raise(state);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn is_expired(&self, now: u32) -> bool {
        self.expires.load(Ordering::Relaxed) <= now
    }

    fn deadline(&self) -> u32 {
        let idle = self.last.load(Ordering::Relaxed).saturating_add(self.timeout_seconds.load(Ordering::Relaxed));
        idle.min(self.expires.load(Ordering::Relaxed))
    }
}

/// A time-out in the wheel's whole seconds; part of one counts as one.
fn seconds(timeout: Duration) -> u32 {
    let whole = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX / 2);
    whole.saturating_add(u32::from(timeout.subsec_nanos() > 0)).max(1)
}

/// A worker thread's sessions: those with a deadline by that, and the others. Each stands in exactly one list.
pub(crate) struct Wheel {
    now: u32,
    lists: Vec<Vec<Arc<Entry>>>,
}

thread_local! {
    static WHEEL: RefCell<Wheel> = RefCell::new(Wheel::new());
}

impl Wheel {
    fn new() -> Self {
        Self { now: 0, lists: (0..=APART).map(|_| Vec::new()).collect() }
    }

    /// Lends the thread's wheel to `work`.
    fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        WHEEL.with_borrow_mut(work)
    }

    fn now() -> u32 {
        Self::with(|wheel| wheel.now)
    }

    /// A new session on this thread, which sees to its deadlines itself until it [`relays`](SessionHandle::relays).
    pub(super) fn enter(story: Story) -> SessionHandle {
        Self::with(|wheel| {
            let entry = Arc::new(Entry {
                last: AtomicU32::new(wheel.now),
                timeout_seconds: AtomicU32::new(0),
                expires: AtomicU32::new(u32::MAX),
                list: AtomicU32::new(APART),
                index: AtomicU32::new(0),
                state: AtomicState(AtomicU8::new(State::Talking as u8)),
                bytes_up: AtomicU64::new(0),
                bytes_down: AtomicU64::new(0),
                waker: Mutex::new(None),
                story: Mutex::new(story),
            });
            wheel.put(Arc::clone(&entry), APART);
            SessionHandle(entry)
        })
    }

    /// One second has passed on this thread.
    pub(crate) fn tick() {
        Self::with(Self::advance);
    }

    /// Every session of this thread.
    pub(crate) fn sessions() -> Vec<SessionRef> {
        Self::with(|wheel| {
            let of = |entry: &Arc<Entry>| SessionRef {
                idle_seconds: entry.idle_seconds(wheel.now),
                entry: Arc::clone(entry),
            };
            wheel.lists.iter().flatten().map(of).collect()
        })
    }

    /// Asks at most `count` quiet sessions of this thread to end.
    pub(crate) fn ask_quiet_to_go(count: usize) {
        Self::with(|wheel| {
            let is_quiet = |entry: &Entry| entry.is_relay() && entry.idle_seconds(wheel.now) >= QUIET_SECONDS;
            let is_asked = |entry: &&Arc<Entry>| is_quiet(entry) && entry.is_alive();
            let asked = wheel.lists.iter().flatten().filter(is_asked).take(count);
            asked.for_each(|entry| entry.say(State::Drained));
        });
    }

    /// Tells every relay of this thread to end.
    pub(crate) fn stop_all() {
        Self::with(|wheel| {
            let relays = wheel.lists.iter().flatten().filter(|entry| entry.is_relay());
            relays.filter(|entry| entry.state.get() < State::Stopped).for_each(|entry| entry.say(State::Stopped));
        });
    }

    fn advance(&mut self) {
        self.now += 1;
        let due = std::mem::take(&mut self.lists[(self.now % SLOTS) as usize]);
        for entry in due {
            if entry.is_alive() && entry.deadline() <= self.now {
                entry.say(if entry.is_expired(self.now) { State::Expired } else { State::Idle });
            }
            if entry.state.get() == State::New {
                entry.say(State::Settled);
            }
            self.place(entry);
        }
    }

    /// Puts a session where its deadline, or the next look at it, comes up.
    fn place(&mut self, entry: Arc<Entry>) {
        let reach = match entry.state.get() {
            State::New => SETTLE_SECONDS,
            State::Settled | State::Open => SLOTS - 1,
            _ => return self.put(entry, APART),
        };
        let ahead = entry.deadline().saturating_sub(self.now).clamp(1, reach);
        self.put(entry, (self.now + ahead) % SLOTS);
    }

    fn put(&mut self, entry: Arc<Entry>, list: u32) {
        let entries = &mut self.lists[list as usize];
        entry.list.store(list, Ordering::Relaxed);
        entry.index.store(entries.len() as u32, Ordering::Relaxed);
        entries.push(entry);
    }

    /// Takes a session out of its list; the last of the list takes its place.
    fn remove(&mut self, entry: &Entry) -> Option<Arc<Entry>> {
        let entries = self.lists.get_mut(entry.list.load(Ordering::Relaxed) as usize)?;
        let index = entry.index.load(Ordering::Relaxed);
        // One of another thread is not here.
        entries.get(index as usize).filter(|found| std::ptr::eq(Arc::as_ptr(found), entry))?;
        let removed = entries.swap_remove(index as usize);
        if let Some(moved) = entries.get(index as usize) {
            moved.index.store(index, Ordering::Relaxed);
        }
        // What a crowd has taken is given back once it has left.
        if entries.is_empty() {
            *entries = Vec::new();
        }
        Some(removed)
    }

    fn replace(&mut self, entry: &Entry) {
        if let Some(entry) = self.remove(entry) {
            self.place(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talking() -> SessionHandle {
        Wheel::enter(Story::new(&gatepost_wire::PROTOCOLS[0], &"imap 127.0.0.1:143".into(), ([127, 0, 0, 1], 1).into()))
    }

    fn relaying(timeout: Duration) -> SessionHandle {
        let handle = talking();
        handle.relays(timeout);
        handle
    }

    fn is_over(handle: &SessionHandle) -> bool {
        matches!(handle.signal(Waker::noop()), Some(Signal::End(_)))
    }

    #[test]
    fn a_session_that_lasts_is_told_once() {
        let handle = relaying(Duration::from_mins(35));
        for _ in 1..SETTLE_SECONDS {
            Wheel::tick();
            handle.moved(1, 0);
            assert_eq!(handle.signal(Waker::noop()), None);
        }
        Wheel::tick();
        assert_eq!(handle.signal(Waker::noop()), Some(Signal::Settled));
        for _ in 0..2000 {
            Wheel::tick();
            assert_eq!(handle.signal(Waker::noop()), None);
        }
    }

    #[test]
    fn a_silent_session_ends_and_a_busy_one_does_not() {
        let silent = relaying(Duration::from_secs(2000));
        let busy = relaying(Duration::from_secs(2000));
        for second in 1..2000 {
            Wheel::tick();
            if second % 500 == 0 {
                busy.moved(1, 0);
            }
        }
        assert!(!is_over(&silent));
        Wheel::tick();
        assert_eq!(silent.signal(Waker::noop()), Some(Signal::End(EndReason::Idle)));
        for _ in 0..1499 {
            Wheel::tick();
        }
        assert!(!is_over(&busy));
        Wheel::tick();
        assert!(is_over(&busy));
    }

    #[test]
    fn a_shorter_time_out_takes_effect_at_once() {
        let handle = relaying(Duration::from_mins(35));
        Wheel::tick();
        handle.moved(1, 0);
        handle.set_timeout(Duration::from_secs(3));
        Wheel::tick();
        Wheel::tick();
        assert!(!is_over(&handle));
        Wheel::tick();
        assert!(is_over(&handle));
    }

    #[test]
    fn a_drain_takes_quiet_sessions_first() {
        let quiet = relaying(Duration::from_mins(35));
        let busy = relaying(Duration::from_mins(35));
        Wheel::tick();
        Wheel::tick();
        Wheel::tick();
        busy.moved(1, 0);
        Wheel::ask_quiet_to_go(usize::MAX);
        assert!(is_over(&quiet) && !is_over(&busy));
        Wheel::stop_all();
        assert!(is_over(&busy));
    }

    #[test]
    fn what_a_session_was_let_in_by_ends_it_however_busy_it_is() {
        let handle = relaying(Duration::from_mins(35));
        handle.end_after(Duration::from_secs(700));
        for second in 1..700 {
            Wheel::tick();
            handle.moved(1, 1);
            assert!(!is_over(&handle), "second {second}");
        }
        // One that is asked to go and declines is not let off.
        Wheel::sessions().iter().for_each(SessionRef::ask_to_go);
        Wheel::tick();
        handle.decline();
        Wheel::tick();
        assert_eq!(handle.signal(Waker::noop()), Some(Signal::End(EndReason::Expired)));
    }

    #[test]
    fn the_gravest_reason_stands() {
        let handle = relaying(Duration::from_mins(35));
        let sessions = Wheel::sessions();
        sessions.iter().for_each(SessionRef::kick);
        sessions.iter().for_each(SessionRef::ask_to_go);
        handle.decline();
        assert_eq!(handle.signal(Waker::noop()), Some(Signal::End(EndReason::Kicked)));
    }

    #[test]
    fn everybody_is_there_exactly_once_until_they_go() {
        let count = || Wheel::sessions().len();
        let handles: Vec<_> = (1..=100).map(|n| relaying(Duration::from_secs(n * 7 % 50 + 1))).collect();
        let one = talking();
        assert_eq!(count(), 101);
        for second in 0..60 {
            Wheel::tick();
            handles.iter().step_by(3).for_each(|handle| handle.moved(1, 2));
            handles[second].set_timeout(Duration::from_secs(9));
            assert_eq!(count(), 101, "second {second}");
        }
        assert_eq!(handles[0].bytes(), (60, 120));
        drop(one);
        let (odd, even): (Vec<_>, Vec<_>) = handles.into_iter().enumerate().partition(|(n, _)| n % 2 == 1);
        drop(odd);
        assert_eq!(count(), even.len());
        drop(even);
        assert_eq!(count(), 0);
    }

    #[test]
    fn a_kick_reaches_those_who_talk_and_those_who_relay() {
        let (talks, relays) = (talking(), relaying(Duration::from_mins(35)));
        Wheel::stop_all();
        assert!(!is_over(&talks), "that is for whoever is logged in");
        assert!(is_over(&relays));
        Wheel::sessions().iter().for_each(SessionRef::kick);
        assert_eq!(talks.signal(Waker::noop()), Some(Signal::End(EndReason::Kicked)));
        talks.relays(Duration::from_mins(35));
        assert!(is_over(&talks), "a log-in does not undo it");
    }
}
