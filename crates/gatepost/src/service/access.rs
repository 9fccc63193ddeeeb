//! Access rules: may this address connect, and which rule says so?

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::{AccessRule, Action, Network};

/// The rules of one level, compiled: a sorted list of the points at which the deciding rule changes,
/// so that a list of 100,000 networks costs one binary search.
#[derive(Debug, Default)]
pub(super) struct Rules {
    v4: Vec<Change>,
    v6: Vec<Change>,
}

/// From `first` on, until the next change, this rule decides; `None`: none does.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    first: u128,
    rule: Option<usize>,
}

/// A rule's network, ordered by precedence: the smallest wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    priority: i64,
    /// At equal priority deny wins: `false` sorts first.
    allow: bool,
    /// Then the longest prefix.
    free_bits: u32,
    /// Then the one written first.
    rule: usize,
    first: u128,
    /// Two that begin alike are two: of ranges that are no networks, one may hold the other.
    last: u128,
}

impl Rules {
    /// Compiles a level's rules.
    pub(super) fn new(rules: &[AccessRule]) -> Self {
        let claims = |v4: bool| {
            let of_rule = move |(index, rule): (usize, &'_ AccessRule)| {
                let claim = move |network: &Network, allow: bool, priority: i64| {
                    let free_bits = 128 - network.prefix_length();
                    let (first, last) = (number(network.first), number(network.last));
                    Range { priority, allow, free_bits, rule: index, first, last }
                };
                let networks = rule.networks.iter().filter(move |network| network.first.is_ipv4() == v4);
                networks.map(|network| claim(network, rule.action != Action::Deny, rule.priority)).collect::<Vec<_>>()
            };
            rules.iter().enumerate().flat_map(of_rule).collect::<Vec<_>>()
        };
        Self { v4: sweep(&claims(true)), v6: sweep(&claims(false)) }
    }

    /// The index of the rule that decides about `address`, if any does.
    pub(super) fn deciding(&self, address: IpAddr) -> Option<usize> {
        let address = address.to_canonical();
        let changes = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let next = changes.partition_point(|change| change.first <= number(address));
        changes.get(next.checked_sub(1)?)?.rule
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Walks over the points where claims begin and end, keeping those in force in order.
fn sweep(claims: &[Range]) -> Vec<Change> {
    let mut points: Vec<(u128, bool, Range)> = Vec::with_capacity(claims.len() * 2);
    for &claim in claims {
        points.push((claim.first, true, claim));
        // A claim that reaches the very last address never ends.
        points.extend(claim.last.checked_add(1).map(|end| (end, false, claim)));
    }
    points.sort_unstable();
    let mut in_force = BTreeSet::new();
    let mut changes: Vec<Change> = Vec::new();
    for group in points.chunk_by(|a, b| a.0 == b.0) {
        for &(_, begins, claim) in group {
            if begins {
                in_force.insert(claim);
            } else {
                in_force.remove(&claim);
            }
        }
        let rule = in_force.first().map(|claim| claim.rule);
        if changes.last().and_then(|change| change.rule) != rule {
            changes.push(Change { first: group[0].0, rule });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(networks: &[&str], allow: bool, priority: i64) -> AccessRule {
        let networks = networks.iter().map(|text| Network::parse(text).expect("a network")).collect();
        let action = if allow { Action::Allow } else { Action::Deny };
        AccessRule { name: String::new(), networks, priority, action }
    }

    fn deciding(rules: &[AccessRule], address: &str) -> Option<usize> {
        Rules::new(rules).deciding(address.parse().expect("an address"))
    }

    #[test]
    fn the_lowest_priority_wins_then_deny_then_the_longest_prefix() {
        let rules = [rule(&["10.0.0.0/8"], false, 10), rule(&["10.1.0.0/16"], true, 5)];
        assert_eq!(deciding(&rules, "10.1.2.3"), Some(1));
        assert_eq!(deciding(&rules, "10.2.2.3"), Some(0));
        let rules = [rule(&["10.0.0.0/16"], true, 5), rule(&["10.0.0.0/8"], false, 5)];
        assert_eq!(deciding(&rules, "10.0.0.1"), Some(1), "deny, though its prefix is shorter");
        let rules = [rule(&["10.0.0.0/8"], true, 5), rule(&["10.0.0.5-10.0.0.9"], true, 5)];
        assert_eq!(deciding(&rules, "10.0.0.7"), Some(1));
        assert_eq!(deciding(&rules, "10.0.0.10"), Some(0));
    }

    #[test]
    fn the_edges_of_ranges_and_families() {
        let rules = [rule(&["10.0.0.5-10.0.0.9", "255.255.255.255", "::1"], false, 5)];
        for (address, found) in [
            ("10.0.0.4", None),
            ("10.0.0.5", Some(0)),
            ("10.0.0.9", Some(0)),
            ("10.0.0.10", None),
            ("255.255.255.255", Some(0)),
            ("::1", Some(0)),
            ("::2", None),
            ("::ffff:10.0.0.6", Some(0)),
        ] {
            assert_eq!(deciding(&rules, address), found, "{address}");
        }
        let alike = [rule(&["10.0.0.0-10.0.0.4", "10.0.0.0/29"], false, 5)];
        assert_eq!(deciding(&alike, "10.0.0.6"), Some(0), "the end of one range is not that of the other");
        let everything = [rule(&["::/0"], false, 5)];
        assert_eq!(deciding(&everything, "10.0.0.1"), None, "IPv4 is not IPv6");
        assert_eq!(deciding(&everything, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), Some(0));
    }

    proptest! {
        /// The compiled rules decide as asking every rule in turn would.
        #[test]
        fn compiled_rules_agree_with_a_plain_search(
            rules in proptest::collection::vec((any::<[u8; 2]>(), any::<[u8; 2]>(), any::<bool>(), 0..3_i64), 0..12),
            address in any::<u8>(),
        ) {
            let text = |[a, b]: [u8; 2]| format!("10.0.0.{}-10.0.0.{}", a.min(b), a.max(b));
            let rules: Vec<_> = rules
                .into_iter()
                .map(|(one, other, allow, priority)| rule(&[&text(one), &text(other)], allow, priority))
                .collect();
            let address = IpAddr::from([10, 0, 0, address]);
            let claims = rules.iter().enumerate().flat_map(|(index, rule)| {
                let of_rule = move |network: &Network| {
                    (rule.priority, rule.action == Action::Allow, 128 - network.prefix_length(), index)
                };
                rule.networks.iter().filter(|network| network.contains(address)).map(of_rule).collect::<Vec<_>>()
            });
            let plain = claims.min().map(|(.., index)| index);
            prop_assert_eq!(Rules::new(&rules).deciding(address), plain);
        }
    }
}
