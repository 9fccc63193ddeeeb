//! Directories: who is it and where is their mail, asked of real servers.

mod http;
mod ldap;
mod map;
mod oauth2;
mod silent;
mod sql;
