//! What passes over the network below any protocol of mail: here belong sockets, TLS, names, HTTP as a client, and how servers
//! are doing.

pub(crate) mod channel_binding;
pub(crate) mod client_certificate;
#[cfg(test)]
pub(crate) mod ends;
pub(crate) mod handover;
pub(crate) mod health;
pub(crate) mod http;
pub(crate) mod records;
pub(crate) mod resolve;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod tls;
