//! How a service talks to back ends, as the configuration describes it.

use std::net::IpAddr;
use std::time::Duration;

use gatepost_wire::smtp::Dialect;
use gatepost_wire::{Inband, Mechanism, PROTOCOLS, Protocol};
use toml::de::DeValue;

use super::problem::NamedFile;
use super::reader::Table;
use super::tls::TlsMode;
use super::trust::Trust;
use super::values::{Pin, Port, Value};

/// How one service talks to one back end.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// As it is written; what some of it means stands beside.
    pub(crate) written: LinkSettings,
    /// What is spoken: the service's own protocol, but that mail may come by SMTP and go on by LMTP.
    pub(crate) protocol: &'static Protocol,
    pub(crate) port: u16,
    pub(crate) announce: Announce,
}

/// How a back end learns the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announce {
    Nothing,
    /// In the protocol's own words.
    Inband,
    ProxyV2,
}

section! {
    pub(crate) struct LinkSettings: "backend", "[imap.backend]", "How this service talks to back ends. Each back end may set the same in a table with the service's name, such as [backend.NAME.imap].";
    tls: TlsMode = "starttls", "none, starttls (required, not tried) or implicit.";
    verify: bool = true, "Check the back end's certificate: its chain, its name and its time.";
    ca: Option<NamedFile>, "Authorities to check it against, PEM. Default: the system's.";
    pins as "pin_sha256": Vec<Pin> = [], "Certificates that are taken by their SHA-256 alone; any other is refused.";
    connect_timeout: Duration = "5s", "Name, connection, TLS and greeting of one host.";
    login_timeout: Duration = "30s", "The whole log-in, over all hosts.";
    max_connections: Option<u32>, "Connections at once to each back end, those of all services counted; beyond it this service's log-ins are refused.";
    source_addresses as "source_address": Vec<IpAddr> = [], "Local addresses to connect from, in turn.";
    mechanism: LoginBy = "best", "How to log in: best (of PLAIN, the bare command and LOGIN, or of OAUTHBEARER and XOAUTH2 with a token) or only this one.";
    check_interval: Interval = "30s", "How often each host is looked at: connect, TLS, greeting, goodbye. At once when a log-in fails there, and twice a second until it is back. At least 1s, or 0s: never.";
    speaks as "protocol": Option<MailProtocol>, "How mail is handed over: smtp or lmtp. Default: as it came. For [smtp.backend] and [lmtp.backend] alone.";
    announce: AnnounceBy = "auto", "Tell the back end the client's address: auto (IMAP: ID; all others: XCLIENT, where it is offered), none, id, xclient or proxy-v2.";
    => check;
}

words! {
    /// How the client's address is announced, as written.
    pub(crate) enum AnnounceBy {
        Auto = "auto",
        None = "none",
        Id = "id",
        Xclient = "xclient",
        ProxyV2 = "proxy-v2",
    }
}

words! {
    /// How mail is handed over, as written.
    pub(crate) enum MailProtocol {
        Smtp = "smtp",
        Lmtp = "lmtp",
    }
}

/// The only way to log in at a back end; `None`: the best that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoginBy(pub(crate) Option<Mechanism>);

words! {
    for LoginBy;
    "best" => LoginBy(None),
    "PLAIN" => LoginBy(Some(Mechanism::PLAIN)),
    "LOGIN" => LoginBy(Some(Mechanism::LOGIN)),
    "OAUTHBEARER" => LoginBy(Some(Mechanism::OAUTHBEARER)),
    "XOAUTH2" => LoginBy(Some(Mechanism::XOAUTH2)),
    "command" => LoginBy(Some(Mechanism::COMMAND)),
}

/// How often something is done; in the file, 0s stands for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval(pub(crate) Option<Duration>);

impl Value for Interval {
    const EXPECTED: &'static str = Duration::EXPECTED;

    fn read(value: &DeValue<'_>) -> Option<Self> {
        Duration::read(value).map(|interval| Self(Some(interval).filter(|interval| !interval.is_zero())))
    }

    fn show(&self) -> String {
        self.0.unwrap_or_default().show()
    }
}

impl LinkSettings {
    /// Which back ends are believed to be the ones.
    pub(crate) fn trust(&self) -> Trust {
        Trust::of(self.verify, self.ca.clone(), self.pins.clone())
    }
}

/// What is wrong with these settings wherever they stand.
fn check(read: &LinkSettings, table: &Table<'_>) {
    use LinkSettings as key;

    // A mistake is said where it stands, not again where it is inherited.
    for (timeout, time) in [(&key::connect_timeout, read.connect_timeout), (&key::login_timeout, read.login_timeout)] {
        if table.has(timeout.name) {
            table.more_than_nothing(timeout, time);
        }
    }
    let is_hasty = read.check_interval.0.is_some_and(|interval| interval < Duration::from_secs(1));
    if table.has(key::check_interval.name) && is_hasty {
        table.problem_with(&key::check_interval, "is at least 1s, or 0s for never");
    }
}

/// What the settings mean for a protocol. They stand in `own`, or else in the `service`'s table: so does a mistake in them.
pub(super) fn link_of(
    written: LinkSettings,
    (own, service): (&Table<'_>, &Table<'_>),
    port: Option<Port>,
    protocol: &'static Protocol,
) -> Option<Link> {
    let protocol = match written.speaks {
        None => protocol,
        Some(speaks) if protocol.course.dialect().is_some() => {
            let dialect = match speaks {
                MailProtocol::Smtp => Dialect::Smtp,
                MailProtocol::Lmtp => Dialect::Lmtp,
            };
            let is_it = |known: &&Protocol| known.course.dialect() == Some(dialect);
            PROTOCOLS.iter().find(is_it).unwrap_or(protocol)
        }
        Some(_) => {
            let at = own.where_written(service, &LinkSettings::speaks);
            at.problem_with(&LinkSettings::speaks, "goes with [smtp.backend] and [lmtp.backend]");
            return None;
        }
    };
    let announce = match written.announce {
        AnnounceBy::Auto => Announce::Inband,
        AnnounceBy::None => Announce::Nothing,
        AnnounceBy::ProxyV2 => Announce::ProxyV2,
        AnnounceBy::Id if protocol.inband == Inband::Id => Announce::Inband,
        AnnounceBy::Xclient if protocol.inband == Inband::Xclient => Announce::Inband,
        AnnounceBy::Id | AnnounceBy::Xclient => {
            let (has, other) = match protocol.inband {
                Inband::Id => ("id", "XCLIENT"),
                Inband::Xclient => ("xclient", "ID"),
            };
            let hint = format_args!("{} has no {other}; use {has}", protocol.title);
            own.where_written(service, &LinkSettings::announce).problem_with(&LinkSettings::announce, hint);
            return None;
        }
    };
    let usual = protocol.tls_port.filter(|_| written.tls == TlsMode::Implicit).unwrap_or(protocol.port);
    Some(Link { protocol, port: port.map_or(usual, |Port(port)| port), announce, written })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config;

    /// The problems of a file with two back ends.
    fn problems(service: &str, second: &str) -> Vec<String> {
        let text = format!(
            "[imap]\n[[imap.listener]]\naddress = \"127.0.0.1:1143\"\ntls = \"none\"\n[imap.backend]\n{service}\n\
             [map]\ndefault = \"a\"\n[backend.a]\nhost = \"127.0.0.1\"\n[backend.b]\nhost = \"127.0.0.1\"\n{second}\n"
        );
        let draft = config::parse(Path::new("gatepost.toml"), &text).expect("a file");
        draft.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_mistake_is_said_where_it_stands_and_once() {
        for (mistake, words) in
            [("announce = \"xclient\"", "has no XCLIENT"), ("protocol = \"lmtp\"", "goes with [smtp.backend]")]
        {
            let in_service = problems(mistake, "");
            let [problem] = &in_service[..] else { panic!("{in_service:?}") };
            assert!(problem.starts_with("gatepost.toml:6:") && problem.contains(words), "{problem}");
            let in_backend = problems("", &format!("[backend.b.imap]\n{mistake}"));
            let [problem] = &in_backend[..] else { panic!("{in_backend:?}") };
            assert!(problem.starts_with("gatepost.toml:14:") && problem.contains(words), "{problem}");
        }
    }
}
