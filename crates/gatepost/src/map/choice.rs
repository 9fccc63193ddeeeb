//! From what is known of a user to a back end: a pure choice, the same on every node where administrators have decided the
//! same.

use crate::config::{self, MapRule, split_name, split_port};
use crate::directory::{Entry, Location};
use crate::rendezvous::score;

/// Where a user's mail is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A back end of the configuration.
    Named(String),
    /// A host that a directory names.
    Host { host: String, port: Option<u16> },
}

/// How a place came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    /// An administrator has moved the user.
    Moved,
    Directory,
    /// The rule of this number, the first being 1.
    Rule(usize),
    Spread,
    Default,
}

/// Why there is no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// Nobody knows the user, and nothing is said of such users.
    Unknown,
    /// A directory names a place that can't be used. The text is for the administrator.
    Refused(String),
}

/// What a choice must know beside the settings.
pub(super) struct Site<'a> {
    /// Whether the configuration has a back end of this name.
    pub(crate) is_backend: &'a dyn Fn(&str) -> bool,
    /// Whether it takes log-ins, as far as administrators have decided.
    pub(crate) takes: &'a dyn Fn(&str) -> bool,
    /// Where an administrator has moved this user.
    pub(crate) moved: Option<String>,
}

/// Where the mail of `user` is: where it was moved to, what the directory says, then the first rule, the spread, the
/// default.
pub(super) fn choose(
    settings: &config::Map,
    site: &Site<'_>,
    user: &str,
    entry: Option<&Entry>,
) -> Result<(Place, Reason), NoPlace> {
    // One that the configuration has no more is no place.
    if let Some(moved) = site.moved.as_ref().filter(|moved| (site.is_backend)(moved)) {
        return Ok((Place::Named(moved.clone()), Reason::Moved));
    }
    if let Some(Location { name, port }) = entry.and_then(|entry| entry.place.as_ref()) {
        if (site.is_backend)(name) {
            return Ok((Place::Named(name.clone()), Reason::Directory));
        }
        return named_host(settings, name, *port).map(|host| (host, Reason::Directory));
    }
    if let Some(n) = settings.rules.iter().position(|rule| applies(rule, user)) {
        return Ok((Place::Named(settings.rules[n].backend.clone()), Reason::Rule(n + 1)));
    }
    if let Some(name) = spread(&settings.spread.0, site.takes, user) {
        return Ok((Place::Named(name.to_owned()), Reason::Spread));
    }
    let default = settings.default.as_ref().ok_or(NoPlace::Unknown)?;
    Ok((Place::Named(default.clone()), Reason::Default))
}

fn named_host(settings: &config::Map, place: &str, port: Option<u16>) -> Result<Place, NoPlace> {
    let (host, named) =
        split_port(place).ok_or_else(|| NoPlace::Refused(format!("{place:?} is neither a back end nor a host")))?;
    // A port within the name goes before one that stands beside it.
    let port = named.or(port);
    if !settings.hosts.iter().any(|pattern| pattern.matches(host)) {
        let message =
            format!("{host:?} is no [backend.…] of the configuration, and `map.hosts` does not allow it as a host");
        return Err(NoPlace::Refused(message));
    }
    Ok(Place::Host { host: host.to_owned(), port })
}

fn applies(rule: &MapRule, user: &str) -> bool {
    let domain = rule.domain.as_ref();
    let is_in_domain = domain.is_none_or(|domain| split_name(user).1.is_some_and(|d| d.eq_ignore_ascii_case(domain)));
    is_in_domain && rule.pattern.as_ref().is_none_or(|pattern| pattern.0.is_match(user))
}

/// The one that draws best for the user, of those that take log-ins; where none does, of all.
fn spread<'s>(weights: &'s [(String, u32)], takes: &dyn Fn(&str) -> bool, user: &str) -> Option<&'s str> {
    let none_takes = !weights.iter().any(|(name, weight)| *weight > 0 && takes(name));
    let drawing = weights.iter().filter(|(name, weight)| *weight > 0 && (none_takes || takes(name)));
    let scored = drawing.map(|(name, weight)| (score(user, name, *weight), name));
    scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, name)| name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// The map of a file that has this in `[map]`, and the back ends `a` to `d`.
    fn map(text: &str) -> config::Map {
        let backends: String =
            ["a", "b", "c", "d"].map(|name| format!("[backend.{name}]\nhost = \"127.0.0.1\"\n")).concat();
        let file = format!("[imap]\n[imap.backend]\ntls = \"none\"\n[map]\n{text}\n{backends}");
        let draft = config::parse(std::path::Path::new("gatepost.toml"), &file).expect("TOML");
        draft.sound().expect("a sound configuration").config.map
    }

    fn placed(
        map: &config::Map,
        moved: Option<&str>,
        user: &str,
        entry: Option<&Entry>,
    ) -> Result<(Place, Reason), NoPlace> {
        let is_backend = |name: &str| ["a", "b", "c", "d"].contains(&name);
        let site = Site { is_backend: &is_backend, takes: &|_| true, moved: moved.map(str::to_owned) };
        choose(map, &site, user, entry)
    }

    fn at(place: &str, port: Option<u16>) -> Entry {
        Entry { place: Some(Location { name: place.to_owned(), port }), ..Entry::default() }
    }

    fn named(name: &str, reason: Reason) -> (Place, Reason) {
        (Place::Named(name.to_owned()), reason)
    }

    #[test]
    fn the_first_that_says_something_places_the_user() {
        let rules = "[[map.rule]]\ndomain = \"example.org\"\nbackend = \"b\"";
        let whole = map(&format!("default = \"d\"\n{rules}"));
        let (kim, entry) = ("kim@example.org", at("a", None));
        assert_eq!(placed(&whole, Some("c"), kim, Some(&entry)), Ok(named("c", Reason::Moved)));
        assert_eq!(placed(&whole, Some("gone"), kim, Some(&entry)), Ok(named("a", Reason::Directory)));
        assert_eq!(placed(&whole, None, kim, Some(&Entry::default())), Ok(named("b", Reason::Rule(1))));
        assert_eq!(placed(&whole, None, "kim@example.com", None), Ok(named("d", Reason::Default)));
        let spread = map(&format!("spread = {{ c = 1 }}\n{rules}"));
        assert_eq!(placed(&spread, None, kim, None), Ok(named("b", Reason::Rule(1))));
        assert_eq!(placed(&spread, None, "kim", None), Ok(named("c", Reason::Spread)));
        assert_eq!(placed(&map(rules), None, "kim", None), Err(NoPlace::Unknown));
    }

    #[test]
    fn a_rule_fits_by_domain_by_pattern_and_by_both() {
        let rules = map("[[map.rule]]\ndomain = \"example.org\"\nmatch = \"[a-m].*\"\nbackend = \"a\"\n\
             [[map.rule]]\ndomain = \"example.org\"\nbackend = \"b\"\n[[map.rule]]\nmatch = \"info@.*\"\nbackend = \"c\"");
        for (user, place) in [
            ("kim@example.org", Ok(named("a", Reason::Rule(1)))),
            ("kim@EXAMPLE.ORG", Ok(named("a", Reason::Rule(1)))),
            ("noa@example.org", Ok(named("b", Reason::Rule(2)))),
            ("info@example.com", Ok(named("c", Reason::Rule(3)))),
            ("kim@example.com", Err(NoPlace::Unknown)),
            ("kim", Err(NoPlace::Unknown)),
        ] {
            assert_eq!(placed(&rules, None, user, None), place, "{user}");
        }
    }

    #[test]
    fn a_directory_may_name_hosts_that_are_allowed_and_no_others() {
        let map = map("default = \"a\"\nhosts = [\"10.0.0.0/8\", \"*.store.example.org\"]");
        for (place, host) in [
            (at("10.1.2.3", Some(1143)), Some(("10.1.2.3", Some(1143)))),
            (at("x.store.example.org:993", Some(143)), Some(("x.store.example.org", Some(993)))),
            (at("192.0.2.1", None), None),
            (at("store.example.com", None), None),
            (at("no host", None), None),
        ] {
            let found = placed(&map, None, "kim", Some(&place));
            match host {
                Some((host, port)) => {
                    assert_eq!(found, Ok((Place::Host { host: host.to_owned(), port }, Reason::Directory)));
                }
                None => assert!(matches!(found, Err(NoPlace::Refused(_))), "{place:?}: {found:?}"),
            }
        }
    }

    fn weights(of: &[(&str, u32)]) -> Vec<(String, u32)> {
        of.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
    }

    fn shares(weights: &[(String, u32)]) -> HashMap<String, usize> {
        let mut shares = HashMap::new();
        for n in 0..10_000 {
            let name = spread(weights, &|_| true, &format!("user{n}")).expect("a back end");
            *shares.entry(name.to_owned()).or_default() += 1;
        }
        shares
    }

    #[test]
    fn users_are_spread_by_weight() {
        let shares = shares(&weights(&[("a", 1), ("b", 2), ("c", 1), ("none", 0)]));
        assert!((2300..2700).contains(&shares["a"]) && (4700..5300).contains(&shares["b"]), "{shares:?}");
        assert!(!shares.contains_key("none"));
    }

    #[test]
    fn a_new_back_end_takes_only_its_own_users() {
        let (before, after) = (weights(&[("a", 1), ("b", 1)]), weights(&[("c", 1), ("b", 1), ("a", 1)]));
        let mut moved = 0;
        for n in 0..3000 {
            let user = format!("user{n}");
            let (old, new) = (spread(&before, &|_| true, &user), spread(&after, &|_| true, &user));
            if old != new {
                assert_eq!(new, Some("c"));
                moved += 1;
            }
        }
        assert!((900..1100).contains(&moved), "{moved}");
    }

    #[test]
    fn who_would_come_to_one_that_takes_no_log_ins_goes_elsewhere_and_nobody_else_moves() {
        let backends = weights(&[("a", 1), ("b", 1), ("c", 1)]);
        for n in 0..1000 {
            let user = format!("user{n}");
            let (usual, now) = (spread(&backends, &|_| true, &user), spread(&backends, &|name| name != "b", &user));
            assert!(if usual == Some("b") { now != usual && now.is_some() } else { now == usual });
            assert_eq!(spread(&backends, &|_| false, &user), usual, "somebody must say that there is no service");
        }
    }

    #[test]
    fn one_without_weight_takes_nobody_even_where_no_other_takes_log_ins() {
        let backends = weights(&[("a", 1), ("none", 0)]);
        assert_eq!(spread(&backends, &|name| name == "none", "kim"), Some("a"));
    }

    #[test]
    fn a_users_place_never_changes_by_itself() {
        // Written down, since all nodes and versions must agree.
        let backends = weights(&[("store-a", 1), ("store-b", 1), ("store-c", 2)]);
        let placed: Vec<_> =
            ["kim", "lee", "max", "noa"].map(|user| spread(&backends, &|_| true, user).unwrap_or("")).into();
        assert_eq!(placed, ["store-c", "store-c", "store-c", "store-a"]);
    }
}
