//! What a changed configuration does to whoever is there, in plain words.

use std::collections::HashMap;

use crate::config::{Config, Limits, Listener, Service, TlsMode};

/// Sessions at this moment, by what a change may be about.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) total: usize,
    /// By service, and by service and listener (`imap 127.0.0.1:143`).
    pub(super) scopes: HashMap<String, u32>,
    pub(super) backends: HashMap<String, u32>,
}

impl Census {
    fn of(&self, scope: &str) -> u32 {
        self.scopes.get(scope).copied().unwrap_or(0)
    }
}

/// What follows from the change of one configuration to another.
pub(super) fn effects(old: &Config, new: &Config, census: &Census) -> Vec<String> {
    let mut effects = Vec::new();
    services(old, new, census, &mut effects);
    listeners(old, new, census, &mut effects);
    for service in &new.services {
        let before = old.services.iter().find(|before| before.protocol.name == service.protocol.name);
        limits(service, before, census, &mut effects);
    }
    backends(old, new, census, &mut effects);
    if (old.threads.min, old.threads.max) != (new.threads.min, new.threads.max) {
        effects
            .push(format!("Between {} and {} threads serve sessions, from now on.", new.threads.min, new.threads.max));
    }
    if old.admin.written.listen != new.admin.written.listen {
        let addresses: Vec<_> = new.admin.written.listen.iter().map(ToString::to_string).collect();
        effects.push(if addresses.is_empty() {
            "Console and API are turned off: this page is gone then.".into()
        } else {
            format!("Console and API are at {}.", addresses.join(", "))
        });
    }
    if old.state != new.state {
        effects.push("The state folder is used from the next start on.".into());
    }
    if old.drain != new.drain {
        effects.push(format!("A stop gives sessions {}.", humantime::format_duration(new.drain)));
    }
    effects.push(match census.total {
        0 => "Nobody is connected at the moment.".into(),
        1 => "The session that is open stays as it is; new connections follow the new settings.".into(),
        total => {
            format!("The {total} sessions that are open stay as they are; new connections follow the new settings.")
        }
    });
    if !new.map.directories.is_empty() {
        effects.push("What is remembered of directories' answers is forgotten.".into());
    }
    effects
}

fn sessions(count: u32) -> String {
    match count {
        0 => "no session is open there".into(),
        1 => "its one session stays".into(),
        count => format!("its {count} sessions stay"),
    }
}

fn services(old: &Config, new: &Config, census: &Census, effects: &mut Vec<String>) {
    let is_in = |name: &str, config: &Config| config.services.iter().any(|service| service.protocol.name == name);
    for Service { protocol, .. } in &old.services {
        if !is_in(protocol.name, new) {
            effects.push(format!("The service {} ends; {}.", protocol.name, sessions(census.of(protocol.name))));
        }
    }
    for Service { protocol, .. } in &new.services {
        if !is_in(protocol.name, old) {
            effects.push(format!("The service {} begins.", protocol.name));
        }
    }
}

fn listeners(old: &Config, new: &Config, census: &Census, effects: &mut Vec<String>) {
    let all = |config: &Config| -> Vec<(&'static str, Listener)> {
        let of = |service: &Service| {
            let name = service.protocol.name;
            service.listeners.iter().map(move |listener| (name, listener.clone())).collect::<Vec<_>>()
        };
        config.services.iter().flat_map(of).collect()
    };
    let (before, after) = (all(old), all(new));
    for (service, listener) in &before {
        let scope = listener.name_at(service);
        match after.iter().find(|(_, new)| new.written.address == listener.written.address) {
            None => {
                effects.push(format!("{scope} takes no more connections; {}.", sessions(census.of(&scope))));
            }
            Some((_, new)) if new.written.tls != listener.written.tls => {
                effects.push(format!("New connections at {scope} have {}.", tls_words(new.written.tls)));
            }
            Some(_) => {}
        }
    }
    for (service, listener) in &after {
        if !before.iter().any(|(_, old)| old.written.address == listener.written.address) {
            effects.push(format!(
                "Connections are taken at {} ({service}, {}).",
                listener.written.address,
                tls_words(listener.written.tls)
            ));
        }
    }
}

fn tls_words(tls: TlsMode) -> &'static str {
    match tls {
        TlsMode::None => "no TLS",
        TlsMode::StartTls => "STARTTLS",
        TlsMode::Implicit => "TLS from the first byte",
    }
}

/// Limits that are below what is there already.
fn limits(service: &Service, before: Option<&Service>, census: &Census, effects: &mut Vec<String>) {
    let mut look = |scope: &str, new: &Limits, old: Option<&Limits>| {
        let held = census.of(scope);
        let Some(max) = new.connections.filter(|max| old.and_then(|old| old.connections) != Some(*max)) else { return };
        let Some(over) = held.checked_sub(max).filter(|over| *over > 0) else { return };
        let (are, stay) = if over == 1 { ("is", "it stays") } else { ("are", "they stay") };
        effects
            .push(format!("{scope}: {held} sessions are open, and {over} {are} over the new limit of {max}; {stay}."));
    };
    let name = service.protocol.name;
    look(name, &service.written.limits, before.map(|before| &before.written.limits));
    for listener in &service.listeners {
        let mut old = before.into_iter().flat_map(|before| &before.listeners);
        let old = old.find(|old| old.written.address == listener.written.address);
        look(&listener.name_at(name), &listener.written.limits, old.map(|old| &old.written.limits));
    }
}

fn backends(old: &Config, new: &Config, census: &Census, effects: &mut Vec<String>) {
    for before in &old.backends {
        let held = census.backends.get(&before.name).copied().unwrap_or(0);
        match new.backends.iter().find(|after| after.name == before.name) {
            None => effects.push(format!("{} is no back end any more; {}.", before.name, sessions(held))),
            Some(after) if after.written.hosts != before.written.hosts => {
                let hosts = after.written.hosts.join(", ");
                effects.push(format!("New log-ins at {} come to {hosts}; {}.", before.name, sessions(held)));
            }
            Some(_) => {}
        }
    }
    for after in &new.backends {
        if !old.backends.iter().any(|before| before.name == after.name) {
            effects.push(format!("{} is a back end ({}).", after.name, after.written.hosts.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("{text}\n[backend.a]\nhost = \"127.0.0.1\"\n");
        let draft =
            crate::config::parse(std::path::Path::new("x.toml"), &text).unwrap_or_else(|error| panic!("{error}"));
        assert!(draft.problems.is_empty(), "{:?}", draft.problems);
        draft.config
    }

    #[test]
    fn what_a_change_does_is_said_in_numbers() {
        let old = config("[imap]\n[map]\ndefault = \"a\"\n");
        let new = config(
            "[imap]\nlimits = { connections = 1200 }\n[[imap.listener]]\naddress = \"127.0.0.1:144\"\ntls = \"none\"\n[map]\ndefault = \"a\"\n",
        );
        let census = Census {
            total: 1203,
            scopes: [("imap".to_owned(), 1203), ("imap 127.0.0.1:143".to_owned(), 1)].into(),
            backends: HashMap::new(),
        };
        let effects = effects(&old, &new, &census);
        assert_eq!(
            effects,
            [
                "imap 127.0.0.1:143 takes no more connections; its one session stays.",
                "Connections are taken at 127.0.0.1:144 (imap, no TLS).",
                "imap: 1203 sessions are open, and 3 are over the new limit of 1200; they stay.",
                "The 1203 sessions that are open stay as they are; new connections follow the new settings.",
            ]
        );
    }
}
