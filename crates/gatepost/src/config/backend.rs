//! Back ends as the configuration describes them.

use gatepost_wire::Protocol;

use super::is_this_machine;
use super::link::{Link, LinkSettings, link_of};
use super::problem::NamedFile;
use super::reader::Table;
use super::section::{Child, Written};
use super::tls::TlsMode;
use super::trust::Trust;
use super::values::{Delimiter, Port};

/// A mail server, or several that hold the same mail.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) written: BackendSettings,
    /// One for each configured service, by the protocol's name.
    pub(crate) links: Vec<(&'static str, Link)>,
}

section! {
    pub(crate) struct BackendSettings: "backend", "[backend.NAME]", "A mail server, or several that hold the same mail.", {
        read_apart: &[Child::Services(|_| OwnLink::SECTION)],
        reserved: &["webmail"],
    };
    hosts as "host": Vec<String>, "A name or address, or several, those that are down last. A name such as _imaps._tcp.example.org is looked up as a service (SRV), which says hosts and ports.";
    order: HostOrder = "listed", "Which of several hosts a user comes to: listed (the first that is in order) or spread (shared by the users' names; a user stays at the same one, and moves to another while that is down).";
    [login]: Option<MasterLogin>;
    => check_hosts;
}

section! {
    pub(super) struct OwnLink: "imap", "[backend.NAME.imap]", "Settings of [imap.backend] for this back end alone, and:";
    port: Option<Port>, "Default: the service's, for implicit TLS its own (the end of the reference lists them).";
    ..link: LinkSettings;
}

section! {
    pub(crate) struct MasterLogin: "login", "[backend.NAME.login]", "A master log-in (SASL PLAIN, with the user as authorisation identity) instead of the user's own.", {
        title: "Master log-in",
    };
    master: String, "Its name.";
    separator: Option<Delimiter>, "Log in as user, separator, master (such as kim*gatepost) instead of an authorisation identity.";
    password_file: NamedFile, "The file whose first line is its password.";
}

words! {
    /// Which of several hosts a user comes to.
    pub(crate) enum HostOrder {
        /// The first that is in order.
        Listed = "listed",
        /// By the user's name: each has its share, and a user stays at the same one.
        Spread = "spread",
    }
}

/// One back end, with its link for each service: the service's own settings, overridden by the back end's.
pub(super) fn read_backend(
    name: &str,
    table: &Table<'_>,
    services: &[(&'static Protocol, Table<'_>)],
) -> Option<Backend> {
    let written = BackendSettings::read(table);
    let is_near = written.iter().flat_map(|written| &written.hosts).all(|host| is_this_machine(host));
    let links = services.iter().filter_map(|(protocol, service)| {
        let own = table.of_service(protocol, OwnLink::SECTION);
        let OwnLink { port, link } = OwnLink::read_over(&own, service)?;
        let link = link_of(link, (&own, service), port, protocol)?;
        if link.written.tls == TlsMode::None && !is_near {
            let what = "none: passwords and mail cross the network to this back end in clear";
            own.warn_of(&LinkSettings::tls, what);
        }
        if matches!(link.written.trust(), Trust::Unchecked) && link.written.tls != TlsMode::None {
            let what = "the back end's certificate is not checked: anyone on the path can read passwords";
            own.warn_of(&LinkSettings::verify, what);
        }
        Some((protocol.name, link))
    });
    let links = links.collect();
    Some(Backend { name: name.to_owned(), written: written?, links })
}

fn check_hosts(read: &BackendSettings, table: &Table<'_>) {
    for host in read.hosts.iter().filter(|host| !is_host(host)) {
        let what = format_args!("expected a host name or address without a port, found {host:?}");
        table.problem_with(&BackendSettings::hosts, what);
    }
    if read.hosts.is_empty() {
        table.problem_with(&BackendSettings::hosts, "names no host");
    }
}

/// `host`, `host:port`, `[v6]:port`, or an IPv6 address by itself: the host, without brackets, and the port. `None`: it is none
/// of these.
pub(crate) fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, Some(port.parse().ok().filter(|port| *port != 0)?))
        }
        _ => (text, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    is_host(host).then_some((host, port))
}

/// A name or an address, as it may be looked up.
pub(crate) fn is_host(host: &str) -> bool {
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
    is_name || host.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        assert_eq!(split_port("10.0.0.1"), Some(("10.0.0.1", None)));
        assert_eq!(split_port("a.example.org:1143"), Some(("a.example.org", Some(1143))));
        assert_eq!(split_port("[::1]:1143"), Some(("::1", Some(1143))));
        assert_eq!(split_port("[::1]"), Some(("::1", None)));
        assert_eq!(split_port("::1"), Some(("::1", None)));
        for bad in ["a b", "a:x", "a:", "a:0", "a\r\nb", "", "a:70000", "user@host"] {
            assert_eq!(split_port(bad), None, "{bad:?}");
        }
    }
}
