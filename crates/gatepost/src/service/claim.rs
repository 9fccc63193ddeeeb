//! Who a client claims to be, and by what means: from what its protocol's front asks to a [`Claim`] that
//! can be checked, over as many messages as the mechanism takes.

use std::sync::Arc;

use gatepost_wire::scram::{Binding, ClientFinal, ClientFirst, client_final, client_first};
use gatepost_wire::{Answer, Ask, Credentials, Introduction, Mechanism, Proof, Secret, sasl};
use tokio::time::{Instant, timeout_at};

use super::Session;
use super::attempt::Begun;
use super::denied::Denied;
use super::reach::LoggedIn;
use crate::auth::scram::Challenge;
use crate::auth::{find_first, hash};
use crate::defence::Attempt;
use crate::directory::Entry;
use crate::metrics::Stage;
use crate::net::client_certificate;

/// Who a client claims to be.
pub(super) struct Claim {
    pub(super) mechanism: Mechanism,
    /// The name as the client wrote it; empty where its means say who it is.
    pub(super) written: String,
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
    challenged: Challenged,
    last: ClientFinal,
}

/// A challenge, and whom it was made for. Given up, it counts as a failed log-in: it has told what the directory keeps.
pub(super) struct Challenged {
    mechanism: Mechanism,
    /// As the client wrote it, and as users are looked up.
    written: String,
    user: String,
    challenge: Challenge,
    known: Known,
    /// Taken by whoever answers it.
    attempt: Option<Attempt>,
}

impl Drop for Challenged {
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
    Challenged(Box<Challenged>),
    /// A back end took the log-in; the client must still find that this is whom it wanted to talk to.
    Agreed(Box<LoggedIn>),
    In(Box<LoggedIn>),
}

impl Claim {
    /// What tells the client that we know its verifier; empty where there is none.
    fn signature(&self) -> String {
        match &self.means {
            Means::Scram(scram) => scram.challenged.challenge.signature(&scram.last),
            Means::Secret(_) | Means::Certificate => String::new(),
        }
    }

    fn of(credentials: Credentials) -> Self {
        let Credentials { mechanism, user, proof } = credentials;
        Self { mechanism, written: user, means: Means::Secret(proof) }
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
        let is_met = self.challenged.challenge.is_met(&self.last);
        match &self.challenged.known {
            Known::Account(by, entry) if is_met => Ok((Arc::clone(by), Entry::clone(entry))),
            Known::Account(..) | Known::Nobody => Err(Denied::Wrong),
            Known::Unfit(why) => Err(Denied::Unfit(why.clone())),
        }
    }
}

impl Session {
    /// Answers what a front asks, with what `progress` has of the questions before. `None`: the client is gone.
    pub(super) async fn reply_to(
        &mut self,
        ask: Ask,
        introduction: &Introduction,
        progress: &mut Progress,
    ) -> Option<Answer> {
        // Whatever was begun before is given up, unless this goes on with it.
        let before = std::mem::take(progress);
        let replied = match ask {
            Ask::Login(credentials) => self.log_in_at_once(Claim::of(credentials), introduction, progress).await,
            Ask::Exchange(mechanism @ Mechanism::External, message) => match sasl::external(&message) {
                Some(user) => self.log_in_at_once(self.certified(user), introduction, progress).await,
                None => self.malformed(mechanism).await,
            },
            Ask::Exchange(mechanism, message) => match client_first(&message) {
                Some(first) => self.challenge(mechanism, first, progress).await,
                None => self.malformed(mechanism).await,
            },
            Ask::Reply(mechanism, message) => match before {
                Progress::Challenged(challenged) => self.proved(*challenged, &message, introduction, progress).await,
                Progress::Agreed(logged_in) if message.is_empty() => Ok(welcome(logged_in, progress)),
                _ => self.malformed(mechanism).await,
            },
            Ask::Malformed(mechanism) => self.malformed(mechanism).await,
        };
        replied.map_or_else(Denied::answer, Some)
    }

    /// A claim that came with all that shows it.
    async fn log_in_at_once(
        &self,
        claim: Claim,
        introduction: &Introduction,
        progress: &mut Progress,
    ) -> Result<Answer, Denied> {
        let begun = self.begin(claim.mechanism, &claim.written).await?;
        let logged_in = self.carry_out(begun, &claim, introduction).await?;
        Ok(welcome(Box::new(logged_in), progress))
    }

    /// A log-in over several messages is not gone on with.
    pub(super) fn give_up(&self, progress: Progress) {
        if let Progress::Challenged(mut challenged) = progress
            && let Some(attempt) = challenged.attempt.take()
        {
            self.count_failure(attempt, 0, std::time::Instant::now());
        }
    }

    /// Something that no client can mean.
    async fn malformed(&self, mechanism: Mechanism) -> Result<Answer, Denied> {
        self.refuse_malformed(mechanism).await;
        Err(Denied::Wrong)
    }

    /// Who comes by a certificate: as `user`, or as the first that it names.
    fn certified(&self, user: String) -> Claim {
        let first = || self.certified_names().into_iter().next().unwrap_or_default();
        let written = if user.is_empty() { first() } else { user };
        Claim { mechanism: Mechanism::External, written, means: Means::Certificate }
    }

    /// The names in the client's certificate, as it has them.
    pub(super) fn certified_names(&self) -> Vec<String> {
        match (self.client.peer_certificate(), self.snapshot.listener.client_certificates()) {
            (Some(certificate), Some(settings)) => client_certificate::names(certificate, &settings.names),
            _ => Vec::new(),
        }
    }

    /// Challenges a client to prove that it knows its password.
    async fn challenge(
        &self,
        mechanism: Mechanism,
        first: ClientFirst,
        progress: &mut Progress,
    ) -> Result<Answer, Denied> {
        let started = Instant::now();
        let Begun { attempt, user } = self.begin(mechanism, &first.user).await?;
        let written = first.user.clone();
        let made = match timeout_at(self.deadline, self.make_challenge(mechanism, first, &user)).await {
            Ok(made) => made,
            Err(_) => Err(Denied::Unavailable("the directories took too long".into())),
        };
        let (challenge, known) = match made {
            Ok(made) => made,
            Err(denied) => {
                if denied.looks_wrong() {
                    self.take_time(Instant::now()).await;
                    self.count_failure(attempt, 0, std::time::Instant::now());
                }
                return Err(self.tell(denied));
            }
        };
        self.took(Stage::Auth, started.elapsed());
        let told = challenge.told().as_bytes().to_vec();
        let attempt = Some(attempt);
        *progress = Progress::Challenged(Box::new(Challenged { mechanism, written, user, challenge, known, attempt }));
        Ok(Answer::Challenge(told))
    }

    /// The client answers its challenge.
    async fn proved(
        &self,
        mut challenged: Challenged,
        message: &Secret,
        introduction: &Introduction,
        progress: &mut Progress,
    ) -> Result<Answer, Denied> {
        let mechanism = challenged.mechanism;
        let (Some(last), Some(attempt)) = (client_final(message), challenged.attempt.take()) else {
            return self.malformed(mechanism).await;
        };
        let begun = Begun { attempt, user: challenged.user.clone() };
        let written = challenged.written.clone();
        let claim = Claim { mechanism, written, means: Means::Scram(Box::new(Scram { challenged, last })) };
        let logged_in = self.carry_out(begun, &claim, introduction).await?;
        *progress = Progress::Agreed(Box::new(logged_in));
        Ok(Answer::Challenge(claim.signature().into_bytes()))
    }

    /// What to challenge a client with, and what its answer is to be checked against.
    async fn make_challenge(
        &self,
        mechanism: Mechanism,
        first: ClientFirst,
        user: &str,
    ) -> Result<(Challenge, Known), Denied> {
        let names = &self.snapshot.listener.settings.names;
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
        let binding = binding.filter(|_| is_itself).ok_or(Denied::Wrong)?;
        let (known, verifier) = match self.kept(user).await? {
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
fn welcome(logged_in: Box<LoggedIn>, progress: &mut Progress) -> Answer {
    let welcome = logged_in.connected.welcome.clone();
    *progress = Progress::In(logged_in);
    Answer::Welcome(welcome)
}
