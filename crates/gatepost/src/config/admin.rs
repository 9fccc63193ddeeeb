//! The ways in for administrators, as the configuration describes them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::problem::NamedFile;
use super::reader::Table;
use super::section::Written;
use super::tls::CertificateFiles;

/// The command line's way in, in the state folder.
pub(crate) const SOCKET_NAME: &str = "admin.sock";

/// The ways in for administrators.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    /// As its table has it.
    pub(crate) written: AdminSettings,
    /// Where the command line finds the running Gatepost.
    pub(crate) socket: PathBuf,
}

section! {
    pub(crate) struct AdminSettings: "admin", "[admin]", "The ways in for administrators.";
    listen: Vec<SocketAddr> = [], "Addresses of the console, the API under /api/v1, /metrics, /livez and /readyz, such as \"127.0.0.1:9000\". On other addresses than this machine's own (127.0.0.0/8, ::1), and with a `certificate`, HTTPS alone is spoken. None: off.";
    hosts: Vec<String> = [], "Names by which browsers may call it, beside localhost, its addresses, this node's name and those of its certificate.";
    metrics_token_file: Option<NamedFile>, "The file whose first line must come as a bearer token for /metrics. Left out: anybody may read them.";
    socket: Option<NamedFile>, "Where `gatepost status` and its like find the running server. Only the user that it runs as, and root, may ask. Default: admin.sock in the state folder.";
    [certificate]: Option<CertificateFiles>;
}

impl Admin {
    /// Whether the place of the socket is written in the file: then one that can't be had is an error, not a warning.
    pub(crate) fn is_socket_set(&self) -> bool {
        self.written.socket.is_some()
    }
}

pub(super) fn read_admin(table: &Table<'_>, state: &Path, has_certificate: bool) -> Option<Admin> {
    let written = AdminSettings::read(table)?;
    if let Some(open) = written.listen.iter().find(|address| !address.ip().is_loopback())
        && !has_certificate
        && written.certificate.is_none()
    {
        let what = "is reached from other machines: add [admin.certificate], so that passwords don't cross the network";
        table.problem_with(&AdminSettings::listen, format_args!("{open} {what} in clear"));
    }
    let socket = written.socket.as_ref().map_or_else(|| state.join(SOCKET_NAME), |socket| socket.to_path_buf());
    Some(Admin { written, socket })
}
