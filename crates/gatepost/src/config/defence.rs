//! Defence against guessing, as the configuration describes it.

use std::time::Duration;

use super::networks::Network;
use super::reader::Table;

section! {
    pub(crate) struct Defence: "defence", "[defence]", "Against guessing, if this section stands in the file: failed log-ins are slowed, then refused, for an address (IPv6: one /64), a user, and both together. Whoever logged in from an address within 30 days is only held to their own failures there.";
    failures_per_ip: u32 = 30, "Within `window` from one address; then it is banned.";
    failures_per_user: u32 = 30, "Within `window` for one user, from everywhere; then the user's log-ins from new places are refused.";
    window: Duration = "10m", "How far back failures count.";
    delay: Duration = "15s", "What the delay of a log-in grows to, from one second after two failures.";
    ban: Duration = "1h", "How long an address is banned.";
    exempt: Vec<Network> = [], "Addresses that are never counted, delayed or banned: webmail hosts, probes.";
    => check;
}

fn check(read: &Defence, table: &Table<'_>) {
    for (key, max) in
        [(&Defence::failures_per_ip, read.failures_per_ip), (&Defence::failures_per_user, read.failures_per_user)]
    {
        if max == 0 {
            table.problem_with(key, "is at least 1: the first failure would lock everybody out");
        }
    }
    table.more_than_nothing(&Defence::window, read.window);
}
