//! The mail protocols as Gatepost speaks them, before a log-in and where it takes mail: grammar and words, nothing else.
//!
//! Nothing here opens a socket, reads a clock, writes a log or knows the configuration. Each protocol is a pair of state
//! machines: towards the client a [`Front`], or where mail is taken a [`smtp::Receiver`], and towards the mail server a
//! [`Back`], after which a [`smtp::Handover`] takes over for mail. They take bytes and events and give back bytes and a step.
//! That makes every conversation a value that a test can replay whole, a byte at a time, and cut at every point.

mod conversation;
mod cursor;
mod exchange;
mod frame;
mod imap;
pub mod limits;
mod pop3;
mod protocols;
pub mod proxy_header;
pub mod sasl;
pub mod scram;
mod secret;
mod sieve;
pub mod smtp;
mod text;

pub use protocols::{
    Answer, Ask, Back, BackEvent, BackFault, BackLogin, BackSetup, BackStep, BuildBack, Carry, ClientFacts,
    ClientSetup, ClientTls, Course, Event, Front, Inband, Introduction, LogInBy, LogInMachines, LogInRules, Mechanism,
    OAuthHints, Offered, Offers, Outcome, PROTOCOLS, PasswordMechanism, Protocol, Refusal, ScramMechanism, Step,
    TokenMechanism, Welcome,
};
pub use secret::Secret;

/// The framers, open to the fuzz targets and to nobody else.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::frame::{Announced, Frame, Framer};
}
