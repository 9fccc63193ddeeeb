//! Servers that Gatepost asks: whose certificates are taken, and who could be on the path to them.

use std::net::IpAddr;

use super::problem::NamedFile;
use super::values::Pin;

/// Which servers' certificates are taken.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// Chain, name and time are checked, against these authorities; `None`: the system's.
    By(Option<NamedFile>),
    /// Those with one of these SHA-256, whatever else is wrong with them.
    Pinned(Vec<Pin>),
    /// Any.
    Unchecked,
}

impl Trust {
    /// As the settings say together: pins come before all else.
    pub(super) fn of(verify: bool, ca: Option<NamedFile>, pins: Vec<Pin>) -> Self {
        match (verify, pins) {
            (_, pins) if !pins.is_empty() => Self::Pinned(pins),
            (true, _) => Self::By(ca),
            (false, _) => Self::Unchecked,
        }
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
