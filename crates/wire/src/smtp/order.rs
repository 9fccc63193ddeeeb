//! The order of commands, from MAIL to what becomes of the mail: where a [`Receiver`](super::Receiver) stands in it, and what
//! may come next.

use super::envelope::Parameter;
use super::{Dialect, Reply};

/// Said where a sender must be named before.
const NO_MAIL: &str = "503 5.5.1 MAIL comes first.";

/// Whose turn it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    /// The client's, with a command.
    Client(Mail),
    /// The client's, with the rest of a chunk that nobody wants.
    Skip(Skipped, Mail),
    /// The outside's: may one send who asks for this?
    Sender(Needs),
    /// May one more recipient be had, who is counted already?
    Recipient(Envelope),
    /// May the content come by DATA?
    Content,
    /// A chunk passes by.
    Chunk(Envelope),
    /// The content passes by, and the outside says what becomes of it.
    Outcome,
}

/// The mail under way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mail {
    /// There is none. So many recipients had been accepted of one that failed before its last chunk, and chunks of it may
    /// still be on their way.
    Nothing { forgone: usize },
    /// It has a sender.
    Begun(Envelope),
    /// Some of its content has come by BDAT.
    Chunked(Envelope),
}

/// Mail that has a sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope {
    pub(super) needs: Needs,
    /// Recipients that were named, and those of them that were accepted.
    pub(super) named: usize,
    pub(super) accepted: usize,
}

/// What was asked for with the sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs {
    /// Addresses may have letters beyond ASCII (RFC 6531).
    pub(super) utf8: bool,
    /// The content need not be lines, and so has no end but its size (RFC 3030, section 3).
    pub(super) binary: bool,
}

/// A chunk that nobody wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Skipped {
    /// So many bytes of it are still to come.
    pub(super) left: u64,
    /// What is said then, and how often.
    pub(super) text: &'static str,
    pub(super) times: usize,
}

/// Why no content may come, as it is said.
pub(super) enum NotReady {
    /// Something must come before.
    OutOfOrder(&'static str),
    /// No recipient was accepted. Each has been answered, so that this is no further mistake.
    Nobody(&'static str),
}

impl Turn {
    /// The client's, of whose mail nothing is left.
    pub(super) const ANEW: Self = Self::Client(Mail::Nothing { forgone: 0 });

    /// Whose it is once the outside has said this.
    pub(super) fn after(self, reply: &Reply) -> Self {
        match self {
            Self::Sender(needs) if reply.is_good() => {
                Self::Client(Mail::Begun(Envelope { needs, named: 0, accepted: 0 }))
            }
            Self::Recipient(envelope) => {
                let accepted = envelope.accepted + usize::from(reply.is_good());
                Self::Client(Mail::Begun(Envelope { accepted, ..envelope }))
            }
            Self::Content if reply.code == 354 => Self::Outcome,
            Self::Sender(_) | Self::Content => Self::ANEW,
            Self::Chunk(envelope) if reply.is_good() => Self::Client(Mail::Chunked(envelope)),
            Self::Chunk(envelope) => Self::Client(Mail::Nothing { forgone: envelope.accepted }),
            Self::Client(_) | Self::Skip(..) | Self::Outcome => self,
        }
    }
}

impl Mail {
    /// The mail, if more recipients may be named.
    pub(super) fn takes_recipients(self) -> Result<Envelope, &'static str> {
        match self {
            Self::Nothing { .. } => Err(NO_MAIL),
            Self::Begun(envelope) => Ok(envelope),
            Self::Chunked(_) => Err("503 5.5.1 The message has begun."),
        }
    }

    /// The mail, if its content may come.
    pub(super) fn takes_content(self, dialect: Dialect) -> Result<Envelope, NotReady> {
        match self {
            Self::Nothing { .. } => Err(NotReady::OutOfOrder(NO_MAIL)),
            Self::Begun(Envelope { named: 0, .. }) => Err(NotReady::OutOfOrder("503 5.5.1 RCPT comes first.")),
            // As RFC 2033, section 4.2 has it; the same is known in SMTP as "no valid recipients".
            Self::Begun(Envelope { accepted: 0, .. }) => Err(NotReady::Nobody(match dialect {
                Dialect::Lmtp => "503 5.5.1 No valid recipients.",
                Dialect::Smtp => "554 5.5.1 No valid recipients.",
            })),
            Self::Begun(envelope) | Self::Chunked(envelope) => Ok(envelope),
        }
    }

    /// How often it is said that a chunk is not wanted, and what there is then. In LMTP the last has a reply for each recipient
    /// who was accepted, and none without any (RFC 2033, section 4.3).
    pub(super) fn past_chunk(self, is_last: bool, dialect: Dialect) -> (usize, Self) {
        match (self, dialect) {
            _ if !is_last => (1, self),
            (Self::Nothing { .. }, Dialect::Smtp) => (1, Self::Nothing { forgone: 0 }),
            (Self::Nothing { forgone }, Dialect::Lmtp) => (forgone.max(1), Self::Nothing { forgone: 0 }),
            (Self::Begun(_) | Self::Chunked(_), Dialect::Smtp) => (1, self),
            (Self::Begun(_) | Self::Chunked(_), Dialect::Lmtp) => (0, self),
        }
    }
}

impl Needs {
    /// Whether an address, and what stands behind it, may have the letters that they have.
    pub(super) fn check(self, address: &str, parameters: &[Parameter]) -> Result<(), &'static str> {
        if self.utf8 {
            return Ok(());
        }
        if !address.is_ascii() {
            return Err("553 5.6.7 This address needs SMTPUTF8.");
        }
        let are_plain =
            parameters.iter().all(|parameter| parameter.value.as_ref().is_none_or(|value| value.is_ascii()));
        if are_plain { Ok(()) } else { Err("501 5.5.4 Such a parameter needs SMTPUTF8.") }
    }
}
