//! A message on its way to the back ends of its recipients.
//!
//! The content goes to all of them side by side. In LMTP each recipient has an answer of its own. In SMTP there is one for
//! all: where one back end fails before the end, the others never see the end, so that nobody has the message; where some
//! take it and others don't, the client is told to come again, and what was taken is remembered ([`Delivered`]), so that
//! it is not taken twice.

use gatepost_wire::smtp::{Dialect, Path, Reply};
use sha2::{Digest as _, Sha256};

use super::delivered::{Delivered, Mark};
use super::leg::{Fault, Leg};
use crate::backend::Backend;

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
    /// What was said already against handing over by a leg.
    verdicts: Vec<(usize, Reply)>,
    /// What is said to the client whatever back ends say.
    given_up: Option<Reply>,
    /// Of the content, where it may be wanted.
    digest: Option<Sha256>,
    faults: Vec<Fault>,
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
            verdicts: Vec::new(),
            given_up: None,
            digest: None,
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
    pub(super) fn take_faults(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.faults)
    }

    /// A message begins. Who is to have it is not known yet, but for one who has logged in.
    pub(super) async fn begin(&mut self, sender: &Path) -> Reply {
        self.sender = Some(sender.clone());
        match self.legs.first_mut() {
            Some(leg) if self.is_to_one => leg.begin(sender).await.unwrap_or_else(gone),
            _ => Reply::ours(250, "2.1.0 Ok."),
        }
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
    pub(super) async fn add(&mut self, backend: &Backend, recipient: &Path) -> Result<Reply, Fault> {
        let (Some(n), Some(sender)) = (self.leg(backend), &self.sender) else {
            return Err("there is no connection".into());
        };
        let reply = self.legs[n].add(sender, recipient).await?;
        if reply.is_good() {
            self.accepted.push(n);
        }
        Ok(reply)
    }

    /// Names a recipient to the one back end there is.
    pub(super) async fn add_to_one(&mut self, recipient: &Path) -> Reply {
        let (Some(leg), Some(sender)) = (self.legs.first_mut(), &self.sender) else { return gone(Fault::new()) };
        let reply = leg.add(sender, recipient).await.unwrap_or_else(gone);
        if reply.is_good() {
            self.accepted.push(0);
        }
        reply
    }

    /// Asks all back ends of the message whether its content may come; an error is what the client is told instead.
    pub(super) async fn ask_for_content(&mut self) -> Result<(), Reply> {
        let used: Vec<_> = (0..self.legs.len()).filter(|n| self.accepted.contains(n)).collect();
        for &n in &used {
            if let Err(fault) = self.legs[n].ask_for_content().await {
                self.fail(n, &fault);
            }
        }
        for &n in &used {
            if self.legs[n].is_lost() {
                continue;
            }
            match self.legs[n].may_send().await {
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
        self.digest = (is_one_for_all && can_differ).then(Sha256::new);
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
            if self.legs[n].takes_content()
                && let Err(fault) = self.legs[n].pass(bytes).await
            {
                self.fail(n, &fault);
                if self.dialect == Dialect::Smtp {
                    self.give_up(&lost());
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
    pub(super) async fn settle(
        &mut self,
        sender: Option<&Path>,
        recipients: &[String],
        delivered: &Delivered,
    ) -> (Vec<Reply>, usize) {
        let replies = match self.given_up.take() {
            Some(reply) => vec![reply; self.accepted.len()],
            None => self.end(sender, recipients, delivered).await,
        };
        let taken = replies.iter().filter(|reply| reply.is_good()).count();
        match self.dialect {
            Dialect::Smtp => (vec![in_one(replies.iter())], taken),
            Dialect::Lmtp => (replies, taken),
        }
    }

    /// Ends the content everywhere but where it was taken before; what is said for each recipient.
    async fn end(&mut self, sender: Option<&Path>, recipients: &[String], delivered: &Delivered) -> Vec<Reply> {
        let digest = self.digest.take().map(Sha256::finalize);
        let mark = |(n, recipient): (&usize, &String)| {
            digest.as_ref().map(|content| Mark::new(sender, recipient, &self.legs[*n].backend, content))
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
            } else if let Err(fault) = self.legs[n].end().await {
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
                None => self.legs[n].outcomes(count).await.unwrap_or_else(|fault| {
                    self.fail(n, &fault);
                    vec![lost(); count]
                }),
            });
        }
        let replies = self.in_order(by_leg);
        if replies.iter().any(Reply::is_good) && !replies.iter().all(Reply::is_good) {
            let taken = replies.iter().zip(marks).filter(|(reply, _)| reply.is_good()).filter_map(|(_, mark)| mark);
            taken.for_each(|mark| delivered.keep(mark));
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
        (self.sender, self.given_up, self.digest) = (None, None, None);
    }

    /// Says goodbye everywhere.
    pub(super) async fn leave(&mut self) {
        for leg in &mut self.legs {
            leg.leave().await;
        }
    }

    fn recipients_of(&self, n: usize) -> usize {
        self.accepted.iter().filter(|leg| **leg == n).count()
    }

    fn fail(&mut self, n: usize, fault: &str) {
        self.faults.push(format!("{}: {fault}", self.legs[n].backend));
        self.verdicts.push((n, lost()));
    }
}

/// A back end did not come to an end with a message.
fn lost() -> Reply {
    Reply::ours(451, "4.4.2 A mail server failed within the message, try again later.")
}

/// The only back end there is has gone: so must the client.
fn gone(_: Fault) -> Reply {
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
