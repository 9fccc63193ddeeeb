//! A message on its way to the back ends of its recipients.
//!
//! The content goes to all of them side by side. In LMTP each recipient has an answer of its own. In SMTP there is one for
//! all: where one back end fails before the end, the others never see the end, so that nobody has the message; where some
//! take it and others don't, the client is told to come again, and [`Delivered`] sees to it that all ends well.

use std::time::Duration;

use gatepost_wire::smtp::{Dialect, Path, Reply};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::delivered::{Delivered, Mark};
use super::leg::{Fault, Leg};
use crate::backend::Backend;

/// How long back ends may take for the answer to one command of the client's, all together (RFC 5321, section 4.5.3.2:
/// clients wait for five minutes, and for the answer to DATA for two).
pub(super) const COMMAND_TIME: Duration = Duration::from_secs(100);
/// How long one may take no more of the content.
const BLOCK_TIME: Duration = Duration::from_mins(3);
/// How long they have for their last words; clients wait for ten minutes.
const OUTCOME_TIME: Duration = Duration::from_mins(9);

/// See the module's documentation.
pub(super) struct Delivery {
    /// Kept for the session, since a client may have more than one message.
    legs: Vec<Leg>,
    /// What the client speaks.
    dialect: Dialect,
    /// All goes to the one leg that the client has logged in over.
    is_to_one: bool,
    sender: Option<Path>,
    /// For each accepted recipient, in their order, the leg.
    accepted: Vec<usize>,
    /// The only recipient is one whose mail is taken by itself.
    is_alone: bool,
    /// What was said already by a leg, or for it.
    verdicts: Vec<(usize, Reply)>,
    /// What is said to the client whatever back ends say.
    given_up: Option<Reply>,
    /// Of the content, where it may be wanted.
    digest: Option<Sha256>,
    /// What is remembered until the client has heard its answer.
    marks: Vec<Mark>,
    /// Back ends and what went wrong with them.
    faults: Vec<(String, String)>,
}

impl Delivery {
    /// To whatever back ends recipients have.
    pub(super) fn to_many(dialect: Dialect) -> Self {
        Self {
            legs: Vec::new(),
            dialect,
            is_to_one: false,
            sender: None,
            accepted: Vec::new(),
            is_alone: false,
            verdicts: Vec::new(),
            given_up: None,
            digest: None,
            marks: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// To the back end that a user has logged in at.
    pub(super) fn to_one(leg: Leg) -> Self {
        Self { legs: vec![leg], is_to_one: true, ..Self::to_many(Dialect::Smtp) }
    }

    pub(super) fn is_to_one(&self) -> bool {
        self.is_to_one
    }

    pub(super) fn client_dialect(&self) -> Dialect {
        self.dialect
    }

    /// The back ends of the message under way.
    pub(super) fn backends(&self) -> Vec<&str> {
        let used = |n: &usize| self.accepted.contains(n);
        (0..self.legs.len()).filter(used).map(|n| &*self.legs[n].backend).collect()
    }

    /// What went wrong with back ends since this was last asked.
    pub(super) fn take_faults(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.faults)
    }

    /// Whether there are connections that nothing is done with at the moment, and that could be had again.
    pub(super) fn is_idle(&self) -> bool {
        self.sender.is_none() && !self.is_to_one && !self.legs.is_empty()
    }

    pub(super) fn legs(&self) -> usize {
        self.legs.len()
    }

    /// A message begins. Who is to have it is not known yet, but for one who has logged in.
    pub(super) async fn begin(&mut self, sender: &Path) -> Reply {
        let reply = match self.legs.first_mut() {
            Some(leg) if self.is_to_one => answered(leg.begin(sender, Instant::now() + COMMAND_TIME).await),
            _ => Reply::ours(250, "2.1.0 Ok."),
        };
        if reply.is_good() {
            self.sender = Some(sender.clone());
        }
        reply
    }

    /// Whether a recipient, beside those that were accepted, must wait for an attempt of its own; a reply is what the
    /// client is told.
    pub(super) fn must_wait(&mut self, recipient: &str, delivered: &Delivered) -> Option<Reply> {
        if self.dialect == Dialect::Lmtp || self.is_to_one {
            return None;
        }
        let is_alone = delivered.has(&Mark::alone(self.sender.as_ref(), recipient));
        if !self.accepted.is_empty() && (is_alone || self.is_alone) {
            return Some(Reply::ours(
                452,
                "4.5.3 One recipient at a time: some have this sender's mail, some have not.",
            ));
        }
        self.is_alone = is_alone;
        None
    }

    pub(super) fn has_leg(&self, backend: &Backend) -> bool {
        self.leg(backend).is_some()
    }

    fn leg(&self, backend: &Backend) -> Option<usize> {
        self.legs.iter().position(|leg| leg.backend == backend.name)
    }

    pub(super) fn add_leg(&mut self, leg: Leg) {
        self.legs.push(leg);
    }

    /// Forgets a lost leg, if the message under way has nothing to do with it.
    pub(super) fn drop_unused_leg(&mut self, backend: &Backend) -> bool {
        match self.leg(backend) {
            // Numbers of others stay as they are only while nobody is behind it.
            Some(n) if !self.accepted.contains(&n) && n + 1 == self.legs.len() => {
                self.legs.pop();
                true
            }
            Some(n) if self.accepted.is_empty() => {
                self.legs.remove(n);
                true
            }
            _ => false,
        }
    }

    /// Names a recipient to their back end.
    pub(super) async fn add(&mut self, backend: &Backend, recipient: &Path, deadline: Instant) -> Result<Reply, Fault> {
        let (Some(n), Some(sender)) = (self.leg(backend), &self.sender) else {
            return Err(Fault::Unfit("there is no connection".into()));
        };
        let reply = self.legs[n].add(sender, recipient, deadline).await?;
        if reply.is_good() {
            self.accepted.push(n);
        }
        Ok(reply)
    }

    /// Names a recipient to the one back end there is.
    pub(super) async fn add_to_one(&mut self, recipient: &Path) -> Reply {
        let (Some(leg), Some(sender)) = (self.legs.first_mut(), &self.sender) else { return gone() };
        let reply = answered(leg.add(sender, recipient, Instant::now() + COMMAND_TIME).await);
        if reply.is_good() {
            self.accepted.push(0);
        }
        reply
    }

    /// Asks all back ends of the message whether its content may come; an error is what the client is told instead.
    pub(super) async fn ask_for_content(&mut self, delivered: &Delivered) -> Result<(), Reply> {
        let used: Vec<_> = (0..self.legs.len()).filter(|n| self.accepted.contains(n)).collect();
        let deadline = Instant::now() + COMMAND_TIME;
        for &n in &used {
            if let Err(fault) = self.legs[n].ask_for_content(deadline).await {
                self.fail(n, &fault);
            }
        }
        for &n in &used {
            if self.legs[n].is_lost() {
                continue;
            }
            match self.legs[n].may_send(deadline).await {
                Ok(None) => {}
                Ok(Some(reply)) => self.verdicts.push((n, reply)),
                Err(fault) => self.fail(n, &fault),
            }
        }
        let is_one_for_all = self.dialect == Dialect::Smtp;
        let is_nowhere = !used.iter().any(|&n| self.legs[n].takes_content());
        if is_nowhere || (is_one_for_all && !self.verdicts.is_empty()) {
            // Nobody has any of it yet: to begin anew costs nothing.
            return Err(in_one(self.verdicts.iter().map(|(_, reply)| reply)));
        }
        let can_differ =
            used.len() > 1 || used.iter().any(|&n| self.legs[n].answers_each() && self.recipients_of(n) > 1);
        self.digest = (is_one_for_all && (can_differ || !delivered.is_empty())).then(Sha256::new);
        Ok(())
    }

    /// Passes on a piece of the content.
    pub(super) async fn pass(&mut self, bytes: &[u8]) {
        if self.given_up.is_some() || bytes.is_empty() {
            return;
        }
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        for n in 0..self.legs.len() {
            if !self.legs[n].takes_content() {
                continue;
            }
            if let Err(fault) = self.legs[n].pass(bytes, Instant::now() + BLOCK_TIME).await {
                let said = self.legs[n].last_word().await;
                self.fail(n, &fault);
                let reply = said.unwrap_or_else(lost);
                self.verdicts.retain(|(leg, _)| *leg != n);
                self.verdicts.push((n, reply.clone()));
                if self.dialect == Dialect::Smtp {
                    self.give_up(&reply);
                    return;
                }
            }
        }
    }

    /// No back end gets the message: this is what the client is told when it has come to its end.
    pub(super) fn give_up(&mut self, reply: &Reply) {
        if self.given_up.is_none() {
            self.legs.iter_mut().filter(|leg| leg.takes_content()).for_each(Leg::give_up);
            self.given_up = Some(reply.clone());
        }
    }

    /// The content has come to its end: what the client is told, in LMTP for each recipient, and how many have the message.
    pub(super) async fn settle(&mut self, recipients: &[String], delivered: &Delivered) -> (Vec<Reply>, usize) {
        let replies = match self.given_up.take() {
            Some(reply) => vec![reply; self.accepted.len()],
            None => self.end(recipients, delivered).await,
        };
        let taken = replies.iter().filter(|reply| reply.is_good()).count();
        if self.dialect == Dialect::Lmtp {
            return (replies, taken);
        }
        if taken > 0 && taken < replies.len() {
            // From now on, one at a time: each has an answer of its own then.
            let alone = |recipient: &String| Mark::alone(self.sender.as_ref(), recipient);
            recipients.iter().map(alone).for_each(|mark| delivered.keep(mark));
        } else if self.is_alone {
            self.marks.extend(recipients.iter().map(|recipient| Mark::alone(self.sender.as_ref(), recipient)));
        }
        (vec![in_one(replies.iter())], taken)
    }

    /// The client has heard what became of its message, and that was final: nothing need be remembered.
    pub(super) fn heard(&mut self, delivered: &Delivered) {
        self.marks.drain(..).for_each(|mark| delivered.forget(&mark));
    }

    /// Ends the content everywhere but where it was taken before; what is said for each recipient.
    async fn end(&mut self, recipients: &[String], delivered: &Delivered) -> Vec<Reply> {
        let deadline = Instant::now() + OUTCOME_TIME;
        let digest = self.digest.take().map(Sha256::finalize);
        let mark = |(n, recipient): (&usize, &String)| {
            let backend = &self.legs[*n].backend;
            digest.as_ref().map(|content| Mark::taken(self.sender.as_ref(), recipient, backend, content))
        };
        let marks: Vec<_> = self.accepted.iter().zip(recipients).map(mark).collect();
        let is_known = |mark: &Option<Mark>| mark.as_ref().is_some_and(|mark| delivered.has(mark));
        for n in 0..self.legs.len() {
            if !self.legs[n].takes_content() {
                continue;
            }
            let mut of_leg = self.accepted.iter().zip(&marks).filter(|(leg, _)| **leg == n).map(|(_, mark)| mark);
            if of_leg.all(is_known) {
                // It has it from the last time, when another failed.
                self.legs[n].give_up();
                self.verdicts.push((n, Reply::ours(250, "2.0.0 Taken earlier.")));
            } else if let Err(fault) = self.legs[n].end(deadline).await {
                self.fail(n, &fault);
            }
        }
        let mut by_leg = Vec::new();
        for n in 0..self.legs.len() {
            let count = self.recipients_of(n);
            let verdict = self.verdicts.iter().find(|(leg, _)| *leg == n).map(|(_, reply)| reply.clone());
            by_leg.push(match verdict {
                _ if count == 0 => Vec::new(),
                Some(reply) => vec![reply; count],
                None => {
                    let (mut replies, fault) = self.legs[n].outcomes(count, deadline).await;
                    fault.iter().for_each(|fault| self.fail(n, fault));
                    replies.resize_with(count, lost);
                    replies
                }
            });
        }
        let replies = self.in_order(by_leg);
        // Until the client has heard it, nobody knows whether it will come again.
        for mark in replies.iter().zip(marks).filter(|(reply, _)| reply.is_good()).filter_map(|(_, mark)| mark) {
            delivered.keep(mark.clone());
            self.marks.push(mark);
        }
        replies
    }

    /// From the replies of each leg to those of each recipient, in the order in which those were accepted.
    fn in_order(&self, by_leg: Vec<Vec<Reply>>) -> Vec<Reply> {
        let mut by_leg: Vec<_> = by_leg.into_iter().map(Vec::into_iter).collect();
        self.accepted.iter().map(|&n| by_leg[n].next().unwrap_or_else(lost)).collect()
    }

    /// The message is done with, or given up.
    pub(super) fn reset(&mut self) {
        self.legs.iter_mut().for_each(Leg::give_up);
        if !self.is_to_one {
            self.legs.retain(|leg| !leg.is_lost());
        }
        self.accepted.clear();
        self.verdicts.clear();
        self.marks.clear();
        self.is_alone = false;
        (self.sender, self.given_up, self.digest) = (None, None, None);
    }

    /// Whether no back end will have the message.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.is_some()
    }

    /// Says goodbye everywhere.
    pub(super) async fn leave(&mut self) {
        for mut leg in std::mem::take(&mut self.legs) {
            leg.leave().await;
        }
    }

    fn recipients_of(&self, n: usize) -> usize {
        self.accepted.iter().filter(|leg| **leg == n).count()
    }

    fn fail(&mut self, n: usize, fault: &Fault) {
        self.faults.push((self.legs[n].backend.to_string(), fault.to_string()));
        self.verdicts.push((n, lost()));
    }
}

/// What the one back end there is says; without it, the client must go.
fn answered(answer: Result<Reply, Fault>) -> Reply {
    match answer {
        Ok(reply) => reply,
        Err(Fault::Lost(_)) => gone(),
        Err(Fault::Unfit(_)) => unfit(),
    }
}

/// A back end does not take this mail, for reasons that are not the client's.
pub(super) fn unfit() -> Reply {
    Reply::ours(451, "4.3.5 The mail server does not take this now, try again later.")
}

/// A back end did not come to an end with a message.
fn lost() -> Reply {
    Reply::ours(451, "4.4.2 A mail server failed within the message, try again later.")
}

/// The only back end there is has gone: so must the client.
fn gone() -> Reply {
    Reply::ours(421, "4.4.2 The mail server is lost.")
}

/// One answer of several: yes if all say so, and no for good only if all of them do.
fn in_one<'r>(replies: impl Iterator<Item = &'r Reply> + Clone) -> Reply {
    let (good, bad): (Vec<_>, Vec<_>) = replies.partition(|reply| reply.is_good());
    match (good.first(), bad.first()) {
        (Some(first), None) => (*first).clone(),
        (None, Some(first)) => {
            bad.iter().find(|reply| !is_for_good(reply)).map_or_else(|| (*first).clone(), |reply| transient(reply))
        }
        _ => Reply::ours(451, "4.3.0 Taken for some recipients; try again later for the others."),
    }
}

const fn is_for_good(reply: &Reply) -> bool {
    reply.code / 100 == 5
}

/// A reply by which nothing is refused for good.
fn transient(reply: &Reply) -> Reply {
    if reply.is_transient() { reply.clone() } else { lost() }
}
