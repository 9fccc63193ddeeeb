//! What is measured, and what is to be reached.

use serde_json::Value;

use super::peers::Peer;

/// Which connections of a session are under TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leg {
    Plain,
    /// The client's, and not the back end's.
    Tls,
    Both,
}

/// One figure.
pub(super) struct Measure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    /// Where it stands in what the load generator says, with dots.
    key: &'static str,
    pub(super) is_more_better: bool,
    pub(super) goal: Goal,
}

/// What Gatepost should reach.
#[derive(Clone, Copy)]
pub(super) enum Goal {
    None,
    /// So many times `HAProxy`'s figure, which speaks no protocol at all.
    OfHaproxy(f64),
    /// So many times the figure of the best peer.
    OfBest(f64),
    /// As it stands.
    Absolute(f64),
}

impl Measure {
    pub(super) fn read(&self, said: &Value) -> Option<f64> {
        self.key.split('.').try_fold(said, |value, key| value.get(key))?.as_f64()
    }
}

/// One run of the load generator, which gives one figure or several.
pub(super) struct Run {
    pub(super) leg: Leg,
    command: &'static str,
    numbers: Vec<(&'static str, u32)>,
    flags: &'static [&'static str],
    pub(super) measures: &'static [Measure],
}

impl Run {
    /// Whether this run can be asked of a peer.
    pub(super) fn fits(&self, peer: &Peer) -> bool {
        let clients = self.numbers.iter().any(|(name, _)| ["--clients", "--idle"].contains(name));
        (self.command == "relay" || !peer.is_relay_only) && (!clients || peer.sessions_max.is_none())
    }

    /// The load generator's arguments, within what the peer can take.
    pub(super) fn arguments(&self, peer: &Peer) -> Vec<String> {
        let mut words = vec![self.command.to_owned()];
        for &(name, number) in &self.numbers {
            let number = match (name, peer.sessions_max) {
                ("--to-sessions", Some(max)) => number.min(max),
                ("--from", Some(max)) => number.min(max / 3),
                _ => number,
            };
            words.extend([name.to_owned(), number.to_string()]);
        }
        words.extend(self.flags.iter().map(|&flag| flag.to_owned()));
        words
    }
}

macro_rules! measures {
    ($($name:ident: $($text:literal, $unit:literal, $key:literal, $better:ident, $goal:expr;)+)*) => {
        $(static $name: &[Measure] = &[$(Measure {
            name: $text, unit: $unit, key: $key, is_more_better: measures!($better), goal: $goal,
        }),+];)*
    };
    (more) => { true };
    (less) => { false };
}

use Goal::{Absolute, None as NoGoal, OfBest, OfHaproxy};

measures! {
    LOGINS_PLAIN:
        "log-ins, plain", "per CPU-second", "per_cpu_second", more, OfHaproxy(1.2);
        "log-ins, plain, rate", "per second", "per_second", more, NoGoal;
        "log-ins, plain, p99", "ms", "ms.p99", less, NoGoal;
    LOGINS_TLS:
        "log-ins, TLS 1.3 full", "per CPU-second", "per_cpu_second", more, OfHaproxy(2.8);
        "log-ins, TLS 1.3 full, rate", "per second", "per_second", more, NoGoal;
        "log-ins, TLS 1.3 full, p99", "ms", "ms.p99", less, NoGoal;
    LOGINS_RESUMED:
        "log-ins, TLS 1.3 resumed", "per CPU-second", "per_cpu_second", more, OfHaproxy(2.5);
        "log-ins, TLS 1.3 resumed, rate", "per second", "per_second", more, NoGoal;
        "log-ins, TLS 1.3 resumed, of them truly resumed", "share", "resumed_share", more, NoGoal;
    LOGINS_BOTH:
        "log-ins, TLS on both legs", "per CPU-second", "per_cpu_second", more, NoGoal;
        "log-ins, TLS on both legs, rate", "per second", "per_second", more, NoGoal;
    RELAY_PLAIN_LARGE: "relay 1 MiB, plain", "CPU-s per GB", "cpu_seconds_per_gb", less, OfHaproxy(0.6);
    RELAY_TLS_LARGE: "relay 1 MiB, TLS", "CPU-s per GB", "cpu_seconds_per_gb", less, OfHaproxy(0.65);
    RELAY_PLAIN_SMALL: "relay 16 KiB, plain", "CPU-s per GB", "cpu_seconds_per_gb", less, OfHaproxy(0.55);
    RELAY_TLS_SMALL: "relay 16 KiB, TLS", "CPU-s per GB", "cpu_seconds_per_gb", less, OfHaproxy(0.7);
    RELAY_PLAIN_MANY:
        "relay 16 KiB, plain, 32 sessions at once", "CPU-s per GB", "cpu_seconds_per_gb", less, OfHaproxy(0.55);
    RELAY_TLS_MANY:
        "relay 16 KiB, TLS, 32 sessions at once", "CPU-s per GB", "cpu_seconds_per_gb", less, OfHaproxy(0.7);
    IDLE_PLAIN:
        "idle session, plain", "KiB", "kib_per_session", less, OfHaproxy(0.5);
        "memory after a burst, plain, of before", "times", "after_burst", less, Absolute(1.2);
        "all idle sessions at rest, plain", "CPU-ms per second", "cpu_ms_per_second_at_rest", less, NoGoal;
    IDLE_TLS:
        "idle session, TLS", "KiB", "kib_per_session", less, OfHaproxy(0.33);
        "memory after a burst, TLS, of before", "times", "after_burst", less, Absolute(1.2);
    IDLE_BOTH: "idle session, TLS on both legs", "KiB", "kib_per_session", less, Absolute(10.0);
    IDLE_FETCHED: "idle session, TLS, after a FETCH of 1 MiB", "KiB", "kib_per_session", less, NoGoal;
    NOOP_PLAIN:
        "NOOP, plain", "CPU-µs", "cpu_us", less, OfBest(1.05);
        "NOOP, plain, p50", "µs", "us.p50", less, NoGoal;
        "NOOP, plain, p99", "µs", "us.p99", less, OfBest(1.05);
        "NOOP, plain, p999", "µs", "us.p999", less, NoGoal;
    NOOP_TLS:
        "NOOP, TLS", "CPU-µs", "cpu_us", less, OfBest(1.05);
        "NOOP, TLS, p99", "µs", "us.p99", less, OfBest(1.05);
    NOOP_BESIDE:
        "NOOP, plain, beside 9,000 idle", "CPU-µs", "cpu_us", less, OfBest(1.05);
        "NOOP, plain, beside 9,000 idle, p99", "µs", "us.p99", less, OfBest(1.05);
        "NOOP, plain, beside 9,000 idle, p999", "µs", "us.p999", less, NoGoal;
    STORM:
        "9,000 clients come back at once, TLS", "s", "seconds", less, NoGoal;
        "9,000 clients come back at once, TLS, refused on the way", "times", "errors", less, NoGoal;
}

/// Measured without the load generator.
pub(super) static START: Measure =
    Measure { name: "start to first greeting", unit: "ms", key: "", is_more_better: false, goal: OfBest(1.0) };
pub(super) static START_WITH_USERS: Measure = Measure {
    name: "start to first greeting, 20,000 users in the map",
    unit: "ms",
    key: "",
    is_more_better: false,
    goal: NoGoal,
};

/// Everything that is asked of every proxy.
pub(super) fn runs(quick: bool) -> Vec<Run> {
    let few = |full: u32| if quick { full / 50 } else { full };
    let logins = |leg, count, flags, measures| Run {
        leg,
        command: "logins",
        numbers: vec![("--count", few(count)), ("--concurrency", 8), ("--seconds", 4)],
        flags,
        measures,
    };
    let relay = |leg, size, count, sessions, measures| Run {
        leg,
        command: "relay",
        numbers: vec![("--size", size), ("--count", few(count)), ("--sessions", sessions), ("--seconds", 5)],
        flags: &[],
        measures,
    };
    let idle = |leg, fetch, settle, measures| Run {
        leg,
        command: "idle",
        numbers: vec![
            ("--from", few(1000)),
            ("--to-sessions", few(9000)),
            ("--fetch", fetch),
            ("--rest", if quick { 0 } else { 2 }),
            ("--settle", if quick { 0 } else { settle }),
        ],
        flags: &[],
        measures,
    };
    let noop = |leg, count, idle, measures| Run {
        leg,
        command: "noop",
        numbers: [("--count", few(count))].into_iter().chain((idle > 0).then(|| ("--idle", few(idle)))).collect(),
        flags: &[],
        measures,
    };
    vec![
        logins(Leg::Plain, 10_000, &[], LOGINS_PLAIN),
        logins(Leg::Tls, 4000, &[], LOGINS_TLS),
        logins(Leg::Tls, 4000, &["--resume"], LOGINS_RESUMED),
        logins(Leg::Both, 3000, &[], LOGINS_BOTH),
        relay(Leg::Plain, 1 << 20, 4000, 1, RELAY_PLAIN_LARGE),
        relay(Leg::Tls, 1 << 20, 2000, 1, RELAY_TLS_LARGE),
        relay(Leg::Plain, 16 << 10, 20_000, 1, RELAY_PLAIN_SMALL),
        relay(Leg::Tls, 16 << 10, 20_000, 1, RELAY_TLS_SMALL),
        relay(Leg::Plain, 16 << 10, 60_000, 32, RELAY_PLAIN_MANY),
        relay(Leg::Tls, 16 << 10, 60_000, 32, RELAY_TLS_MANY),
        idle(Leg::Plain, 0, 5, IDLE_PLAIN),
        idle(Leg::Tls, 0, 5, IDLE_TLS),
        idle(Leg::Both, 0, 0, IDLE_BOTH),
        idle(Leg::Tls, 1 << 20, 0, IDLE_FETCHED),
        noop(Leg::Plain, 20_000, 0, NOOP_PLAIN),
        noop(Leg::Tls, 20_000, 0, NOOP_TLS),
        noop(Leg::Plain, 20_000, 9000, NOOP_BESIDE),
        Run { leg: Leg::Tls, command: "storm", numbers: vec![("--clients", few(9000))], flags: &[], measures: STORM },
    ]
}
