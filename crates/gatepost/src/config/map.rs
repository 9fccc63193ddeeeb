//! The map as the configuration describes it, and how users' names are completed.

use std::time::Duration;

use super::directory::Directories;
use super::is_host;
use super::networks::HostPattern;
use super::reader::Table;
use super::settings as at;
use super::template::split;
use super::values::{Delimiter, Pairs, Pattern, Weights};

/// Which user's mail is where.
#[derive(Debug, Clone)]
pub(crate) struct Map {
    pub(crate) directories: Vec<String>,
    pub(crate) rules: Vec<MapRule>,
    /// Back ends by weight.
    pub(crate) spread: Vec<(String, u32)>,
    pub(crate) default: Option<String>,
    pub(crate) names: Names,
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) hold_time: Duration,
    pub(crate) cache: Cache,
}

/// Places users by their names.
#[derive(Debug, Clone)]
pub(crate) struct MapRule {
    pub(crate) domain: Option<String>,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) backend: String,
}

/// How user names are completed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) fold_case: bool,
    pub(crate) domain: Option<String>,
    /// What divides a name from a detail.
    pub(crate) detail: Option<char>,
    /// Domains that are taken off; `*`: any.
    pub(crate) strip_domains: Vec<String>,
    /// Other names, and what they stand for.
    pub(crate) aliases: Vec<(String, String)>,
}

impl Names {
    /// The name under which a user is looked up, logged and logged in.
    pub(crate) fn canonical(&self, user: &str) -> String {
        let name = self.completed(user);
        match self.aliases.iter().find(|(alias, _)| *alias == name) {
            Some((_, meant)) => meant.clone(),
            None => name,
        }
    }

    /// As that, but for aliases, which stand for themselves.
    pub(crate) fn completed(&self, user: &str) -> String {
        let mut name = match self.fold_case {
            true if user.is_ascii() => user.to_ascii_lowercase(),
            true => user.to_lowercase(),
            false => user.to_owned(),
        };
        if self.detail.is_some() || !self.strip_domains.is_empty() {
            name = self.shortened(&name);
        }
        if let Some(domain) = self.domain.as_ref().filter(|_| !name.contains('@')) {
            name.push('@');
            name.push_str(domain);
        }
        name
    }

    /// Without a detail, and without a domain that says nothing.
    fn shortened(&self, name: &str) -> String {
        let (local, domain) = split(name);
        let domain = domain.filter(|domain| {
            !self.strip_domains.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(domain))
        });
        // A name that begins with the divider has no detail; it would leave nobody.
        let end = self.detail.and_then(|divider| local.find(divider)).filter(|&at| at > 0);
        let local = &local[..end.unwrap_or(local.len())];
        domain.map_or_else(|| local.to_owned(), |domain| format!("{local}@{domain}"))
    }
}

/// How long directories' answers are remembered. Zero: not at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cache {
    pub(crate) found: Duration,
    pub(crate) missing: Duration,
    pub(crate) stale: Duration,
    /// That a password was right.
    pub(crate) verified: Duration,
    /// How many at most.
    pub(crate) entries: u32,
}

/// `None` only where a problem was recorded.
pub(super) fn read(table: &Table<'_>, backends: &[String], known: &Directories) -> Option<Map> {
    use at::map as key;

    let is_backend = |name: &String| backends.contains(name);
    let directories = table.get(&key::DIRECTORIES)?;
    known.check(table, &key::DIRECTORIES, &directories);
    for (n, name) in directories.iter().enumerate() {
        let Some(directory) = known.get(name) else { continue };
        if directory.takes_tokens() {
            table.problem_with(&key::DIRECTORIES, format_args!("{name} knows tokens, not where mail is"));
        } else if n + 1 < directories.len() && !directory.abilities.finds {
            let message =
                format!("{name} can't tell an unknown user from a wrong password: those behind it are never asked");
            table.warn_of(&key::DIRECTORIES, message);
        }
    }
    let default = table.get(&key::DEFAULT);
    if let Some(name) = default.as_ref().filter(|name| !is_backend(name)) {
        table.problem_with(&key::DEFAULT, format_args!("there is no [backend.{name}]"));
    }
    let Weights(spread) = table.get(&key::SPREAD).unwrap_or_default();
    for (name, _) in spread.iter().filter(|(name, _)| !is_backend(name)) {
        table.problem_with(&key::SPREAD, format_args!("there is no [backend.{name}]"));
    }
    if !spread.is_empty() && spread.iter().all(|(_, weight)| *weight == 0) {
        table.problem_with(&key::SPREAD, "gives no back end any weight");
    }
    if !spread.is_empty() && default.is_some() {
        table.problem_with(&key::DEFAULT, "is never used where `spread` places everybody: leave one of them out");
    }
    let rules: Vec<_> = table.tables(&at::map_rule::SECTION).iter().filter_map(|t| read_rule(t, backends)).collect();
    if default.is_none() && directories.is_empty() && spread.is_empty() && rules.is_empty() {
        table
            .context
            .problem(table.at(), "[map] needs `directories`, `default`, `spread` or a rule: no user can be placed");
    }
    let Pairs(aliases) = table.get(&key::ALIASES).unwrap_or_default();
    let cache = table.table(&at::cache::SECTION);
    Some(Map {
        directories,
        rules,
        spread,
        default,
        names: Names { aliases, ..read_names(table, None)? },
        hosts: table.get(&key::HOSTS)?,
        hold_time: table.get(&key::HOLD_TIME)?,
        cache: Cache {
            found: cache.get(&at::cache::FOUND)?,
            missing: cache.get(&at::cache::MISSING)?,
            stale: cache.get(&at::cache::STALE)?,
            verified: cache.get(&at::cache::VERIFIED)?,
            entries: cache.get(&at::cache::ENTRIES)?.max(1),
        },
    })
}

/// How names are completed where nothing else is said; looked at before `map` is read.
pub(super) fn names_of(map: &Table<'_>) -> Names {
    use at::names as key;

    Names {
        fold_case: map.peek(&key::FOLD_CASE).unwrap_or(true),
        domain: map.peek(&key::DOMAIN),
        detail: map.peek(&key::DETAIL).map(|Delimiter(divider)| divider),
        strip_domains: map.peek(&key::STRIP_DOMAINS).unwrap_or_default(),
        aliases: map.peek(&at::map::ALIASES).map(|Pairs(aliases)| aliases).unwrap_or_default(),
    }
}

/// How names are completed, in `table` and, where it says nothing, in `map`.
pub(super) fn read_names(table: &Table<'_>, map: Option<&Table<'_>>) -> Option<Names> {
    use at::names as key;

    let map = map.unwrap_or(table);
    let domain = table.inherit(map, &key::DOMAIN);
    if let Some(domain) = domain.as_ref().filter(|domain| !is_host(domain)) {
        table.problem_with(&key::DOMAIN, format_args!("expected a domain such as \"example.org\", found {domain:?}"));
    }
    Some(Names {
        fold_case: table.inherit(map, &key::FOLD_CASE)?,
        domain,
        detail: table.inherit(map, &key::DETAIL).map(|Delimiter(divider)| divider),
        strip_domains: table.inherit(map, &key::STRIP_DOMAINS)?,
        aliases: map.peek(&at::map::ALIASES).map(|Pairs(aliases)| aliases).unwrap_or_default(),
    })
}

fn read_rule(table: &Table<'_>, backends: &[String]) -> Option<MapRule> {
    use at::map_rule as key;

    table.head("[[", "]]");
    let (domain, pattern) = (table.get(&key::DOMAIN), table.get(&key::MATCH));
    if domain.is_none() && pattern.is_none() {
        table.problem("needs `domain`, `match` or both: it would fit everybody, which is what `default` is for");
    }
    let backend = table.require(&key::BACKEND)?;
    if !backends.contains(&backend) {
        table.problem_with(&key::BACKEND, format_args!("there is no [backend.{backend}]"));
    }
    Some(MapRule { domain, pattern, backend })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(names: &Names, user: &str) -> String {
        names.canonical(user)
    }

    #[test]
    fn names_are_completed() {
        let names = Names { fold_case: true, domain: Some("example.org".into()), ..Names::default() };
        assert_eq!(canonical(&names, "Kim"), "kim@example.org");
        assert_eq!(canonical(&names, "Kim@Other.ORG"), "kim@other.org");
        assert_eq!(canonical(&names, "\u{c4}nne"), "\u{e4}nne@example.org");
        let names = Names { detail: Some('+'), ..names };
        assert_eq!(canonical(&names, "kim+lists"), "kim@example.org");
        assert_eq!(canonical(&names, "kim+a+b@other.org"), "kim@other.org");
        assert_eq!(canonical(&names, "+kim"), "+kim@example.org");
        assert_eq!(canonical(&names, "kim@a+b.org"), "kim@a+b.org");
    }

    #[test]
    fn realms_are_taken_off_and_aliases_resolved_once() {
        let names = Names { strip_domains: vec!["Corp.Example".into()], ..Names::default() };
        assert_eq!(canonical(&names, "Kim@corp.example"), "Kim");
        assert_eq!(canonical(&names, "kim@other.example"), "kim@other.example");
        let names = Names { strip_domains: vec!["*".into()], domain: Some("new.org".into()), ..names };
        assert_eq!(canonical(&names, "kim@anything"), "kim@new.org");
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let names = Names { aliases: vec![pair("a", "b"), pair("b", "c")], ..Names::default() };
        assert_eq!((canonical(&names, "a"), canonical(&names, "b")), ("b".into(), "c".into()));
    }
}
