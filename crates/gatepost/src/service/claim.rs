//! Who a client claims to be, and how it shows that: from what its protocol's front asks to a name and [`Means`] that can
//! be checked, over as many messages as the mechanism takes.

use std::pin::pin;
use std::sync::Arc;

use gatepost_wire::sasl::{self, ActAs};
use gatepost_wire::scram::{Binding, ClientFinal, ClientFirst, client_final, client_first};
use gatepost_wire::{Answer, Ask, Mechanism, Offered, ScramMechanism, Secret};
use tokio::time::Instant;

use super::Session;
use super::denied::{Denied, Told};
use super::reach::{LoggedIn, Onward};
use crate::auth::scram::Challenge;
use crate::auth::{Unanswered, find_first, hash, unusable_entry};
use crate::backend::Shown;
use crate::defence::Attempt;
use crate::directory::{Entry, Fault, KeptSecret};
use crate::metrics::Stage;

/// What shows that a client is who it claims to be.
///
/// Users are named as they are looked up; `None`: what is shown must say who it is.
pub(super) enum Means {
    Password {
        user: String,
        password: Secret,
    },
    Token {
        user: Option<String>,
        token: Secret,
    },
    /// The certificate that TLS has checked.
    Certificate {
        user: Option<String>,
    },
    /// A proof that the client knows its password, which it doesn't show.
    Scram(Box<Scram>),
}

/// A challenge with the client's answer to it.
pub(super) struct Scram {
    pub(super) user: String,
    challenge: Challenge,
    known: Known,
    last: ClientFinal,
}

/// A challenge, and whom it was made for. Given up, it counts as a failed log-in: it has told what the directory keeps.
pub(super) struct Challenged {
    by: ScramMechanism,
    /// As users are looked up.
    user: String,
    challenge: Challenge,
    known: Known,
    attempt: Attempt,
}

/// What a directory keeps of somebody.
enum Known {
    /// This directory has the account, with something to check a proof against.
    Account(Arc<str>, Box<Entry>),
    Nobody,
    /// There is nothing to check a proof against; the text is for the administrator.
    Unfit(String),
}

/// How far a client's log-in has come.
#[derive(Default)]
pub(super) enum Progress {
    #[default]
    Nothing,
    /// The client must answer a challenge.
    Challenged(Box<Challenged>),
    /// A back end took the log-in; the client must still find that this is whom it wanted to talk to.
    Agreed(ScramMechanism, Box<LoggedIn>),
    In(Box<LoggedIn>),
}

impl Means {
    fn user(&self) -> Option<&str> {
        match self {
            Self::Password { user, .. } => Some(user),
            Self::Token { user, .. } | Self::Certificate { user } => user.as_deref(),
            Self::Scram(scram) => Some(&scram.user),
        }
    }

    /// What can be passed on to a back end.
    pub(super) fn shown(&self) -> Option<Shown<'_>> {
        match self {
            Self::Password { password, .. } => Some(Shown::Password(password)),
            Self::Token { token, .. } => Some(Shown::Token(token)),
            Self::Certificate { .. } | Self::Scram(_) => None,
        }
    }

    /// The password, where one was shown.
    pub(super) fn password(&self) -> Option<&Secret> {
        match self {
            Self::Password { password, .. } => Some(password),
            Self::Token { .. } | Self::Certificate { .. } | Self::Scram(_) => None,
        }
    }

    /// By what one failure is told from the next.
    pub(super) fn mark(&self) -> &[u8] {
        match self {
            Self::Password { password: secret, .. } | Self::Token { token: secret, .. } => secret.expose(),
            Self::Certificate { .. } => b"",
            Self::Scram(scram) => &scram.last.proof,
        }
    }
}

impl Scram {
    /// The directory and the account whose password the client knows.
    pub(super) fn check(&self) -> Result<(Arc<str>, Entry), Denied> {
        let is_met = self.challenge.is_met(&self.last);
        match &self.known {
            Known::Account(by, entry) if is_met => Ok((Arc::clone(by), Entry::clone(entry))),
            Known::Account(..) | Known::Nobody => Err(Denied::Wrong),
            Known::Unfit(why) => Err(Denied::Unfit(why.clone())),
        }
    }
}

impl Session {
    /// Answers what a front asks, with what is there of its questions `before`, and says how far that has come. `None`: the
    /// client is gone.
    pub(super) async fn reply_to(&mut self, ask: Ask, onward: &Onward, before: Progress) -> Option<(Answer, Progress)> {
        let replied = match (ask, before) {
            (Ask::Reply(message), Progress::Challenged(challenged)) => self.proved(challenged, &message, onward).await,
            (Ask::Reply(message), Progress::Agreed(_, logged_in)) if message.is_empty() => Ok(welcome(logged_in)),
            (Ask::Reply(_), Progress::Agreed(by, logged_in)) => {
                // The back end is left at once.
                drop(logged_in);
                Err(self.malformed(Mechanism::Scram(by)).await)
            }
            // There is no reply where nothing was asked.
            (Ask::Reply(_), Progress::Nothing | Progress::In(_)) => return None,
            (Ask::Begin(offered), before) => {
                self.give_up(before);
                self.begin_anew(offered, onward).await
            }
        };
        match replied {
            Ok(replied) => Some(replied),
            Err(told) => Some((told.answer()?, Progress::Nothing)),
        }
    }

    /// Answers what goes on with nothing that was before.
    async fn begin_anew(&mut self, offered: Offered, onward: &Onward) -> Result<(Answer, Progress), Told> {
        let looked_up = |written: String| self.snapshot.listener.settings.names.canonical(&written);
        let (mechanism, means) = match offered {
            Offered::Password(by, Some((user, password))) => {
                (Mechanism::Password(by), Means::Password { user: looked_up(user), password })
            }
            Offered::Password(by, None) => return Err(self.malformed(Mechanism::Password(by)).await),
            Offered::Token(by, Some((user, token))) => {
                (Mechanism::Token(by), Means::Token { user: user.map(looked_up), token })
            }
            Offered::Token(by, None) => return Err(self.malformed(Mechanism::Token(by)).await),
            Offered::External(message) => match sasl::external(&message) {
                Some(act_as) => {
                    (Mechanism::External, Means::Certificate { user: self.certified(act_as).map(looked_up) })
                }
                None => return Err(self.malformed(Mechanism::External).await),
            },
            Offered::Scram(by, message) => match client_first(&message) {
                Some(first) => return self.challenge(by, first).await,
                None => return Err(self.malformed(Mechanism::Scram(by)).await),
            },
        };
        // It came with all that shows it.
        let attempt = self.begin(mechanism, means.user()).await?;
        let logged_in = self.carry_out(attempt, &means, onward).await?;
        Ok(welcome(Box::new(logged_in)))
    }

    /// A log-in over several messages is not gone on with.
    pub(super) fn give_up(&self, progress: Progress) {
        if let Progress::Challenged(challenged) = progress {
            self.count_failure(challenged.attempt, 0);
        }
    }

    /// Who comes by a certificate: by itself as the first that this names.
    fn certified(&self, act_as: ActAs) -> Option<String> {
        match act_as {
            ActAs::Itself => self.certified_names().into_iter().next(),
            ActAs::User(user) => Some(user),
        }
    }

    /// Challenges a client to prove that it knows its password.
    async fn challenge(&self, by: ScramMechanism, first: ClientFirst) -> Result<(Answer, Progress), Told> {
        let user = self.snapshot.listener.settings.names.canonical(&first.user);
        let attempt = self.begin(Mechanism::Scram(by), Some(&user)).await?;
        let started = Instant::now();
        let made = self.in_time(started, pin!(self.make_challenge(by, first, &user))).await;
        let (challenge, known) = match made {
            Ok(made) => made,
            Err(denied) => return Err(self.refuse(attempt, 0, denied)),
        };
        self.took(Stage::Auth, started.elapsed());
        let told = challenge.told().as_bytes().to_vec();
        let challenged = Challenged { by, user, challenge, known, attempt };
        Ok((Answer::Challenge(told), Progress::Challenged(Box::new(challenged))))
    }

    /// The client answers its challenge.
    async fn proved(
        &self,
        challenged: Box<Challenged>,
        message: &Secret,
        onward: &Onward,
    ) -> Result<(Answer, Progress), Told> {
        let Challenged { by, user, challenge, known, attempt } = *challenged;
        let Some(last) = client_final(message) else {
            self.take_time(Instant::now()).await;
            return Err(self.refuse(attempt, 0, Denied::Wrong));
        };
        // What tells the client, once it is in, that we know its verifier.
        let signature = challenge.signature(&last).into_bytes();
        let means = Means::Scram(Box::new(Scram { user, challenge, known, last }));
        let logged_in = self.carry_out(attempt, &means, onward).await?;
        Ok((Answer::Challenge(signature), Progress::Agreed(by, Box::new(logged_in))))
    }

    /// What to challenge a client with, and what its answer is to be checked against.
    async fn make_challenge(
        &self,
        by: ScramMechanism,
        first: ClientFirst,
        user: &str,
    ) -> Result<(Challenge, Known), Denied> {
        let names = &self.snapshot.listener.settings.names;
        let is_itself =
            first.authzid.is_empty() || first.authzid == first.user || names.canonical(&first.authzid) == user;
        let binding = match (&first.binding, by) {
            (Binding::Type(kind), ScramMechanism::Bound) => self.binding(kind),
            (Binding::Unknown, ScramMechanism::Unbound) => Some(Vec::new()),
            (Binding::Unoffered, ScramMechanism::Unbound) if self.can_bind() => {
                let what = "the client says that it saw no -PLUS on offer, where there is one: somebody in between may \
                            have taken it away";
                return Err(Denied::Suspect(what.into()));
            }
            (Binding::Unoffered, ScramMechanism::Unbound) => Some(Vec::new()),
            _ => None,
        };
        let binding = binding.filter(|_| is_itself).ok_or(Denied::Wrong)?;
        let (known, verifier) = match self.kept(user).await? {
            Some((directory, entry)) => {
                match entry.password.as_ref().and_then(KeptSecret::expose_text).and_then(hash::scram) {
                    Some(Ok(verifier)) => (Known::Account(directory, Box::new(entry)), Some(verifier)),
                    Some(Err(unusable)) => {
                        let (directory, Fault(fault)) = (directory.to_string(), unusable_entry(unusable));
                        return Err(Unanswered { directory, fault }.into());
                    }
                    None => {
                        let what = "has no SCRAM-SHA-256 verifier for the user: the password must be set anew \
                                (`gatepost user set --scram`)";
                        (Known::Unfit(format!("{directory} {what}")), None)
                    }
                }
            }
            None => (Known::Nobody, None),
        };
        let verifier = verifier.unwrap_or_else(|| self.shared.decoys.verifier(user, &self.shared.log));
        let challenge = Challenge::new(first, verifier, binding);
        Ok((challenge.map_err(|error| Denied::Unavailable(error.to_string()))?, known))
    }

    /// The account in the first directory that knows the user.
    async fn kept(&self, user: &str) -> Result<Option<(Arc<str>, Entry)>, Denied> {
        let Some(checks) = &self.service().checks else { return Ok(None) };
        // The configuration names none here that only answers to who brings a password.
        let (authenticators, who) = (checks.passwords.clone(), self.who(user));
        let found = self.on_control(async move { find_first(&authenticators, &who).await }).await?;
        // A directory may take other letters as equal: that somebody else is there is nobody's to know.
        let names = &self.snapshot.listener.settings.names;
        Ok(found.filter(|(_, entry)| entry.is_of(user, names)))
    }
}

/// The user is in, and hears what the back end said.
fn welcome(logged_in: Box<LoggedIn>) -> (Answer, Progress) {
    (Answer::Welcome(logged_in.connected.welcome.clone()), Progress::In(logged_in))
}
