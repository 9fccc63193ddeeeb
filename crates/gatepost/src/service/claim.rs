//! Who a client claims to be, and by what means: from what its protocol's front asks to a [`Claim`] that
//! can be checked, over as many messages as the mechanism takes.

use std::sync::Arc;

use gatepost_wire::scram::{Binding, ClientFinal, client_final, client_first};
use gatepost_wire::{Answer, Ask, Credentials, Mechanism, Proof, Refusal, Secret, Welcome, sasl};
use tokio::time::Instant;

use super::Session;
use super::login::Denied;
use crate::auth::hash;
use crate::auth::scram::Challenge;
use crate::backend::Connected;
use crate::directory::{Entry, Fault};

/// Who a client claims to be.
pub(super) struct Claim {
    pub(super) mechanism: Mechanism,
    /// As the client wrote it; empty where its means say who it is.
    pub(super) user: String,
    pub(super) means: Means,
}

/// What shows that a claim is true.
pub(super) enum Means {
    /// A password or token, which can be passed on.
    Secret(Proof),
    /// The certificate that TLS has checked.
    Certificate,
    /// A proof that the client knows its password, which it doesn't show.
    Scram(Box<Scram>),
}

/// A challenge with the client's answer to it.
pub(super) struct Scram {
    dare: Dare,
    last: ClientFinal,
}

/// A challenge, and whom it was made for.
pub(super) struct Dare {
    mechanism: Mechanism,
    user: String,
    challenge: Challenge,
    known: Known,
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
    Dared(Box<Dare>),
    /// A back end took the log-in; the client must still find that this is whom it wanted to talk to.
    Agreed(Box<(Welcome, Connected)>),
    In(Box<Connected>),
}

impl Claim {
    fn of(credentials: Credentials) -> Self {
        let Credentials { mechanism, user, proof } = credentials;
        Self { mechanism, user, means: Means::Secret(proof) }
    }
}

impl Means {
    /// What can be passed on to a back end.
    pub(super) fn proof(&self) -> Option<&Proof> {
        match self {
            Self::Secret(proof) => Some(proof),
            Self::Certificate | Self::Scram(_) => None,
        }
    }

    /// What was shown, by which one failure is told from the next.
    pub(super) fn shown(&self) -> &[u8] {
        match self {
            Self::Secret(Proof::Password(secret) | Proof::Token(secret)) => secret.expose(),
            Self::Certificate => b"",
            Self::Scram(scram) => &scram.last.proof,
        }
    }
}

impl Scram {
    /// The directory and the account whose password the client knows.
    pub(super) fn check(&self) -> Result<(Arc<str>, Entry), Denied> {
        let is_met = self.dare.challenge.is_met(&self.last);
        match &self.dare.known {
            Known::Account(by, entry) if is_met => Ok((Arc::clone(by), Entry::clone(entry))),
            Known::Account(..) | Known::Nobody => Err(Denied::Refused(Refusal::BadCredentials)),
            Known::Unfit(why) => Err(Denied::Unfit(why.clone())),
        }
    }
}

impl Session {
    /// Answers what a front asks, with what `progress` has of the questions before.
    pub(super) async fn hear(&mut self, ask: Ask, id: &[(String, String)], progress: &mut Progress) -> Heard {
        // Whatever was begun before is given up, unless this goes on with it.
        let before = std::mem::take(progress);
        let started = Instant::now();
        let claim = match ask {
            Ask::Login(credentials) => Claim::of(credentials),
            Ask::Hopeless(mechanism) => return self.hopeless(mechanism).await,
            Ask::Exchange(mechanism @ Mechanism::External, message) => match sasl::external(&message) {
                Some(user) => Claim { mechanism, user, means: Means::Certificate },
                None => return self.hopeless(mechanism).await,
            },
            Ask::Exchange(mechanism, message) => match self.dare(mechanism, &message).await {
                Ok(dare) => {
                    self.story.took.auth = Some(started.elapsed().into());
                    let told = dare.challenge.told().as_bytes().to_vec();
                    *progress = Progress::Dared(Box::new(dare));
                    return Heard::Answer(Answer::Challenge(told));
                }
                Err(Some(denied)) => {
                    self.tell(&denied);
                    return Heard::denied(denied);
                }
                Err(None) => return self.hopeless(mechanism).await,
            },
            Ask::Reply(message) => match (before, client_final(&message)) {
                (Progress::Dared(dare), Some(last)) => {
                    let (mechanism, user) = (dare.mechanism, dare.user.clone());
                    Claim { mechanism, user, means: Means::Scram(Box::new(Scram { dare: *dare, last })) }
                }
                (Progress::Agreed(agreed), _) if message.is_empty() => {
                    let (welcome, connected) = *agreed;
                    *progress = Progress::In(Box::new(connected));
                    return Heard::Answer(Answer::Welcome(welcome));
                }
                (Progress::Dared(dare), None) => return self.hopeless(dare.mechanism).await,
                _ => return self.hopeless(Mechanism::Scram).await,
            },
        };
        match self.answer(&claim, id).await {
            Ok((welcome, connected)) => {
                let answer = if let Means::Scram(scram) = &claim.means {
                    *progress = Progress::Agreed(Box::new((welcome, connected)));
                    Answer::Challenge(scram.dare.challenge.signature(&scram.last).into_bytes())
                } else {
                    *progress = Progress::In(Box::new(connected));
                    Answer::Welcome(welcome)
                };
                Heard::Answer(answer)
            }
            Err(denied) => Heard::denied(denied),
        }
    }

    async fn hopeless(&mut self, mechanism: Mechanism) -> Heard {
        self.refuse_hopeless(mechanism).await;
        Heard::Answer(Answer::Refused(Refusal::BadCredentials))
    }

    /// Challenges a client to prove that it knows its password. An error without a word: its message is none that
    /// anybody could answer.
    async fn dare(&self, mechanism: Mechanism, message: &Secret) -> Result<Dare, Option<Denied>> {
        let first = client_first(message).ok_or(None)?;
        let user = self.snapshot.listener.settings.names.canonical(&first.user);
        let is_itself = first.authzid.is_empty()
            || first.authzid == first.user
            || self.snapshot.listener.settings.names.canonical(&first.authzid) == user;
        let binding = match (&first.binding, mechanism) {
            (Binding::Type(kind), Mechanism::ScramPlus) => self.binding(kind),
            (Binding::Unknown, Mechanism::Scram) => Some(Vec::new()),
            // The client would have taken the other mechanism, had it seen that it is offered.
            (Binding::Unoffered, Mechanism::Scram) => (!self.can_bind()).then(Vec::new),
            _ => None,
        };
        let binding = binding.filter(|_| is_itself).ok_or(None)?;
        let unanswered = |fault| Some(Denied::Fault(Refusal::Unavailable, fault));
        let (known, verifier) = match self.kept(&user).await.map_err(unanswered)? {
            None => (Known::Nobody, None),
            Some((by, entry)) => match entry.password.as_deref().and_then(hash::scram) {
                Some(Ok(verifier)) => (Known::Account(by, Box::new(entry)), Some(verifier)),
                Some(Err(unusable)) => return Err(unanswered(format!("{by}: the entry can't be used: {unusable}"))),
                None => (
                    Known::Unfit(format!(
                        "{by} keeps no SCRAM-SHA-256 verifier for the user: the password must be set anew (`gatepost user set --scram`)"
                    )),
                    None,
                ),
            },
        };
        let verifier = verifier.unwrap_or_else(|| self.shared.strangers.verifier(&user, &self.shared.log));
        let user = first.user.clone();
        let challenge = Challenge::new(first, verifier, binding).map_err(|error| unanswered(error.to_string()))?;
        Ok(Dare { mechanism, user, challenge, known })
    }

    /// The account in the first directory that keeps passwords and knows the user.
    async fn kept(&self, user: &str) -> Result<Option<(Arc<str>, Entry)>, String> {
        let Some(checks) = &self.snapshot.listener.service.checks else { return Ok(None) };
        let (judges, who) = (checks.passwords.clone(), self.who(user));
        let looking = async move {
            for judge in judges.iter().filter(|judge| judge.directory.finds() && judge.directory.keeps_hashes()) {
                let fault = |Fault(fault)| format!("{}: {fault}", judge.name);
                if let Some(entry) = judge.directory.find(&who).await.map_err(fault)? {
                    return Ok(Some((Arc::clone(&judge.name), entry)));
                }
            }
            Ok(None)
        };
        self.on_control(looking).await
    }
}

/// What comes of a question.
pub(super) enum Heard {
    Answer(Answer),
    /// The client is gone.
    Left,
}

impl Heard {
    fn denied(denied: Denied) -> Self {
        Self::Answer(match denied {
            Denied::Left => return Self::Left,
            Denied::Refused(refusal) | Denied::Fault(refusal, _) => Answer::Refused(refusal),
            Denied::Misplaced(_) => Answer::Refused(Refusal::Unavailable),
            Denied::Unfit(_) => Answer::Refused(Refusal::BadCredentials),
            Denied::Passed(text) => Answer::Passed(text),
        })
    }
}
