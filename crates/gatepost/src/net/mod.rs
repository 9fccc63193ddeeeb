//! Sockets and TLS. Knows nothing of mail: here belong bytes, addresses and certificates.

pub(crate) mod channel_binding;
pub(crate) mod client_certificate;
pub(crate) mod handover;
pub(crate) mod health;
pub(crate) mod http;
pub(crate) mod records;
pub(crate) mod resolve;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod tls;
