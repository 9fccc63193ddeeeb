//! `gatepost explain`: a log-in's way, step by step, without logging in.

use std::path::Path;
use std::sync::Arc;

use gatepost_wire::sasl;
use serde_json::json;

use super::Failure;
use crate::auth::hash;
use crate::config::{self, Announce, Authenticate, Link, Listener, Loaded, Plaintext, Service, TlsMode};
use crate::directory::Entry;
use crate::log::Logger;
use crate::map::{Found, NoPlace};
use crate::world::World;

/// Prints the steps; an error where the user could not log in.
pub(super) fn explain(path: &Path, user: &str, json: bool) -> Result<(), Failure> {
    let mut steps = Steps::default();
    let possible = super::block_on(walk(path, user, &mut steps))?;
    steps.say(
        "result",
        if possible { "with the right password, this user can log in" } else { "this user can't log in" },
    );
    if json {
        let list: Vec<_> = steps.0.iter().map(|(step, text)| json!({ "step": step, "text": text })).collect();
        say_line!("{}", json!({ "explain": list, "user": user, "possible": possible }));
    } else {
        steps.0.iter().for_each(|(step, text)| say_line!("{step:<10} {text}"));
    }
    if possible { Ok(()) } else { Err(Failure::Silent) }
}

#[derive(Default)]
struct Steps(Vec<(&'static str, String)>);

impl Steps {
    fn say(&mut self, step: &'static str, text: impl Into<String>) {
        // A user name may hold anything; a terminal must not.
        let text: String = text.into().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        self.0.push((step, text));
    }
}

async fn walk(path: &Path, user: &str, steps: &mut Steps) -> Result<bool, Failure> {
    let Loaded { config, mut warnings, .. } = config::load(path)?;
    let log = Logger::start(&config::Log { level: config::Level::Critical, rules: Vec::new() })?;
    let world = World::build(config, &log, &Arc::default(), &mut warnings)?;
    let Some(user) = sasl::user_name(user.as_bytes()) else {
        steps.say("name", "refused: a name is not empty, at most 512 bytes long and without control characters");
        return Ok(false);
    };
    let name = world.map.canonical(&user);
    steps.say("name", format!("{user:?} is looked up, logged and logged in as {name:?}"));
    let mut is_possible = true;
    for service in &world.config.services {
        is_possible &= explain_service(&world, service, &name, steps).await;
    }
    Ok(is_possible)
}

/// A log-in to one service, step by step; false where a step would refuse it.
async fn explain_service(world: &World, service: &Service, name: &str, steps: &mut Steps) -> bool {
    let protocol = service.protocol.name;
    let mut is_possible = true;
    let takes_passwords = |listener: &Listener| listener.tls != TlsMode::None || service.plaintext != Plaintext::Tls;
    if !service.listeners.iter().any(takes_passwords) {
        steps.say("listener", format!("{protocol}: no listener takes passwords: none has TLS, and `plaintext` is tls"));
        is_possible = false;
    }
    let mut is_checked = false;
    if let Authenticate::Proxy { directory } = &service.authenticate {
        steps.say("password", format!("{protocol}: Gatepost checks it against {directory}, then the back end"));
        let found = match world.directory(directory) {
            Some(asked) => asked.find(name).await,
            None => Ok(None),
        };
        match found {
            Ok(entry) => is_possible &= explain_check(directory, entry.as_ref(), steps),
            Err(fault) => {
                steps.say("password", format!("{directory} can't answer: {fault}"));
                return false;
            }
        }
        is_checked = true;
    } else {
        steps.say("password", format!("{protocol}: the back end checks it"));
    }
    let asked: Vec<_> = world.map.directories().collect();
    let found = match world.map.find(name).await {
        Ok(found) => found,
        Err(unanswered) => {
            steps.say("directory", format!("{} can't answer: {}", unanswered.directory, unanswered.fault));
            return false;
        }
    };
    match &found {
        Found::Account { directory, entry } => explain_entry(directory, entry, steps),
        Found::Nobody if asked.is_empty() => steps.say("directory", "none is asked ([map] has no `directories`)"),
        Found::Nobody => steps.say("directory", format!("unknown to {}", asked.join(", "))),
    }
    let backend = match world.map.choose(&found) {
        Ok(backend) => backend,
        Err(NoPlace::Unknown) => {
            steps.say("map", "unknown users are refused ([map] has no `default`)");
            return false;
        }
        Err(NoPlace::Refused(why)) => {
            steps.say("map", why);
            return false;
        }
    };
    steps.say("map", format!("back end {}", backend.name));
    if let Some(link) = backend.link(protocol) {
        explain_link(protocol, &backend.hosts().join(", then "), &link.settings, steps);
    }
    let entry = match &found {
        Found::Account { entry, .. } => Some(entry),
        Found::Nobody => None,
    };
    let is_restricted = entry.is_some_and(|entry| entry.disabled || !entry.networks.is_empty());
    if !is_checked && (backend.master().is_some() || is_restricted) {
        steps.say("password", "checked against the map's entry, for a master log-in or a restricted account");
        is_possible &= explain_check("the map", entry, steps);
    }
    steps.say(
        "log-in",
        match backend.master() {
            Some(master) => format!("as {name:?}, by the master log-in of {master:?}"),
            None => format!("as {name:?}, with the user's own password"),
        },
    );
    if entry.is_some_and(|entry| entry.disabled) {
        steps.say("log-in", "refused: the account is disabled");
        is_possible = false;
    }
    is_possible
}

/// Whether a password could be right, by a directory's entry.
fn explain_check(directory: &str, entry: Option<&Entry>, steps: &mut Steps) -> bool {
    let problem = match entry.map(|entry| entry.password.as_deref()) {
        None => "does not know the user: refused as a wrong password",
        Some(None) => "has no password for the user: refused as a wrong password",
        Some(Some(stored)) if !hash::is_usable(stored) => {
            "has a password of a scheme that is not supported: UNAVAILABLE"
        }
        Some(Some(_)) if entry.is_some_and(|entry| entry.disabled) => "has the account disabled",
        Some(Some(_)) => return true,
    };
    steps.say("password", format!("{directory} {problem}"));
    false
}

fn explain_entry(directory: &str, entry: &Entry, steps: &mut Steps) {
    let place = entry.place.as_ref().map_or_else(|| "without a place".to_owned(), |place| format!("at {place:?}"));
    let disabled = if entry.disabled { ", disabled" } else { "" };
    let password = if entry.password.is_some() { "with a password" } else { "without a password" };
    steps.say("directory", format!("{directory} knows the user: {place}, {password}{disabled}"));
    for network in &entry.networks {
        steps.say("directory", format!("only from {network}"));
    }
}

fn explain_link(protocol: &str, hosts: &str, link: &Link, steps: &mut Steps) {
    let tls = match link.tls {
        TlsMode::None => "in clear",
        TlsMode::StartTls => "with STARTTLS",
        TlsMode::Implicit => "with implicit TLS",
    };
    steps.say("connect", format!("{protocol}: to {hosts}, port {}, {tls}", link.port));
    let announced = match link.announce {
        Announce::Nothing => "the client's address is not announced",
        Announce::Id => "the client's address is announced by ID",
        Announce::ProxyV2 => "the client's address is announced by the PROXY protocol",
    };
    steps.say("connect", format!("{protocol}: {announced}"));
}
