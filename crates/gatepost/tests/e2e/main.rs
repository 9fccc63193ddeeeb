//! Gatepost end to end: the real binary between real clients and real mail servers and directories, on loopback.
//!
//! Each test makes its own bed: a folder, an authority, the servers it needs. Servers that misbehave,
//! which real ones don't, are threads of the test.

mod abuse;
mod access;
mod administration;
mod auth;
mod bed;
mod capabilities;
mod clients;
mod command_line;
mod console;
mod control;
mod dead_peers;
mod defence;
mod directories;
mod every_protocol;
mod faults;
mod filters;
mod health;
mod http_api;
mod logging;
mod mail;
mod mechanisms;
mod names;
mod operation;
mod pop3;
mod proxy_header;
mod relay;
mod shortage;
mod sieve;
mod storm;
mod submission;
mod talk;
mod tls;
mod tokens;
mod traces;
mod upgrade;
