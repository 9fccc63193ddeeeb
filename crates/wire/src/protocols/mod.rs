//! What every protocol has in common: the events and steps of its two state machines, the refusals it must have words for,
//! and the table in which it is one row.
//!
//! What only one protocol fills in belongs here where the outside passes it on, such as ID; what is said, and in which
//! grammar, stands in its own folder.

mod back;
mod credentials;
mod front;
mod offers;
mod refusal;
mod table;

pub use back::{Back, BackEvent, BackFault, BackLogin, BackSetup, BackStep, ClientFacts, LogInBy};
pub use credentials::{Mechanism, PasswordMechanism, ScramMechanism, TokenMechanism};
pub use front::{
    Answer, Ask, Carry, ClientSetup, ClientTls, Event, Front, Introduction, LogInRules, OAuthHints, Offered, Outcome,
    Step, Welcome,
};
pub use offers::Offers;
pub(crate) use refusal::LastWords;
pub use refusal::Refusal;
pub use table::{BuildBack, Course, Inband, LogInMachines, PROTOCOLS, Protocol};
