//! The configuration of `gatepost serve --to`: one server, fronted without a file.

use super::{is_this_machine, split_port};

/// The configuration, as a file would say it. A server on this machine is spoken
/// to in clear; any other must offer STARTTLS, or on port 993 TLS.
pub(crate) fn single_backend(to: &Host) -> String {
    let Host { host, port } = to;
    let tls = match (is_this_machine(host), port) {
        (_, 993) => "implicit",
        (true, _) => "none",
        (false, _) => "starttls",
    };
    format!(
        "[imap]\nplaintext = \"loopback\"\n[[imap.listener]]\naddress = \"127.0.0.1:1143\"\ntls = \"none\"\n\
         [imap.backend]\ntls = \"{tls}\"\n[map]\ndefault = \"server\"\n[backend.server]\nhost = {host:?}\nimap = {{ port = {port} }}\n"
    )
}

/// A server to be fronted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl std::str::FromStr for Host {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected a host name or address, perhaps with a port, such as imap.example.org:993";
        let (host, port) = split_port(text).ok_or(expected)?;
        Ok(Self { host: host.to_owned(), port: port.unwrap_or(143) })
    }
}
