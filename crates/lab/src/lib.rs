//! Real servers on loopback, in temporary folders, for the demonstration, the tests and the benchmarks.
//!
//! Everything started here is ended with its group of processes when its value is dropped; should the program that started it
//! die first, the kernel ends what it started itself.

mod apt;
mod browser;
mod certificates;
mod databases;
mod dovecot;
mod gatepost;
mod ports;
mod postfix;
mod process;
mod slapd;

pub use apt::{ensure_packages, ensure_python_tool, ensure_unpacked};
pub use browser::{Browser, View, ensure_browser_tools};
pub use certificates::{Authority, Certificate};
pub use databases::{DATABASE_PASSWORD, DATABASE_USER, Database, DatabaseKind};
pub use dovecot::{Dovecot, MASTER, MASTER_PASSWORD, Mailbox, give_away, identity};
pub use gatepost::Gatepost;
pub use ports::{free_port, free_ports};
pub use postfix::{Postfix, PostfixSetup};
pub use process::{Process, Server, wait_for, wait_for_port, wait_for_within, wait_to_find};
pub use slapd::{LDAP_PEOPLE, LDAP_SEARCHER, LDAP_SEARCHER_PASSWORD, Person, Slapd};

/// Tries out an API by its `OpenAPI` document: package, version, program.
pub const SCHEMATHESIS: (&str, &str, &str) = ("schemathesis", "4.32.5", "schemathesis");

/// The definitions of OpenTelemetry's protocol, for a collector in Python: package, version, program.
pub const OTLP: (&str, &str, &str) = ("opentelemetry-proto", "1.45.2", "python");

/// What goes wrong here ends a test or the demonstration: a text for the person who started it.
pub type Result<T> = std::result::Result<T, String>;

/// Adds to an error what was being done.
pub(crate) fn context<T, E: std::fmt::Display>(
    result: std::result::Result<T, E>,
    what: impl std::fmt::Display,
) -> Result<T> {
    result.map_err(|error| format!("{what}: {error}"))
}
