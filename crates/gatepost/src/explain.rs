//! The way of a user's log-in or mail, step by step, without either.

use gatepost_wire::smtp::Mailbox;
use gatepost_wire::{Inband, Mechanism, Protocol, sasl};

use crate::auth::{Authenticator, hash};
use crate::config::{Announce, Authenticate, Link, Listener, Names, Plaintext, Service, TlsMode};
use crate::directory::{Bar, Entry, Fault, Who};
use crate::map::{Found, NoPlace, Reason};
use crate::service::mail::address::{Address, Unwelcome, place};
use crate::world::World;

/// What becomes of a user, and why.
pub(crate) struct Explained {
    /// Each step's name, and what happens there.
    pub(crate) steps: Vec<(&'static str, String)>,
    /// Whether all would go well.
    pub(crate) is_possible: bool,
}

#[derive(Default)]
struct Steps {
    said: Vec<(&'static str, String)>,
    /// Some service takes passwords.
    are_passwords_taken: bool,
}

impl Steps {
    fn say(&mut self, step: &'static str, text: impl Into<String>) {
        // A user name may hold anything; a terminal must not.
        let text: String = text.into().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        self.said.push((step, text));
    }
}

/// Goes the way of a user's log-ins, or of mail for them, through all services. `user` is as a client would write it.
pub(crate) async fn explain(world: &World, user: &str) -> Explained {
    let mut steps = Steps::default();
    let is_possible = walk(world, user, &mut steps).await;
    let is_mail = world.config.services.iter().all(takes_mail);
    let result = match (is_possible, is_mail) {
        (true, true) => "mail for this user is taken",
        (true, false) if steps.are_passwords_taken => "with the right password, this user can log in",
        (true, false) => "with the right token, certificate or proof, this user can log in",
        (false, true) => "mail for this user is not taken",
        (false, false) => "this user can't log in, or gets no mail",
    };
    steps.say("result", result);
    Explained { steps: steps.said, is_possible }
}

fn takes_mail(service: &Service) -> bool {
    service.protocol.course.dialect().is_some()
}

async fn walk(world: &World, user: &str, steps: &mut Steps) -> bool {
    let Some(user) = sasl::user_name(user.as_bytes()) else {
        steps.say("name", format!("refused: {}", sasl::USER_NAME));
        return false;
    };
    let mut possible = true;
    for service in &world.config.services {
        for (name, listeners) in names(service, &user) {
            let everywhere = listeners.len() == service.listeners.len();
            let at = if everywhere { String::new() } else { format!(" at {}", listeners.join(", ")) };
            let mut of_listeners = service.listeners.iter().map(|listener| &listener.names);
            let of_name = of_listeners.find(|names| names.canonical(&user) == name);
            let of_name = of_name.unwrap_or(&world.config.names);
            let what = if takes_mail(service) { "looked up" } else { "looked up, logged and logged in" };
            steps.say("name", format!("{user:?} is {what} as {name:?}{at}"));
            possible &= explain_service(world, service, (&user, &name), of_name, steps).await;
        }
    }
    possible
}

/// What a service's listeners make of a name, each with those that make the same of it.
fn names(service: &Service, user: &str) -> Vec<(String, Vec<String>)> {
    let mut names: Vec<(String, Vec<String>)> = Vec::new();
    for listener in &service.listeners {
        let name = listener.names.canonical(user);
        let address = listener.written.address.to_string();
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, listeners)) => listeners.push(address),
            None => names.push((name, vec![address])),
        }
    }
    names
}

/// A log-in to one service, step by step; false where a step would refuse it.
async fn explain_service(
    world: &World,
    service: &Service,
    (written, name): (&str, &str),
    of_name: &Names,
    steps: &mut Steps,
) -> bool {
    let protocol = service.protocol.name;
    // Where the user comes from is not known: what depends on it is said in words.
    let who = Who::somebody(name, protocol);
    if takes_mail(service) {
        return explain_mail(world, service, written, of_name, steps).await;
    }
    let mut is_possible = true;
    let takes_passwords =
        |listener: &Listener| listener.written.tls != TlsMode::None || service.written.plaintext != Plaintext::Tls;
    if !service.listeners.iter().any(takes_passwords) {
        steps.say("listener", format!("{protocol}: no listener takes passwords: none has TLS, and `plaintext` is tls"));
        is_possible = false;
    }
    let is_checked = match &service.authenticate {
        Authenticate::Backend => {
            steps.are_passwords_taken |= service.lets_passwords_be_shown();
            steps.say("password", format!("{protocol}: the back end checks it"));
            false
        }
        Authenticate::Proxy { passwords, tokens } => {
            if let Some(name) = tokens {
                steps.say("token", format!("{protocol}: Gatepost checks it against {name}, then the back end"));
            }
            let Some(possible) = explain_directories(world, service, passwords, &who, steps).await else {
                return false;
            };
            is_possible &= possible || tokens.is_some();
            true
        }
    };
    explain_certificates(service, steps);
    let Some(found) = explain_place(world, &who, steps).await else { return false };
    let (backend, reason) = match world.map.choose(name, &found) {
        Ok(chosen) => chosen,
        Err(NoPlace::Unknown) if matches!(found, Found::Nobody) && only_with_password(world).next().is_some() => {
            steps.say("map", "where the user's mail is, only a log-in shows");
            return is_possible;
        }
        Err(NoPlace::Unknown) => {
            steps.say("map", "unknown users are refused ([map] has no `default`, `spread` or rule for them)");
            return false;
        }
        Err(NoPlace::Refused(why)) => {
            steps.say("map", why);
            return false;
        }
    };
    steps.say("map", format!("back end {}, {}", backend.name, reason_words(&reason)));
    if let Some(duty) = backend.duty() {
        steps.say("back end", format!("{} is out of service ({}): UNAVAILABLE", backend.name, duty.name()));
        is_possible = false;
    }
    let entry = found.entry();
    let login = found.log_in_name(name);
    if let Some(link) = backend.link(protocol) {
        explain_link(service.protocol, &backend.hosts_of(login).join(", then "), &link.settings, steps);
    }
    let log_in = backend.log_in_as(entry);
    if !is_checked && !log_in.is_own() {
        steps.say("password", "checked first against the map, since somebody else's log-in is used");
        let knowing = world.map.authenticators().iter().find(
            |authenticator| matches!(&found, Found::Account { directory, .. } if *directory == authenticator.name),
        );
        is_possible &= knowing.is_some_and(|authenticator| explain_check(authenticator, entry, &who, steps));
    }
    steps.say("log-in", format!("as {login:?}, {log_in}"));
    if let Some(carried) = service.written.mechanisms.iter().find(|mechanism| mechanism.is_carried())
        && log_in.is_own()
    {
        let what = "brings nothing that could be passed on, and there is no master log-in: UNAVAILABLE";
        steps.say("log-in", format!("{} {what}", carried.name()));
    }
    is_possible &= explain_bars(entry, &who, world, steps);
    is_possible
}

/// What the map's directories say of a user; `None`: one can't answer.
async fn explain_place(world: &World, who: &Who, steps: &mut Steps) -> Option<Found> {
    // What is remembered has no password that could be looked at.
    match world.map.find_now(who).await {
        Ok(found) => {
            explain_found(world, &found, steps);
            Some(found)
        }
        Err(unanswered) => {
            steps.say("directory", format!("{} can't answer: {}", unanswered.directory, unanswered.fault));
            None
        }
    }
}

/// Where mail for an address goes; false where it is refused.
async fn explain_mail(world: &World, service: &Service, written: &str, names: &Names, steps: &mut Steps) -> bool {
    let protocol = service.protocol.name;
    let address = Address::new(&Mailbox::of(written), names, service.domains());
    let who = Who::somebody(&address.name, protocol);
    let Some(found) = explain_place(world, &who, steps).await else { return false };
    let why_not = match place(&world.map, service.domains(), &address, &found) {
        Ok((backend, reason)) => {
            steps.say("map", format!("{protocol}: back end {}, {}", backend.name, reason_words(&reason)));
            if let Some(link) = backend.link(protocol) {
                let hosts = backend.hosts_of(found.log_in_name(&address.name)).join(", then ");
                explain_link(link.settings.protocol, &hosts, &link.settings, steps);
            }
            let Some(duty) = backend.duty() else { return true };
            format!("451: {} is out of service ({})", backend.name, duty.name())
        }
        Err(Unwelcome::Unknown) => {
            "550: no directory knows such a user, and the map places nobody else there".to_owned()
        }
        Err(Unwelcome::Foreign) => {
            "550: the domain is not one of `domains`, and the directory does not name the user in full".to_owned()
        }
        Err(Unwelcome::Disabled) => "550: the account is disabled".to_owned(),
        Err(Unwelcome::Held) => "451: the directory holds the user".to_owned(),
        Err(Unwelcome::Misplaced(why)) => format!("451: {why}"),
    };
    steps.say("map", format!("{protocol}: mail for {written:?} is refused with {why_not}"));
    false
}

fn reason_words(reason: &Reason) -> String {
    match reason {
        Reason::Moved => "where an administrator has moved this user (`gatepost move`)".to_owned(),
        Reason::Directory => "named by the directory".to_owned(),
        Reason::Rule(number) => format!("by [[map.rule]] number {number}"),
        Reason::Spread => "by `map.spread`".to_owned(),
        Reason::Default => "the default".to_owned(),
    }
}

/// By which certificates clients may come.
fn explain_certificates(service: &Service, steps: &mut Steps) {
    let own = service
        .listeners
        .iter()
        .map(|listener| (listener.written.address.to_string(), &listener.written.client_certificates));
    for (at, settings) in
        std::iter::once((String::from("all listeners"), &service.written.client_certificates)).chain(own)
    {
        let Some(settings) = settings.as_ref().filter(|_| service.written.mechanisms.contains(&Mechanism::External))
        else {
            continue;
        };
        let protocol = service.protocol.name;
        let text = format!("{protocol}: EXTERNAL takes certificates of {} at {at}", settings.ca.display());
        steps.say("password", text);
    }
}

/// What the directories say that check passwords, in turn; `None`: one can't answer.
async fn explain_directories(
    world: &World,
    service: &Service,
    names: &[String],
    who: &Who,
    steps: &mut Steps,
) -> Option<bool> {
    let protocol = service.protocol.name;
    let offers_scram = service.written.mechanisms.iter().any(|mechanism| mechanism.is_scram());
    let mut is_possible = false;
    for name in names {
        steps.say("password", format!("{protocol}: Gatepost checks it against {name}, then the back end"));
        let authenticator = world.authenticator(name)?;
        match find(&authenticator, who).await {
            Ok(entry) => {
                let fits = explain_check(&authenticator, entry.as_ref(), who, steps);
                steps.are_passwords_taken |= fits && service.lets_passwords_be_shown();
                is_possible |= fits;
                let kept = entry.as_ref().and_then(|entry| entry.password.as_ref());
                if offers_scram
                    && authenticator.abilities.keeps_hashes
                    && kept.is_some_and(|kept| kept.expose_text().and_then(hash::scram).is_none())
                {
                    let what = "keeps no verifier for SCRAM, which is refused: set the password anew with --scram";
                    steps.say("password", format!("{name} {what}"));
                }
                if entry.is_some() {
                    break;
                }
            }
            Err(fault) => {
                steps.say("password", format!("{name} can't answer: {fault}"));
                return None;
            }
        }
    }
    Some(is_possible)
}

/// What keeps an account from being used, or makes it wait; false where it does.
fn explain_bars(entry: Option<&Entry>, who: &Who, world: &World, steps: &mut Steps) -> bool {
    let mut is_possible = true;
    if world.map.is_held(&who.user) || entry.is_some_and(|entry| entry.held) {
        let time = humantime::format_duration(world.map.settings.hold_time);
        steps.say("log-in", format!("held: it waits {time} for the user to be released, then UNAVAILABLE"));
        is_possible = false;
    }
    let Some(entry) = entry else { return is_possible };
    if let Some(bar) = entry.barred {
        steps.say("log-in", format!("refused: the account is {}", bar_word(bar)));
        is_possible = false;
    }
    if let Some(services) = entry.services.as_ref().filter(|_| !entry.is_for(who.service)) {
        steps.say("log-in", format!("refused: the account is for {} alone", services.join(", ")));
        is_possible = false;
    }
    is_possible
}

fn bar_word(bar: Bar) -> &'static str {
    match bar {
        Bar::Disabled => "disabled",
        Bar::Expired => "expired",
        Bar::Locked => "locked",
    }
}

/// What a directory says without a password; nothing, where it wants to see one.
async fn find(authenticator: &Authenticator, who: &Who) -> Result<Option<Entry>, Fault> {
    if authenticator.abilities.finds { authenticator.directory.find(who).await } else { Ok(None) }
}

/// Whether a password could be right, by a directory's entry.
fn explain_check(authenticator: &Authenticator, entry: Option<&Entry>, who: &Who, steps: &mut Steps) -> bool {
    let name = &authenticator.name;
    if !authenticator.abilities.finds {
        steps.say("password", format!("{name} says only to who brings a password whether it knows {:?}", who.user));
        return true;
    }
    let problem = match entry {
        None => "does not know the user: refused as a wrong password",
        Some(_) if !authenticator.abilities.keeps_hashes => {
            steps.say("password", format!("{name} checks it itself"));
            return true;
        }
        Some(Entry { password: None, .. }) => "has no password for the user: refused as a wrong password",
        Some(Entry { password: Some(stored), .. }) if !stored.expose_text().is_some_and(hash::is_usable) => {
            "has a password of a scheme that is not supported: UNAVAILABLE"
        }
        Some(_) => return true,
    };
    steps.say("password", format!("{name} {problem}"));
    false
}

/// The directories of the map that can't be asked without a password.
fn only_with_password(world: &World) -> impl Iterator<Item = &str> {
    world
        .map
        .authenticators()
        .iter()
        .filter(|authenticator| !authenticator.abilities.finds)
        .map(|authenticator| &*authenticator.name)
}

fn explain_found(world: &World, found: &Found, steps: &mut Steps) {
    let asked: Vec<_> = world.map.authenticators().iter().map(|authenticator| &*authenticator.name).collect();
    let (directory, entry) = match found {
        Found::Account { directory, entry, .. } => (directory, entry),
        Found::Nobody if asked.is_empty() => {
            return steps.say("directory", "none is asked ([map] has no `directories`)");
        }
        Found::Nobody => {
            let mute: Vec<_> = only_with_password(world).collect();
            let asked: Vec<_> = asked.into_iter().filter(|name| !mute.contains(name)).collect();
            if !asked.is_empty() {
                steps.say("directory", format!("unknown to {}", asked.join(", ")));
            }
            for name in mute {
                steps.say("directory", format!("{name} answers only to who brings a password"));
            }
            return;
        }
    };
    let place =
        entry.place.as_ref().map_or_else(|| "without a place".to_owned(), |place| format!("at {:?}", place.name));
    let password = if entry.password.is_some() { ", with a password hash" } else { "" };
    let bar = entry.barred.map(|bar| format!(", {}", bar_word(bar))).unwrap_or_default();
    steps.say("directory", format!("{directory} knows the user: {place}{password}{bar}"));
    for network in &entry.networks {
        steps.say("directory", format!("only from {network}"));
    }
}

fn explain_link(protocol: &Protocol, hosts: &str, link: &Link, steps: &mut Steps) {
    let tls = match link.written.tls {
        TlsMode::None => "in clear",
        TlsMode::StartTls => "with STARTTLS",
        TlsMode::Implicit => "with implicit TLS",
    };
    steps.say("connect", format!("{}: to {hosts}, port {}, {tls}", protocol.name, link.port));
    let announced = match link.announce {
        Announce::Nothing => "the client's address is not announced",
        Announce::Inband if protocol.inband == Inband::Id => "the client's address is announced by ID",
        Announce::Inband => "the client's address is announced by XCLIENT, where it is offered",
        Announce::ProxyV2 => "the client's address is announced by the PROXY protocol",
    };
    steps.say("connect", format!("{}: {announced}", protocol.name));
}
