//! The map as the configuration describes it, and how users' names are completed.

use std::time::Duration;

use super::directory::{Directories, check_directories};
use super::is_host;
use super::networks::HostPattern;
use super::reader::Table;
use super::template::split;
use super::values::{Delimiter, Pairs, Pattern, Weights};

section! {
    pub(crate) struct Map: "map", "[map]", "Which back end holds whose mail: what a directory says, then the first rule that fits, the spread, the default.";
    directories: Vec<String> = [], "Directories asked in turn; the first that knows the user answers.";
    default: Option<String>, "The back end of users of whom nothing else is said. Left out: they are refused.";
    spread: Weights = {}, "Back ends that share the users of whom no directory and no rule says more, by weight, such as { store-a = 2, store-b = 1 }. A user stays at the same one.";
    hosts: Vec<HostPattern> = [], "Hosts that a directory may name beside the back ends of this file.";
    aliases: Pairs = {}, "Other names of users, such as { \"info@example.org\" = \"kim@example.org\" }, as they are once all else is done.";
    hold_time: Duration = "30s", "How long a log-in waits for a user who is being moved (`gatepost user set NAME --hold`). Then: UNAVAILABLE.";
    ..completion: Completion;
    [cache]: Cache;
    [rules]: Vec<MapRule>;
    => check_places;
}

section! {
    #[derive(Default)]
    pub(crate) struct Completion: "map", "[map]  # how names are completed", "How a user's name is completed. The same may stand in a listener, for that listener alone.";
    domain: Option<String>, "Completes a bare user name, for look-ups, logs and the back-end log-in alike.";
    fold_case: bool = true, "User names are taken in lower case throughout.";
    detail: Option<Delimiter>, "What divides a name from a detail, such as \"+\": kim+lists@example.org is kim@example.org.";
    strip_domains: Vec<String> = [], "Domains or realms that are taken off a name; \"*\" takes off any.";
    => check_domain;
}

section! {
    pub(crate) struct MapRule: "rule", "[[map.rule]]", "Places users of whom no directory says where they are. The first rule that fits wins.";
    domain: Option<String>, "Fits users of this domain.";
    pattern as "match": Option<Pattern>, "Fits users whose whole name this regular expression matches.";
    backend: String, "Where they are.";
    => check_rule;
}

section! {
    ///
    /// No time: not at all.
    #[derive(Copy)]
    pub(crate) struct Cache: "cache", "[map.cache]", "How long answers of directories are remembered. A reload forgets them all.";
    found: Duration = "0s", "A user's place.";
    missing: Duration = "0s", "That a user is unknown.";
    stale: Duration = "0s", "A place, and where `verified` is set that a password was right, while a directory that must be asked is down.";
    verified: Duration = "0s", "That a password was right (as a keyed hash). A new password works at once; the old one may go on working for this long.";
    entries: u32 = 100000, "How many answers are remembered at most, for the map and for each directory's passwords.";
}

/// How users' names are completed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) by: Completion,
    /// Other names, and what they stand for.
    pub(crate) aliases: Vec<(String, String)>,
}

impl Names {
    /// As they are completed where nothing else is said.
    pub(crate) fn of(map: &Map) -> Self {
        Self { by: map.completion.clone(), aliases: map.aliases.0.clone() }
    }

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
        let mut name = match self.by.fold_case {
            true if user.is_ascii() => user.to_ascii_lowercase(),
            true => user.to_lowercase(),
            false => user.to_owned(),
        };
        if self.by.detail.is_some() || !self.by.strip_domains.is_empty() {
            name = self.shortened(&name);
        }
        if let Some(domain) = self.by.domain.as_ref().filter(|_| !name.contains('@')) {
            name.push('@');
            name.push_str(domain);
        }
        name
    }

    /// Without a detail, and without a domain that says nothing.
    fn shortened(&self, name: &str) -> String {
        let (local, domain) = split(name);
        let domain = domain.filter(|domain| {
            !self.by.strip_domains.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(domain))
        });
        // A name that begins with the divider has no detail; it would leave nobody.
        let end = self.by.detail.and_then(|Delimiter(divider)| local.find(divider)).filter(|&at| at > 0);
        let local = &local[..end.unwrap_or(local.len())];
        domain.map_or_else(|| local.to_owned(), |domain| format!("{local}@{domain}"))
    }
}

fn check_places(read: &Map, table: &Table<'_>) {
    let Map { directories, default, spread: Weights(spread), rules, .. } = read;
    default.iter().for_each(|name| table.check_known(&Map::default, "backend", name));
    spread.iter().for_each(|(name, _)| table.check_known(&Map::spread, "backend", name));
    if !spread.is_empty() && spread.iter().all(|(_, weight)| *weight == 0) {
        table.problem_with(&Map::spread, "gives no back end any weight");
    }
    if !spread.is_empty() && default.is_some() {
        table.problem_with(&Map::default, "is never used where `spread` places everybody: leave one of them out");
    }
    if default.is_none() && directories.is_empty() && spread.is_empty() && rules.is_empty() {
        let what = "needs `directories`, `default`, `spread` or a rule: no user can be placed";
        table.problem(what);
    }
}

/// Whether the directories can say where mail is.
pub(super) fn check_map(map: &Map, table: &Table<'_>, known: &Directories) {
    check_directories(table, &Map::directories, &map.directories);
    for (n, name) in map.directories.iter().enumerate() {
        let Some(directory) = known.get(name) else { continue };
        match directory.abilities() {
            None => table.problem_with(&Map::directories, format_args!("{name} knows tokens, not where mail is")),
            Some(abilities) if n + 1 < map.directories.len() && !abilities.finds => {
                let what = "can't tell an unknown user from a wrong password: those behind it are never asked";
                table.warn_of(&Map::directories, format_args!("{name} {what}"));
            }
            Some(_) => {}
        }
    }
}

fn check_domain(read: &Completion, table: &Table<'_>) {
    // A mistake is said where it stands, not again where it is inherited.
    let own = read.domain.iter().filter(|_| table.has(Completion::domain.name));
    for domain in own.filter(|domain| !is_host(domain)) {
        let what = format_args!("expected a domain such as \"example.org\", found {domain:?}");
        table.problem_with(&Completion::domain, what);
    }
}

fn check_rule(read: &MapRule, table: &Table<'_>) {
    if read.domain.is_none() && read.pattern.is_none() {
        table.problem("needs `domain`, `match` or both: it would fit everybody, which is what `default` is for");
    }
    table.check_known(&MapRule::backend, "backend", &read.backend);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn canonical(names: &Names, user: &str) -> String {
        names.canonical(user)
    }

    #[test]
    fn names_are_completed() {
        let by = Completion { fold_case: true, domain: Some("example.org".into()), ..Completion::default() };
        let names = Names { by, aliases: Vec::new() };
        assert_eq!(canonical(&names, "Kim"), "kim@example.org");
        assert_eq!(canonical(&names, "Kim@Other.ORG"), "kim@other.org");
        assert_eq!(canonical(&names, "\u{c4}nne"), "\u{e4}nne@example.org");
        let names = Names { by: Completion { detail: Some(Delimiter('+')), ..names.by }, ..names };
        assert_eq!(canonical(&names, "kim+lists"), "kim@example.org");
        assert_eq!(canonical(&names, "kim+a+b@other.org"), "kim@other.org");
        assert_eq!(canonical(&names, "+kim"), "+kim@example.org");
        assert_eq!(canonical(&names, "kim@a+b.org"), "kim@a+b.org");
    }

    #[test]
    fn realms_are_taken_off_and_aliases_resolved_once() {
        let by = Completion { strip_domains: vec!["Corp.Example".into()], ..Completion::default() };
        let names = Names { by, aliases: Vec::new() };
        assert_eq!(canonical(&names, "Kim@corp.example"), "Kim");
        assert_eq!(canonical(&names, "kim@other.example"), "kim@other.example");
        let by = Completion { strip_domains: vec!["*".into()], domain: Some("new.org".into()), ..names.by };
        let names = Names { by, ..names };
        assert_eq!(canonical(&names, "kim@anything"), "kim@new.org");
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let names = Names { aliases: vec![pair("a", "b"), pair("b", "c")], ..Names::default() };
        assert_eq!((canonical(&names, "a"), canonical(&names, "b")), ("b".into(), "c".into()));
    }

    #[test]
    fn a_back_end_that_is_missing_is_named_as_the_file_would_have_it() {
        let said = |map: &str| {
            let text = format!("[imap]\n[map]\n{map}\n[backend.\"b.c\"]\nhost = \"127.0.0.1\"\n");
            let draft = config::parse(Path::new("gatepost.toml"), &text).expect("a file");
            draft.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        for (map, head) in [
            ("default = \"d\"", "map.default: there is no [backend.d]"),
            ("default = \"d.e\"", "map.default: there is no [backend.\"d.e\"]"),
            ("spread = { \"b.c\" = 1, \"d.e\" = 1 }", "map.spread: there is no [backend.\"d.e\"]"),
            ("[[map.rule]]\ndomain = \"x.org\"\nbackend = \"d e\"", "there is no [backend.\"d e\"]"),
            ("default = \"b.c\"\ndirectories = [\"f.g\"]", "map.directories: there is no [directory.\"f.g\"]"),
        ] {
            assert!(said(map).contains(head), "{head}: {}", said(map));
            assert!(!said(map).contains("[backend.\"b.c\"]"), "{}", said(map));
        }
    }
}
