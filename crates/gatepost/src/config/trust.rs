//! Servers that Gatepost asks: whose certificates are taken, and who could be on the path to them.

use std::net::IpAddr;

use super::problem::NamedFile;
use super::values::Pin;

/// Which servers' certificates are taken.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    /// Chain, name and time are checked.
    pub(crate) verify: bool,
    /// Against these authorities; `None`: the system's.
    pub(crate) ca: Option<NamedFile>,
    /// SHA-256 of certificates that are taken whatever else is wrong with them.
    pub(crate) pins: Vec<Pin>,
}

impl Trust {
    /// As most clients do: by these authorities, or the system's.
    pub(super) fn by(ca: Option<NamedFile>) -> Self {
        Self { verify: true, ca, pins: Vec::new() }
    }
}

/// Whether somebody could be on the path to a server and read what it is told.
pub(super) fn is_exposed(url: &hyper::Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    url.scheme_str() == Some("http") && !is_this_machine(host)
}

/// Whether a host is this machine, so that nobody is on the path to it.
pub(super) fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
