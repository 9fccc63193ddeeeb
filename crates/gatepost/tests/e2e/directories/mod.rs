//! Directories: who is it and where is their mail, asked of real servers.

mod http;
mod ldap;
mod map;
mod oauth2;
mod silent;
mod sql;

/// What a client reads whose credentials are wrong, and where nobody can say whether they are.
const REFUSED: &str = "NO [AUTHENTICATIONFAILED] Authentication failed.";
const UNAVAILABLE: &str = "NO [UNAVAILABLE] Temporarily unavailable, try again later.";
