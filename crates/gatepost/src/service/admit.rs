//! May this connection be served? Bans first, then access rules, then flow control; the slots it takes are its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use gatepost_wire::Refusal;

use super::Session;
use super::access::Rules;
use crate::config::{AccessRule, Action, Network};
use crate::ledger::{Exceeded, Ledger, Scope, Slots};
use crate::metrics::Rejection;
use crate::net::stream::Scratch;
use crate::story::Ended;

/// The access rules of one level: global, of a service, or of a listener.
#[derive(Debug, Default)]
pub(crate) struct AccessLevel {
    rules: Rules,
    decisions: Vec<Decision>,
}

/// What a rule says of those it is about.
#[derive(Debug)]
enum Decision {
    Deny { rule: Arc<str> },
    Allow,
    AllowWithin(Scope),
}

/// Why a connection is turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TurnedAway {
    /// This rule denies it.
    Denied { rule: Arc<str> },
    /// An administrator has banned this network.
    Banned(Network),
    /// It has guessed passwords.
    Guessing,
    /// This limit is reached.
    Limited(Exceeded),
}

impl TurnedAway {
    fn counted_as(&self) -> Rejection {
        match self {
            Self::Denied { .. } => Rejection::Access,
            Self::Banned(_) => Rejection::Ban,
            Self::Guessing => Rejection::Guessing,
            Self::Limited(_) => Rejection::Limit,
        }
    }

    /// What the client is told.
    fn refusal(&self) -> Refusal {
        match self {
            Self::Denied { .. } | Self::Banned(_) => Refusal::Forbidden,
            Self::Guessing => Refusal::Guessing,
            Self::Limited(_) => Refusal::TooMany,
        }
    }
}

/// What the log says.
impl std::fmt::Display for TurnedAway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied { rule } => write!(f, "denied by {rule}"),
            Self::Banned(network) => write!(f, "denied by the ban of {network}"),
            Self::Guessing => f.write_str("banned for guessing"),
            Self::Limited(Exceeded { limit, max, scope }) => write!(f, "{limit} {max} of {scope}"),
        }
    }
}

impl AccessLevel {
    /// Compiles the rules of a level.
    pub(crate) fn new(rules: &[AccessRule]) -> Self {
        let decision = |rule: &AccessRule| match &rule.action {
            Action::Deny => Decision::Deny { rule: rule.name.as_str().into() },
            Action::Allow => Decision::Allow,
            Action::AllowWithin { limits, counted_as } => {
                Decision::AllowWithin(Scope { name: counted_as.as_str().into(), limits: *limits })
            }
        };
        Self { rules: Rules::new(rules), decisions: rules.iter().map(decision).collect() }
    }
}

/// Admits a connection from `address` and takes its slots, or says why not.
///
/// The first of `levels` with a matching rule decides; the most specific comes first. No match: allowed.
fn admit(
    levels: &[&AccessLevel],
    scopes: &[&Scope],
    ledger: &Arc<Ledger>,
    address: IpAddr,
    now: Instant,
) -> Result<Slots, TurnedAway> {
    let deciding =
        levels.iter().find_map(|level| level.rules.deciding(address).and_then(|rule| level.decisions.get(rule)));
    let limited = match deciding {
        Some(Decision::Deny { rule }) => return Err(TurnedAway::Denied { rule: Arc::clone(rule) }),
        Some(Decision::AllowWithin(scope)) => Some(scope),
        Some(Decision::Allow) | None => None,
    };
    ledger.take(scopes.iter().copied().chain(limited), address, now).map_err(TurnedAway::Limited)
}

impl Session {
    /// Bans, access rules, flow control.
    pub(super) fn admit(&self) -> Result<Slots, TurnedAway> {
        let (listener, address, now) = (&self.snapshot.listener, self.address.ip(), Instant::now());
        if let Some(network) = self.shared.overrides.ban_of(address) {
            return Err(TurnedAway::Banned(network));
        }
        if let Some(settings) = &self.snapshot.defence
            && self.shared.defence.bans(settings, address, now)
        {
            return Err(TurnedAway::Guessing);
        }
        let levels = [&listener.access, &listener.service.access, &self.snapshot.access];
        let scopes = [&listener.scope, &listener.service.scope];
        admit(&levels, &scopes, &self.shared.ledger, address, now)
    }

    /// Says so in clear where the client could read it; a client of implicit TLS just sees the end.
    pub(super) fn turn_away(&mut self, turned_away: &TurnedAway) {
        self.reject(turned_away.counted_as());
        if !self.snapshot.listener.tls.is_implicit() {
            let words = (self.service().settings.protocol.turned_away)(turned_away.refusal());
            let _ = Scratch::with(|scratch| self.client.send(words, true, &mut scratch.outgoing));
        }
        self.client.close();
        self.story().finish(&self.shared.log, &Ended::TurnedAway(turned_away.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Action::{Allow, AllowWithin, Deny};
    use crate::config::Limits;

    fn level(rules: &[(&str, Action)]) -> AccessLevel {
        let rule = |(n, (network, action)): (usize, &(&str, Action))| AccessRule {
            name: format!("rule {n}"),
            networks: vec![Network::parse(network).expect("a network")],
            priority: 1,
            action: action.clone(),
        };
        AccessLevel::new(&rules.iter().enumerate().map(rule).collect::<Vec<_>>())
    }

    #[test]
    fn the_most_specific_level_with_a_match_decides() {
        let ledger = Arc::default();
        let listener = level(&[("10.1.0.0/16", Allow)]);
        let service = level(&[("10.0.0.0/8", Deny), ("192.0.2.0/24", Allow)]);
        let global = level(&[("192.0.0.0/8", Deny)]);
        let admits = |address: &str| {
            let address = address.parse().expect("an address");
            admit(&[&listener, &service, &global], &[], &ledger, address, Instant::now()).is_ok()
        };
        assert!(admits("10.1.0.1"), "the listener overrides the service");
        assert!(!admits("10.2.0.1"), "the service denies");
        assert!(admits("192.0.2.1"), "the service overrides all");
        assert!(!admits("192.0.3.1"), "all are denied");
        assert!(admits("203.0.113.1"), "nothing matches");
    }

    #[test]
    fn a_rules_limits_hold_for_the_whole_and_for_each_address() {
        let ledger: Arc<Ledger> = Arc::default();
        let limits = Limits { connections: Some(3), connections_per_ip: Some(2), ..Limits::NONE };
        let service = level(&[("10.0.0.0/8", AllowWithin { limits, counted_as: "all".into() })]);
        let take = |n: u8| admit(&[&service], &[], &ledger, IpAddr::from([10, 0, 0, n]), Instant::now());
        let held = [take(1), take(1)];
        let limit = |result: Result<Slots, TurnedAway>| match result {
            Err(TurnedAway::Limited(exceeded)) => exceeded.limit,
            other => panic!("{other:?}"),
        };
        assert_eq!(limit(take(1)), "connections_per_ip");
        let third = take(2).expect("the third");
        assert_eq!(limit(take(3)), "connections");
        drop(held);
        assert!(take(3).is_ok());
        drop(third);
    }

    #[test]
    fn the_log_says_who_turned_a_client_away() {
        let network = Network::parse("10.0.0.0/8").expect("a network");
        for (turned_away, words) in [
            (TurnedAway::Denied { rule: "imap rule 1".into() }, "denied by imap rule 1"),
            (TurnedAway::Banned(network), "denied by the ban of 10.0.0.0/8"),
            (TurnedAway::Guessing, "banned for guessing"),
            (
                TurnedAway::Limited(Exceeded { limit: "connections", max: 3, scope: "imap".into() }),
                "connections 3 of imap",
            ),
        ] {
            assert_eq!(turned_away.to_string(), words);
        }
    }
}
