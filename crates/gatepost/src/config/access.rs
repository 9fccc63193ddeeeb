//! Who may connect, and how often, as the configuration describes it.

use std::time::Duration;

use super::networks::Network;
use super::reader::Table;
use super::section::{Key, Written};

/// Lets a set of addresses in, or keeps them out.
#[derive(Debug, Clone)]
pub(crate) struct AccessRule {
    /// Where it stands in the file, for logs.
    pub(crate) name: String,
    pub(crate) networks: Vec<Network>,
    /// The lowest number wins.
    pub(crate) priority: i64,
    pub(crate) action: Action,
}

/// What an access rule does with those it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Deny,
    Allow,
    /// As many are let in as fit these limits.
    AllowWithin {
        limits: Limits,
        /// The rule itself, wherever a reload finds it in the file.
        counted_as: String,
    },
}

section! {
    pub(super) struct AccessSettings: "access", "[[access]]", "Who may connect. The most specific level with a matching rule decides: listener, service, all. Without a match: allowed.";
    allow: Option<Vec<Network>>, "Networks, ranges or addresses that are let in.";
    deny: Option<Vec<Network>>, "Networks, ranges or addresses that are refused. A rule has `allow` or `deny`.";
    priority: i64 = 100, "The lowest number wins; at equal priority deny, then the longest prefix.";
    [limits]: Limits;
}

section! {
    ///
    /// `None`: no limit.
    #[derive(Copy, PartialEq, Eq)]
    pub(crate) struct Limits: "limits", "[imap.limits]", "Flow control; a connection must fit all limits that apply to it. The same table may stand in a listener and in an access rule.";
    connections: Option<u32>, "At once.";
    connections_per_ip: Option<u32>, "At once from one address (IPv6: one /64).";
    new_connections: Option<u32>, "New ones within `interval`.";
    new_connections_per_ip: Option<u32>, "New ones within `interval` from one address.";
    interval: Duration = "1m", "The interval of the two settings above, at most a day.";
    => check_limits;
}

impl Limits {
    /// Nothing is limited.
    pub(crate) const NONE: Self = Self {
        connections: None,
        connections_per_ip: None,
        new_connections: None,
        new_connections_per_ip: None,
        interval: Duration::from_mins(1),
    };
}

/// The rules of a table; `level` is what it is about, for logs.
pub(super) fn read_access(parent: &Table<'_>, level: &str) -> Vec<AccessRule> {
    let rules = parent.each(AccessSettings::SECTION, |n, table| {
        let AccessSettings { allow, deny, priority, limits } = AccessSettings::read(table)?;
        if [&allow, &deny].into_iter().flatten().any(Vec::is_empty) {
            table.problem("names no network");
        }
        let (networks, action) = match (allow, deny) {
            (Some(networks), None) if limits == Limits::NONE => (networks, Action::Allow),
            (Some(networks), None) => {
                let list = networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                (networks, Action::AllowWithin { limits, counted_as: format!("{level} {priority} {list}") })
            }
            (None, Some(networks)) => {
                if limits != Limits::NONE {
                    table.problem("limits go with `allow`: what is denied can't be limited");
                }
                (networks, Action::Deny)
            }
            _ => {
                table.problem("an access rule has either `allow` or `deny`");
                return None;
            }
        };
        Some(AccessRule { name: format!("{level} rule {}", n + 1), networks, priority, action })
    });
    rules.into_iter().flatten().collect()
}

fn check_limits(read: &Limits, table: &Table<'_>) {
    check_counted_within(table, &Limits::interval, read.interval);
}

/// The time within which something is counted.
pub(super) fn check_counted_within(table: &Table<'_>, key: &Key<Duration>, interval: Duration) {
    if interval.is_zero() || interval > Duration::from_hours(24) {
        table.problem_with(key, "is more than nothing and at most one day");
    }
}
