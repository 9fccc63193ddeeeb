//! `gatepost explain`: a log-in's way, step by step, without logging in.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::Failure;
use crate::config::{self, Announce, Authenticate, Loaded, TlsMode};
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
        println!("{}", json!({ "explain": list, "user": user, "possible": possible }));
    } else {
        steps.0.iter().for_each(|(step, text)| println!("{step:<10} {text}"));
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
    let log = crate::log::Logger::start(&config::Log { level: config::Level::Critical, rules: Vec::new() })?;
    let world = World::build(config, &log, &Arc::default(), &mut warnings)?;
    let map = &world.map;
    let name = map.canonical(user);
    steps.say("name", format!("{user:?} is looked up, logged and logged in as {name:?}"));
    for service in &world.config.services {
        let who = match &service.authenticate {
            Authenticate::Backend => "the back end checks the password".to_owned(),
            Authenticate::Proxy { directory } => {
                format!("Gatepost checks the password against {directory}, then the back end")
            }
        };
        steps.say("password", format!("{}: {who}", service.protocol.name));
    }
    let asked: Vec<_> = map.directories().collect();
    let found = match map.find(&name).await {
        Ok(found) => found,
        Err(unanswered) => {
            steps.say("directory", format!("{} can't answer: {}", unanswered.directory, unanswered.fault));
            return Ok(false);
        }
    };
    match &found {
        Found::Account { directory, entry } => {
            let place =
                entry.place.as_ref().map_or_else(|| "without a place".to_owned(), |place| format!("at {place:?}"));
            let disabled = if entry.disabled { ", disabled" } else { "" };
            let password = if entry.password.is_some() { "with a password" } else { "without a password" };
            steps.say("directory", format!("{directory} knows the user: {place}, {password}{disabled}"));
            for network in &entry.networks {
                steps.say("directory", format!("only from {network}"));
            }
        }
        Found::Nobody if asked.is_empty() => steps.say("directory", "none is asked ([map] has no `directories`)"),
        Found::Nobody => steps.say("directory", format!("unknown to {}", asked.join(", "))),
    }
    let backend = match map.choose(&found) {
        Ok(backend) => backend,
        Err(NoPlace::Unknown) => {
            steps.say("map", "unknown users are refused ([map] has no `default`)");
            return Ok(false);
        }
        Err(NoPlace::Refused(why)) => {
            steps.say("map", why);
            return Ok(false);
        }
    };
    steps.say("map", format!("back end {}", backend.name));
    for service in &world.config.services {
        let protocol = service.protocol.name;
        let Some(link) = backend.link(protocol).map(|link| &link.settings) else { continue };
        let tls = match link.tls {
            TlsMode::None => "in clear",
            TlsMode::StartTls => "with STARTTLS",
            TlsMode::Implicit => "with implicit TLS",
        };
        let hosts = backend.hosts().join(", then ");
        steps.say("connect", format!("{protocol}: to {hosts}, port {}, {tls}", link.port));
        let announced = match link.announce {
            Announce::Nothing => "the client's address is not announced",
            Announce::Id => "the client's address is announced by ID",
            Announce::ProxyV2 => "the client's address is announced by the PROXY protocol",
        };
        steps.say("connect", format!("{protocol}: {announced}"));
    }
    let login = match backend.master() {
        Some(master) => format!("as {name:?}, by the master log-in of {master:?}"),
        None => format!("as {name:?}, with the user's own password"),
    };
    steps.say("log-in", login);
    let disabled = matches!(&found, Found::Account { entry, .. } if entry.disabled);
    if disabled {
        steps.say("log-in", "refused: the account is disabled");
    }
    Ok(!disabled)
}
