//! A service as the configuration describes it: how its clients are authenticated, and what mail it takes.

use std::sync::Arc;
use std::time::Duration;

use gatepost_wire::smtp::Dialect;
use gatepost_wire::{Course, LogInMachines, Mechanism, Protocol};

use super::access::{AccessRule, AccessSettings, Limits, check_counted_within, read_access};
use super::directory::{Directories, Directory, check_directories};
use super::is_host;
use super::link::{Link, LinkSettings};
use super::listener::{Listener, ListenerSettings, check_idle_timeout, read_listeners};
use super::map::Map;
use super::reader::Table;
use super::section::Child::{List, Table as One};
use super::section::{Key, Section, Written};
use super::tls::{ClientCertificates, TlsMode};
use super::values::Max;

/// One service: a protocol and how it is served.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) protocol: &'static Protocol,
    /// As its table has it; what some of it means stands beside.
    pub(crate) written: ServiceSettings,
    pub(crate) authenticate: Authenticate,
    pub(crate) access: Vec<AccessRule>,
    pub(crate) listeners: Vec<Listener>,
    /// How to talk to hosts that only a directory names.
    pub(crate) link: Link,
    pub(crate) task: Task,
}

/// What a service does for its clients.
#[derive(Debug, Clone)]
pub(crate) enum Task {
    /// They log in, and are connected with their back end.
    Relay(LogInMachines),
    /// They log in to send mail by names of their own, in these domains and those that a directory knows.
    Submit { machines: LogInMachines, domains: Vec<String> },
    /// They bring mail without a log-in.
    TakeMail(Dialect, Arc<MailSettings>),
}

impl Service {
    /// Domains that are ours, in lower case: whose mail is taken, or of which users are where they submit it.
    pub(crate) fn domains(&self) -> &[String] {
        match &self.task {
            Task::Relay(_) => &[],
            Task::Submit { domains, .. } => domains,
            Task::TakeMail(_, settings) => &settings.domains,
        }
    }

    /// Whether a password may be shown at all: a list of mechanisms that show none means the bare command too.
    pub(crate) fn lets_passwords_be_shown(&self) -> bool {
        let mechanisms = &self.written.mechanisms;
        mechanisms.is_empty() || mechanisms.iter().any(|mechanism| matches!(mechanism, Mechanism::Password(_)))
    }

    /// The text of its greeting, by which a back end that is really this Gatepost is known; `node` is our own name.
    pub(crate) fn own_greeting(&self, node: &str) -> String {
        // As backs read it: without blanks at its end.
        format!("{node} {}", self.written.greeting).trim_end().to_owned()
    }
}

section! {
    pub(crate) struct ServiceSettings: "imap", "[imap]", "The IMAP service. Every other service has the same under its own name (the end of the reference lists them), and the same tables below. It runs if this section stands in the file.", {
        read_apart: &[List(AccessSettings::SECTION), List(ListenerSettings::SECTION), One(LinkSettings::SECTION)],
    };
    authenticate: AuthenticateAt = "backend", "Who checks passwords: the back end alone, or Gatepost (proxy, against `directory`) and then the back end.";
    directory: Vec<String> = [], "The directory that checks passwords where `authenticate` is proxy, or several: the first that knows the user answers. The first of type oauth2 checks tokens.";
    mechanisms: Vec<Mechanism> = ["PLAIN", "LOGIN"], "SASL mechanisms offered. With EXTERNAL and the SCRAM ones nothing comes that could be passed on: the back end needs a master log-in, or the directory holds a password for it.";
    plaintext: Plaintext = "tls", "Where passwords are taken: under TLS only, loopback (also from 127.0.0.0/8 and ::1 in clear), or always.";
    greeting: String = "Gatepost ready.", "The greeting's text, behind the name.";
    id: bool = true, "Answer IMAP's ID command.";
    max_errors: Max = 10, "Wrong commands in one session, then it ends; 0: no limit.";
    max_auth_errors: Max = 3, "Failed log-ins in one session, then it ends; 0: no limit, which is warned of.";
    login_timeout: Duration = "1m", "From the connection to the log-in, or where nobody logs in to the first recipient that is taken, whatever arrives.";
    idle_timeout: Duration = "35m", "After log-in, without a byte either way; at least what the protocol's standard says (the end of the reference lists it).";
    [limits]: Limits;
    [client_certificates]: Option<ClientCertificates>;
    => check_service;
}

section! {
    pub(super) struct SubmissionSettings: "submission", "[submission]", "What [submission] has beside the settings of [imap].", {
        includes_apart: &[ServiceSettings::SECTION],
    };
    domains: Vec<String> = [], "With senders = \"own\": domains that are ours, where users log in by names without them or directories do not name accounts in full. `map.domain` is one of them.";
    senders: Senders = "any", "Whom users may name as the sender of mail (MAIL FROM): any, as far as the back end lets them; or own, which is their own name with its details and aliases, other addresses of ours that a directory gives the same back end and log-in, and nobody (<>).";
}

section! {
    pub(crate) struct MailSettings: "smtp", "[smtp]", "What [smtp] and [lmtp] have beside the settings of [imap]. Nobody logs in there: mail is taken for users that the map places, and handed over at once.", {
        includes_apart: &[ServiceSettings::SECTION],
    };
    domains: Vec<String> = [], "Domains all of whose addresses are taken, also those that no directory knows: the map's rules, spread or default say where they are. `map.domain` is one of them. Of other domains those are taken that stand in `map.aliases`, or that a directory knows in full.";
    helo: HeloCheck = "any", "What a client must call itself: any name, or strict (a fully qualified name or an address literal, and not ours).";
    reverse_dns: ReverseDns = "off", "Look up the client's name in the DNS: off, note (for the log and the back end) or require (a name that leads back to its address).";
    greet_delay: Duration = "0s", "Wait so long before the greeting; whoever talks before it is turned away.";
    [rates]: Rates;
}

section! {
    ///
    /// `None`: no limit.
    #[derive(Copy)]
    pub(crate) struct Rates: "rates", "[smtp.rates]", "How much mail is taken. What is beyond it is put off (450). `max_errors` also counts recipients who are refused for good, until a message is taken.";
    messages_per_ip: Option<u32>, "Messages within `interval` from one address (IPv6: one /64).";
    recipients_per_ip: Option<u32>, "Recipients within `interval` from one address.";
    messages_per_sender: Option<u32>, "Messages within `interval` by one sender.";
    interval: Duration = "1m", "The interval of the settings above, at most a day.";
    => check_rates;
}

/// Who checks passwords first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Authenticate {
    /// The back end alone.
    Backend,
    /// Gatepost, and then the back end: passwords against these directories in turn, tokens against one.
    Proxy { passwords: Vec<String>, tokens: Option<String> },
}

words! {
    /// Who checks passwords, as written.
    pub(crate) enum AuthenticateAt {
        Backend = "backend",
        Proxy = "proxy",
    }
}

words! {
    /// Where passwords may cross the wire in clear.
    pub(crate) enum Plaintext {
        Tls = "tls",
        Loopback = "loopback",
        Always = "always",
    }
}

words! {
    /// Whom a user who submits mail may name as its sender.
    pub(crate) enum Senders {
        /// As far as the back end lets them.
        Any = "any",
        /// Names of their own.
        Own = "own",
    }
}

words! {
    /// What a client of SMTP must call itself.
    pub(crate) enum HeloCheck {
        Any = "any",
        /// A name that could be theirs.
        Strict = "strict",
    }
}

words! {
    /// Whether a client's name is looked up.
    pub(crate) enum ReverseDns {
        Off = "off",
        /// For the log and the back end.
        Note = "note",
        /// Without one that leads back to its address, a client's mail is refused.
        Require = "require",
    }
}

/// What may stand in a service's table.
pub(super) fn service_section(protocol: &Protocol) -> &'static Section {
    match protocol.course {
        Course::LogIn(_) => ServiceSettings::SECTION,
        Course::Submission(_) => SubmissionSettings::SECTION,
        Course::Mail(_) => MailSettings::SECTION,
    }
}

pub(super) fn read_service(
    table: &Table<'_>,
    protocol: &'static Protocol,
    has_certificate: bool,
    directories: &Directories,
    map: (&Map, &Table<'_>),
    link: Option<Link>,
) -> Option<Service> {
    let written = ServiceSettings::read(table)?;
    let authenticate = authenticate(&written, table, directories);
    check_idle_timeout(table, &ServiceSettings::idle_timeout, written.idle_timeout, protocol);
    let listeners = read_listeners(table, protocol, written.idle_timeout, map, has_certificate);
    check_external(&written, table, protocol, &listeners);
    check_map(&written, table, map.0, directories);
    let task = match protocol.course {
        Course::LogIn(machines) => Task::Relay(machines),
        Course::Submission(machines) => {
            let SubmissionSettings { domains, senders } = SubmissionSettings::read(table)?;
            let domains = all_domains(table, &SubmissionSettings::domains, domains, map.0);
            match senders {
                Senders::Any => Task::Relay(machines),
                Senders::Own => Task::Submit { machines, domains },
            }
        }
        Course::Mail(dialect) => {
            let read = MailSettings::read(table)?;
            check_mail(table, map, directories);
            // They are meant in lower case, and with the map's own.
            let domains = all_domains(table, &MailSettings::domains, read.domains, map.0);
            Task::TakeMail(dialect, Arc::new(MailSettings { domains, ..read }))
        }
    };
    let nobody_has_tls =
        !listeners.is_empty() && listeners.iter().all(|listener| listener.written.tls == TlsMode::None);
    if !matches!(task, Task::TakeMail(..)) && written.plaintext == Plaintext::Tls && nobody_has_tls {
        table.warn_of(&ServiceSettings::plaintext, "tls: no listener has TLS, so that nobody can log in");
    }
    let access = read_access(table, protocol.name);
    let (authenticate, link) = (authenticate?, link?);
    Some(Service { protocol, written, authenticate, access, listeners, link, task })
}

fn check_service(read: &ServiceSettings, table: &Table<'_>) {
    use ServiceSettings as key;

    if read.mechanisms.is_empty() {
        table.warn_of(&key::mechanisms, "[]: clients are left with the bare log-in command");
    }
    if read.max_auth_errors.0.is_none() {
        table.warn_of(&key::max_auth_errors, "0: one connection may guess passwords without end");
    }
    if read.plaintext == Plaintext::Always {
        table.warn_of(&key::plaintext, "always: passwords cross the network in clear");
    }
    table.more_than_nothing(&key::login_timeout, read.login_timeout);
}

fn check_rates(read: &Rates, table: &Table<'_>) {
    check_counted_within(table, &Rates::interval, read.interval);
}

/// Log-ins by certificate need one to be asked for, and a name in it that is one user's.
fn check_external(written: &ServiceSettings, table: &Table<'_>, protocol: &Protocol, listeners: &[Listener]) {
    if !written.mechanisms.contains(&Mechanism::External) {
        return;
    }
    let asks = |listener: &Listener| listener.written.client_certificates.is_some();
    if written.client_certificates.is_none() && !listeners.iter().any(asks) {
        let what = "EXTERNAL is offered, but no client is asked for a certificate";
        let hint = format_args!("{what}: add [{}.client_certificate]", protocol.name);
        table.problem_with(&ServiceSettings::mechanisms, hint);
    }
    let strips_any = |listener: &Listener| listener.names.by.strip_domains.iter().any(|domain| domain == "*");
    if listeners.iter().any(strips_any) {
        let what = "EXTERNAL with strip_domains = \"*\": a certificate for kim of any domain is taken for kim's";
        table.warn_of(&ServiceSettings::mechanisms, what);
    }
}

/// The domains of a setting, and the map's own.
fn all_domains(table: &Table<'_>, key: &Key<Vec<String>>, domains: Vec<String>, map: &Map) -> Vec<String> {
    for domain in domains.iter().filter(|domain| !is_host(domain) || domain.ends_with('.')) {
        table.problem_with(key, format_args!("expected domains such as \"example.org\", found {domain:?}"));
    }
    map.completion.domain.clone().into_iter().chain(domains).map(|domain| domain.to_lowercase()).collect()
}

/// Those of the map's directories that only answer to who brings a password.
fn mute<'d>(map: &'d Map, directories: &'d Directories) -> impl Iterator<Item = &'d Directory> {
    let known = map.directories.iter().filter_map(|name| directories.get(name));
    known.filter(|directory| directory.abilities().is_some_and(|abilities| !abilities.finds))
}

/// Whether the map's directories answer to whoever may log in.
fn check_map(written: &ServiceSettings, table: &Table<'_>, map: &Map, directories: &Directories) {
    use ServiceSettings as key;

    let brings_none = |mechanism: &&Mechanism| mechanism.shows_token() || mechanism.is_carried();
    let Some(mechanism) = written.mechanisms.iter().find(brings_none) else { return };
    if let Some(mute) = mute(map, directories).next() {
        let what = "of map.directories only answers to who brings a password: such log-ins are refused";
        table.warn_of(&key::mechanisms, format_args!("{} is offered, but {} {what}", mechanism.name(), mute.name));
    }
}

/// Where mail is taken, nobody logs in.
fn check_mail(table: &Table<'_>, (map, map_table): (&Map, &Table<'_>), directories: &Directories) {
    use ServiceSettings as key;

    for name in [
        key::authenticate.name,
        key::directory.name,
        key::mechanisms.name,
        key::max_auth_errors.name,
        key::plaintext.name,
        key::id.name,
    ] {
        if table.has(name) {
            table.context.warning(table.at(), format!("[{}] {name} means nothing here: nobody logs in", table.path()));
        }
    }
    for directory in mute(map, directories) {
        let what = "only answers to who brings a password, and who sends mail brings none";
        map_table.problem_with(&Map::directories, format_args!("{} {what}", directory.name));
    }
}

fn authenticate(written: &ServiceSettings, table: &Table<'_>, known: &Directories) -> Option<Authenticate> {
    use ServiceSettings as key;

    let (mechanisms, names) = (&written.mechanisms, &written.directory);
    let find = |name: &String| known.get(name);
    check_directories(table, &key::directory, names);
    if written.authenticate == AuthenticateAt::Backend {
        if let Some(scram) = mechanisms.iter().find(|mechanism| mechanism.is_scram()) {
            let what = "is checked against what a directory keeps: it needs authenticate = \"proxy\"";
            table.problem_with(&key::mechanisms, format_args!("{} {what}", scram.name()));
        }
        return Some(Authenticate::Backend);
    }
    if names.is_empty() {
        table.problem_with(&key::authenticate, "proxy needs `directory`, which checks the passwords");
        return None;
    }
    let all_known = names.iter().all(|name| find(name).is_some());
    let (mut passwords, mut tokens) = (Vec::new(), Vec::new());
    for directory in names.iter().filter_map(find) {
        match directory.abilities() {
            Some(abilities) => passwords.push((&directory.name, abilities)),
            None => tokens.push(&directory.name),
        }
    }
    let keeps_hashes = passwords.iter().any(|(_, abilities)| abilities.keeps_hashes);
    for mechanism in mechanisms.iter().filter(|mechanism| mechanism.is_scram() && all_known && !keeps_hashes) {
        let what = "no directory of `directory` keeps anything to check it against: they check passwords themselves";
        table.problem_with(&key::mechanisms, format_args!("{} is offered, but {what}", mechanism.name()));
    }
    for mechanism in mechanisms.iter().filter(|mechanism| mechanism.is_carried() && all_known) {
        if let Some((mute, _)) = passwords.iter().find(|(_, abilities)| !abilities.finds) {
            let what = "only answers to who brings a password, and would be left out";
            table.problem_with(&key::mechanisms, format_args!("{} is offered, but {mute} {what}", mechanism.name()));
        } else if passwords.is_empty() {
            let what = "no directory of `directory` can be asked about users";
            table.problem_with(&key::mechanisms, format_args!("{} is offered, but {what}", mechanism.name()));
        }
    }
    let has_proof = |mechanism: &&Mechanism| !mechanism.is_carried();
    for mechanism in mechanisms.iter().filter(has_proof).filter(|_| all_known) {
        let what = match mechanism.shows_token() {
            true if tokens.is_empty() => "tokens: name one of type oauth2",
            false if passwords.is_empty() => "passwords: all are of type oauth2",
            _ => continue,
        };
        let message = format!("{} is offered, but no directory of `directory` checks {what}", mechanism.name());
        table.problem_with(&key::mechanisms, message);
    }
    if let Some((_, before)) = passwords.split_last() {
        for (name, _) in before.iter().filter(|(_, abilities)| !abilities.tells_unknown) {
            let what = "can't tell an unknown user from a wrong password: those behind it are never asked";
            table.warn_of(&key::directory, format_args!("{name} {what}"));
        }
    }
    for name in tokens.iter().skip(1) {
        let what = "is never asked: the first directory of type oauth2 checks all tokens";
        table.warn_of(&key::directory, format_args!("{name} {what}"));
    }
    Some(Authenticate::Proxy {
        passwords: passwords.into_iter().map(|(name, _)| name.clone()).collect(),
        tokens: tokens.first().map(|name| (*name).clone()),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config;

    #[test]
    fn a_greeting_ends_as_a_back_end_would_read_it() {
        for (written, greeting) in [("Welcome.", "node Welcome."), ("Welcome. ", "node Welcome.")] {
            let text = format!(
                "[imap]\ngreeting = \"{written}\"\n[map]\ndefault = \"a\"\n[backend.a]\nhost = \"127.0.0.1\"\n"
            );
            let draft = config::parse(Path::new("gatepost.toml"), &text).expect("a file");
            assert_eq!(draft.config.services[0].own_greeting("node"), greeting);
        }
    }

    #[test]
    fn it_is_said_which_directories_are_never_asked() {
        let sso = "type = \"oauth2\"\nissuer = \"https://sso.example\"\naudience = [\"mail\"]";
        let mute = "type = \"http\"\nurl = \"https://users.example\"";
        for (a, b, words) in [
            (sso, sso, "b is never asked: the first directory of type oauth2 checks all tokens"),
            (mute, mute, "a can't tell an unknown user from a wrong password: those behind it are never asked"),
        ] {
            let text = format!(
                "[pop3]\nauthenticate = \"proxy\"\ndirectory = [\"a\", \"b\"]\n[directory.a]\n{a}\n[directory.b]\n{b}\n"
            );
            let draft = config::parse_small(&text);
            let warnings: Vec<_> = draft.warnings.iter().map(ToString::to_string).collect();
            let said = warnings.iter().filter(|warning| warning.contains("never asked")).count();
            assert!(said == 1 && warnings.iter().any(|warning| warning.contains(words)), "{warnings:?}");
        }
    }

    #[test]
    fn a_directory_of_tokens_in_the_map_is_one_mistake() {
        let sso = "type = \"oauth2\"\nissuer = \"https://sso.example\"\naudience = [\"mail\"]";
        let text =
            format!("[imap]\nmechanisms = \"XOAUTH2\"\n[smtp]\n[map]\ndirectories = \"sso\"\n[directory.sso]\n{sso}\n");
        let draft = config::parse(Path::new("gatepost.toml"), &text).expect("a file");
        let said = draft.problems.iter().map(ToString::to_string).chain(draft.warnings.iter().map(ToString::to_string));
        let of_it: Vec<_> = said.filter(|said| said.contains("sso")).collect();
        assert!(of_it.len() == 1 && of_it[0].contains("sso knows tokens, not where mail is"), "{of_it:?}");
    }
}
