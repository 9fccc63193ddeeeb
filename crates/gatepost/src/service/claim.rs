//! Who a client claims to be, and by what means: from what its protocol's front asks to a [`Claim`] that
//! can be checked, over as many messages as the mechanism takes.

use std::sync::Arc;

use gatepost_wire::scram::{Binding, ClientFinal, ClientFirst, client_final, client_first};
use gatepost_wire::{Answer, Ask, Credentials, Introduction, Mechanism, Proof, Refusal, Secret, Welcome, sasl};
use tokio::time::{Instant, timeout_at};

use super::Session;
use super::login::Denied;
use crate::auth::hash;
use crate::auth::scram::Challenge;
use crate::backend::Connected;
use crate::defence::Attempt;
use crate::directory::{Entry, Fault};
use crate::metrics::Stage;
use crate::net::client_certificate;

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

/// A challenge, and whom it was made for. Given up, it counts as a failed log-in: it has told what the directory keeps.
pub(super) struct Dare {
    mechanism: Mechanism,
    user: String,
    challenge: Challenge,
    known: Known,
    /// Taken by whoever answers it.
    attempt: Option<Attempt>,
}

impl Drop for Dare {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            // Who is gone need not be told what came of it.
            let _ = attempt.failed(0, std::time::Instant::now());
        }
    }
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
    /// What tells the client that we know its verifier; empty where there is none.
    fn signature(&self) -> String {
        match &self.means {
            Means::Scram(scram) => scram.dare.challenge.signature(&scram.last),
            Means::Secret(_) | Means::Certificate => String::new(),
        }
    }

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
    pub(super) async fn hear(&mut self, ask: Ask, introduction: &Introduction, progress: &mut Progress) -> Heard {
        // Whatever was begun before is given up, unless this goes on with it.
        let before = std::mem::take(progress);
        let claim = match ask {
            Ask::Login(credentials) => Claim::of(credentials),
            Ask::Hopeless(mechanism) => return self.hopeless(mechanism).await,
            Ask::Exchange(mechanism @ Mechanism::External, message) => match sasl::external(&message) {
                Some(user) => self.certified(user),
                None => return self.hopeless(mechanism).await,
            },
            Ask::Exchange(mechanism, message) => {
                return match client_first(&message) {
                    Some(first) => self.dare(mechanism, first, progress).await,
                    None => self.hopeless(mechanism).await,
                };
            }
            Ask::Reply(message) => match before {
                Progress::Dared(dare) => return self.dared(*dare, &message, introduction, progress).await,
                Progress::Agreed(agreed) if message.is_empty() => {
                    let (welcome, connected) = *agreed;
                    *progress = Progress::In(Box::new(connected));
                    return Heard::Answer(Answer::Welcome(welcome));
                }
                _ => return self.hopeless(Mechanism::Scram).await,
            },
        };
        let attempt = match self.take_up(claim.mechanism, &claim.user).await {
            Ok(attempt) => attempt,
            Err(denied) => return Heard::denied(denied),
        };
        match self.answer(attempt, &claim, introduction).await {
            Ok((welcome, connected)) => {
                *progress = Progress::In(Box::new(connected));
                Heard::Answer(Answer::Welcome(welcome))
            }
            Err(denied) => Heard::denied(denied),
        }
    }

    /// A log-in over several messages is not gone on with.
    pub(super) fn give_up(&self, progress: Progress) {
        if let Progress::Dared(mut dare) = progress
            && let Some(attempt) = dare.attempt.take()
        {
            self.count_failure(attempt, 0, std::time::Instant::now());
        }
    }

    async fn hopeless(&mut self, mechanism: Mechanism) -> Heard {
        self.refuse_hopeless(mechanism).await;
        Heard::Answer(Answer::Refused(Refusal::BadCredentials))
    }

    /// Who comes by a certificate: as `user`, or as the first that it names.
    fn certified(&self, user: String) -> Claim {
        let user = if user.is_empty() { self.certified_names().into_iter().next().unwrap_or_default() } else { user };
        Claim { mechanism: Mechanism::External, user, means: Means::Certificate }
    }

    /// The names in the client's certificate, as it has them.
    pub(super) fn certified_names(&self) -> Vec<String> {
        match (self.client.peer_certificate(), self.snapshot.listener.client_certificates()) {
            (Some(certificate), Some(settings)) => client_certificate::names(certificate, &settings.names),
            _ => Vec::new(),
        }
    }

    /// Challenges a client to prove that it knows its password.
    async fn dare(&mut self, mechanism: Mechanism, first: ClientFirst, progress: &mut Progress) -> Heard {
        let started = Instant::now();
        let attempt = match self.take_up(mechanism, &first.user).await {
            Ok(attempt) => attempt,
            Err(denied) => return Heard::denied(denied),
        };
        let made = match timeout_at(self.deadline, self.challenge(mechanism, first)).await {
            Ok(made) => made,
            Err(_) => Err(Denied::Fault(Refusal::Unavailable, "the directories took too long".into())),
        };
        match made {
            Ok((user, challenge, known)) => {
                self.took(Stage::Auth, started.elapsed());
                let told = challenge.told().as_bytes().to_vec();
                let attempt = Some(attempt);
                *progress = Progress::Dared(Box::new(Dare { mechanism, user, challenge, known, attempt }));
                Heard::Answer(Answer::Challenge(told))
            }
            Err(denied) => {
                if matches!(denied, Denied::Refused(_) | Denied::Unfit(_)) {
                    self.take_time(Instant::now()).await;
                    self.count_failure(attempt, 0, std::time::Instant::now());
                }
                self.tell(&denied);
                Heard::denied(denied)
            }
        }
    }

    /// The client answers its challenge.
    async fn dared(
        &mut self,
        mut dare: Dare,
        message: &Secret,
        introduction: &Introduction,
        progress: &mut Progress,
    ) -> Heard {
        let (Some(last), Some(attempt)) = (client_final(message), dare.attempt.take()) else {
            return self.hopeless(dare.mechanism).await;
        };
        let (mechanism, user) = (dare.mechanism, dare.user.clone());
        let claim = Claim { mechanism, user, means: Means::Scram(Box::new(Scram { dare, last })) };
        match self.answer(attempt, &claim, introduction).await {
            Ok(agreed) => {
                *progress = Progress::Agreed(Box::new(agreed));
                Heard::Answer(Answer::Challenge(claim.signature().into_bytes()))
            }
            Err(denied) => Heard::denied(denied),
        }
    }

    /// What to challenge a client with, and what its answer is to be checked against.
    async fn challenge(&self, mechanism: Mechanism, first: ClientFirst) -> Result<(String, Challenge, Known), Denied> {
        let names = &self.snapshot.listener.settings.names;
        let user = names.canonical(&first.user);
        let is_itself =
            first.authzid.is_empty() || first.authzid == first.user || names.canonical(&first.authzid) == user;
        let binding = match (&first.binding, mechanism) {
            (Binding::Type(kind), Mechanism::ScramPlus) => self.binding(kind),
            (Binding::Unknown, Mechanism::Scram) => Some(Vec::new()),
            (Binding::Unoffered, Mechanism::Scram) if self.can_bind() => {
                let what = "the client says that it saw no -PLUS on offer, where there is one: somebody in between may \
                            have taken it away";
                return Err(Denied::Unfit(what.into()));
            }
            (Binding::Unoffered, Mechanism::Scram) => Some(Vec::new()),
            _ => None,
        };
        let binding = binding.filter(|_| is_itself).ok_or(Denied::Refused(Refusal::BadCredentials))?;
        let (known, verifier) = match self.kept(&user).await? {
            Some((by, entry)) => match entry.password.as_deref().and_then(hash::scram) {
                Some(Ok(verifier)) => (Known::Account(by, Box::new(entry)), Some(verifier)),
                Some(Err(unusable)) => (Known::Unfit(format!("{by}: the entry can't be used: {unusable}")), None),
                None => {
                    let what = "has no SCRAM-SHA-256 verifier for the user: the password must be set anew \
                                (`gatepost user set --scram`)";
                    (Known::Unfit(format!("{by} {what}")), None)
                }
            },
            None => (Known::Nobody, None),
        };
        let verifier = verifier.unwrap_or_else(|| self.shared.strangers.verifier(&user, &self.shared.log));
        let user = first.user.clone();
        let challenge = Challenge::new(first, verifier, binding)
            .map_err(|error| Denied::Fault(Refusal::Unavailable, error.to_string()))?;
        Ok((user, challenge, known))
    }

    /// The account in the first directory that knows the user.
    async fn kept(&self, user: &str) -> Result<Option<(Arc<str>, Entry)>, Denied> {
        let Some(checks) = &self.snapshot.listener.service.checks else { return Ok(None) };
        let (judges, who) = (checks.passwords.clone(), self.who(user));
        let looking = async move {
            // The configuration names none here that only answers to who brings a password.
            for judge in judges.iter().filter(|judge| judge.directory.finds()) {
                let fault = |Fault(fault)| format!("{}: {fault}", judge.name);
                if let Some(entry) = judge.directory.find(&who).await.map_err(fault)? {
                    return Ok(Some((Arc::clone(&judge.name), entry)));
                }
            }
            Ok(None)
        };
        let found = self.on_control(looking).await.map_err(|fault| Denied::Fault(Refusal::Unavailable, fault))?;
        // A directory may take other letters as equal: that somebody else is there is nobody's to know.
        let names = &self.snapshot.listener.settings.names;
        let is_other = |entry: &Entry| entry.name.as_ref().is_some_and(|name| names.canonical(name) != user);
        Ok(found.filter(|(_, entry)| !is_other(entry)))
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
