//! Gatepost, the mail front end: one program between the world's mail clients and an organisation's
//! mail servers. ARCHITECTURE.md shows the way of a connection through these modules.

mod acceptor;
mod admin;
mod auth;
mod backend;
mod cache;
mod cli;
mod config;
mod control;
mod defence;
mod directory;
#[cfg(test)]
mod documents;
mod explain;
#[doc(hidden)]
pub mod fuzzing;
mod ledger;
mod log;
mod map;
mod metrics;
mod net;
mod overrides;
mod rendezvous;
mod reports;
mod secret_file;
mod service;
mod sliding;
mod stamp;
mod story;
mod traces;
mod whole_file;
mod worker;
mod world;

/// Does what the command line says.
pub fn main() -> std::process::ExitCode {
    cli::run()
}
