//! A message on its way to the back ends of its recipients.
//!
//! The content goes to all of them side by side. In LMTP each recipient has an answer of its own. In SMTP there is one for
//! all: where one back end fails before the end, the others never see the end, so that nobody has the message; where some
//! take it and others don't, the client is told to come again, and [`Memory`] sees to it that all ends well.

use std::sync::Arc;
use std::time::Duration;

use gatepost_wire::smtp::{self, Dialect, Fault, Grant, OwnReply, Reply, Sender};
use tokio::time::Instant;

use super::connection::Connection;
use super::content::Pace;
use super::links::Links;
use super::memory::{Fate, Fingerprint, Mark, Memory};
use crate::backend::Backend;

/// How long back ends may take for the answer to one command of the client's, all together (RFC 5321, section 4.5.3.2:
/// clients wait for five minutes, and for the answer to DATA for two).
pub(super) const COMMAND_TIME: Duration = Duration::from_secs(100);
/// How long one may take no more of the content.
const BLOCK_TIME: Duration = Duration::from_mins(3);
/// How long they have for their last words; clients wait for ten minutes.
pub(super) const OUTCOME_TIME: Duration = Duration::from_mins(9);

/// See the module's documentation.
pub(super) struct Delivery {
    pub(super) links: Links,
    message: Option<Message>,
    memory: Arc<Memory>,
    faults: Vec<BackendFault>,
}

/// What went wrong with a back end.
pub(super) struct BackendFault {
    pub(super) backend: Arc<str>,
    pub(super) fault: String,
}

/// The message under way.
struct Message {
    sender: Sender,
    /// Those that were accepted.
    recipients: Vec<Recipient>,
    /// How all of them fared before.
    fate: Fate,
    /// Kept where it may be wanted.
    fingerprint: Option<Fingerprint>,
    /// How fast its chunks come, between the first and the last.
    pace: Option<Pace>,
    /// What may be forgotten once the client has heard a final answer.
    marks: Vec<Mark>,
}

/// A recipient who was accepted.
struct Recipient {
    /// As the client wrote it.
    written: String,
    /// Whose connection it goes over.
    backend: Arc<str>,
    /// What became of the message.
    answer: Option<Reply>,
}

impl Delivery {
    pub(super) fn new(links: Links, memory: Arc<Memory>) -> Self {
        Self { links, message: None, memory, faults: Vec::new() }
    }

    /// Who sends the message under way.
    pub(super) fn sender(&self) -> Option<&Sender> {
        self.message.as_ref().map(|message| &message.sender)
    }

    /// Who is to have it, as far as they were accepted.
    pub(super) fn recipients(&self) -> Vec<&str> {
        self.message.iter().flat_map(|message| &message.recipients).map(|recipient| &*recipient.written).collect()
    }

    /// The back ends of the message under way.
    pub(super) fn backends(&self) -> Vec<&str> {
        self.used().into_iter().map(|n| &**self.links[n].backend()).collect()
    }

    /// The connections of the message under way.
    fn used(&self) -> Vec<usize> {
        (0..self.links.all().len()).filter(|&n| self.recipients_of(n) > 0).collect()
    }

    fn recipients_of(&self, n: usize) -> usize {
        let recipients = self.message.iter().flat_map(|message| &message.recipients);
        recipients.filter(|recipient| recipient.backend == *self.links[n].backend()).count()
    }

    /// Whether the message under way has begun to come in chunks.
    pub(super) fn is_in_chunks(&self) -> bool {
        self.message.as_ref().is_some_and(|message| message.pace.is_some())
    }

    /// How fast the message under way comes, until that is kept anew; `None`: no chunk of it has come.
    pub(super) fn take_pace(&mut self) -> Option<Pace> {
        self.message.as_mut().and_then(|message| message.pace.take())
    }

    /// More chunks are to come.
    pub(super) fn keep_pace(&mut self, pace: Pace) {
        if let Some(message) = &mut self.message {
            message.pace = Some(pace);
        }
    }

    /// What went wrong with back ends since this was last asked.
    pub(super) fn take_faults(&mut self) -> Vec<BackendFault> {
        std::mem::take(&mut self.faults)
    }

    /// Whether there are connections that nobody needs at the moment, and that could be had again.
    pub(super) fn is_idle(&self) -> bool {
        matches!(&self.links, Links::Many { connections, .. } if !connections.is_empty()) && self.used().is_empty()
    }

    /// A message begins. Who is to have it is not known yet, but for one who has logged in.
    pub(super) async fn begin(&mut self, sender: Sender) -> Reply {
        let reply = match &mut self.links {
            Links::One { connection, .. } => {
                let answer = connection.begin(&sender, Instant::now() + COMMAND_TIME).await;
                self.of_the_one(answer)
            }
            Links::Many { .. } => OwnReply::SenderOk.reply(),
        };
        if reply.is_good() {
            self.message = Some(Message {
                sender,
                recipients: Vec::new(),
                fate: Fate::Fresh,
                fingerprint: None,
                pace: None,
                marks: Vec::new(),
            });
        }
        reply
    }

    /// What a client is told whose recipient must wait for an attempt of its own: those who were accepted fared otherwise.
    pub(super) fn must_wait(&self, recipient: &str) -> Option<Reply> {
        let message = self.message.as_ref().filter(|message| !message.recipients.is_empty())?;
        let is_alike =
            self.links.dialect() == Dialect::Lmtp || self.memory.fate(&message.sender, recipient) == message.fate;
        (!is_alike).then(|| OwnReply::NotTogether.reply())
    }

    /// Forgets a connection, if there is one with which the message under way has nothing to do.
    pub(super) fn drop_unused(&mut self, backend: &Backend) -> bool {
        match self.links.position_of(&backend.name) {
            Some(n) if self.recipients_of(n) == 0 => self.links.remove(n),
            _ => false,
        }
    }

    /// Names a recipient, who is written so by the client and so for the back end, to it.
    pub(super) async fn add(
        &mut self,
        backend: &Backend,
        written: &str,
        recipient: &smtp::Recipient,
        deadline: Instant,
    ) -> Result<Reply, Fault> {
        let (Some(n), Some(message)) = (self.links.position_of(&backend.name), &mut self.message) else {
            return Err(Fault::Unfit("there is no connection".into()));
        };
        let reply = self.links[n].add(&message.sender, recipient, deadline).await?;
        if reply.is_good() {
            if message.recipients.is_empty() && self.links.dialect() == Dialect::Smtp {
                message.fate = self.memory.fate(&message.sender, written);
            }
            let backend = Arc::clone(self.links[n].backend());
            message.recipients.push(Recipient { written: written.to_owned(), backend, answer: None });
        }
        Ok(reply)
    }

    /// Names a recipient to the back end of the user who has logged in; `None`: nobody has.
    pub(super) async fn add_to_one(&mut self, recipient: &smtp::Recipient) -> Option<Reply> {
        let Links::One { connection, .. } = &mut self.links else { return None };
        let Some(message) = &mut self.message else { return Some(gone()) };
        let answer = connection.add(&message.sender, recipient, Instant::now() + COMMAND_TIME).await;
        if answer.as_ref().is_ok_and(Reply::is_good) {
            let backend = Arc::clone(connection.backend());
            message.recipients.push(Recipient { written: recipient.mailbox.text.clone(), backend, answer: None });
        }
        Some(self.of_the_one(answer))
    }

    /// What the one back end there is says; without it, the client must go.
    fn of_the_one(&mut self, answer: Result<Reply, Fault>) -> Reply {
        answer.unwrap_or_else(|fault| {
            self.note(0, &fault);
            if matches!(fault, Fault::Lost(_)) { gone() } else { unfit() }
        })
    }

    /// Asks all back ends of the message whether its content may come; an error is what the client is told instead.
    pub(super) async fn ask_for_content(&mut self) -> Result<(), Reply> {
        let used = self.used();
        let deadline = Instant::now() + COMMAND_TIME;
        for &n in &used {
            if let Err(fault) = self.links[n].ask_for_content(deadline).await {
                self.fail(n, &fault);
            }
        }
        for &n in &used {
            if self.links[n].is_lost() {
                continue;
            }
            match self.links[n].grant(deadline).await {
                Ok(Grant::Yes) => {}
                Ok(Grant::No(reply)) => self.answer(n, &reply),
                Err(fault) => self.fail(n, &fault),
            }
        }
        self.expect_content()?;
        self.begin_fingerprint();
        Ok(())
    }

    /// A chunk of so many bytes comes, which back ends are told.
    pub(super) async fn open_chunk(&mut self, size: u64, is_first: bool) {
        if is_first {
            self.begin_fingerprint();
        }
        let deadline = Instant::now() + COMMAND_TIME;
        for n in self.used() {
            if self.has_answered(n) {
                continue;
            }
            if let Err(fault) = self.links[n].open_chunk(size, deadline).await {
                self.fail(n, &fault);
            }
        }
        if self.is_hopeless() {
            self.abort();
        }
    }

    /// A chunk has been passed on. An error is what the client is told if no more need come.
    pub(super) async fn close_chunk(&mut self, deadline: Instant) -> Result<(), Reply> {
        for n in self.used() {
            match self.links[n].grant(deadline).await {
                Ok(Grant::Yes) => {}
                Ok(Grant::No(reply)) => self.answer(n, &reply),
                Err(fault) => self.fail(n, &fault),
            }
        }
        self.expect_content()
    }

    /// Gives the message up if nobody will have it, or in SMTP if not all will; an error is what the client is told. None of
    /// them has all of it: to begin anew costs nothing.
    fn expect_content(&mut self) -> Result<(), Reply> {
        if !self.is_hopeless() {
            return Ok(());
        }
        self.abort();
        Err(if self.links.dialect() == Dialect::Smtp { self.conclude() } else { in_one(&self.answers()) })
    }

    /// Whether no back end takes content, or in SMTP not all do.
    fn is_hopeless(&self) -> bool {
        let used = self.used();
        let takers = used.iter().filter(|&&n| self.links[n].takes_content()).count();
        takers == 0 || (self.links.dialect() == Dialect::Smtp && takers < used.len())
    }

    /// Takes note of the content where recipients may fare differently, or have done so before.
    fn begin_fingerprint(&mut self) {
        let used = self.used();
        let can_differ =
            used.len() > 1 || used.iter().any(|&n| self.links[n].answers_each() && self.recipients_of(n) > 1);
        let is_one_for_all = self.links.dialect() == Dialect::Smtp;
        if let Some(message) =
            self.message.as_mut().filter(|_| is_one_for_all && (can_differ || !self.memory.is_empty()))
        {
            message.fingerprint = Some(Fingerprint::default());
        }
    }

    /// Passes on a piece of the content.
    pub(super) async fn pass(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.is_given_up() {
            return;
        }
        if let Some(fingerprint) = self.message.as_mut().and_then(|message| message.fingerprint.as_mut()) {
            fingerprint.update(bytes);
        }
        for n in 0..self.links.all().len() {
            if !self.links[n].takes_content() {
                continue;
            }
            if let Err(fault) = self.links[n].pass(bytes, Instant::now() + BLOCK_TIME).await {
                let said = self.links[n].last_word().await;
                self.note(n, &fault);
                self.answer(n, &said.unwrap_or_else(lost));
                if self.links.dialect() == Dialect::Smtp {
                    self.abort();
                    return;
                }
            }
        }
    }

    /// No back end gets the message: this is what the client is told when it has come to its end.
    pub(super) fn refuse(&mut self, reply: &Reply) {
        if !self.is_given_up() {
            (0..self.links.all().len()).for_each(|n| self.answer(n, reply));
            self.abort();
        }
    }

    /// Whether no back end will have the message.
    pub(super) fn is_given_up(&self) -> bool {
        !self.links.all().iter().any(Connection::takes_content)
    }

    fn abort(&mut self) {
        self.links.all_mut().iter_mut().for_each(Connection::give_up);
    }

    /// The content has come to its end: what the client is told, in LMTP for each recipient, and how many have the message.
    pub(super) async fn settle(&mut self, deadline: Instant) -> (Vec<Reply>, usize) {
        self.end(deadline).await;
        let replies = self.answers();
        let taken = replies.iter().filter(|reply| reply.is_good()).count();
        match self.links.dialect() {
            Dialect::Smtp => (vec![self.conclude()], taken),
            Dialect::Lmtp => (replies, taken),
        }
    }

    /// Ends the content everywhere but where it was taken before, and hears what comes of it.
    async fn end(&mut self, deadline: Instant) {
        let content = self.message.as_mut().and_then(|message| message.fingerprint.take()?.finish());
        let connections: Vec<_> = (0..self.links.all().len()).filter(|&n| self.links[n].takes_content()).collect();
        let mut waiting = Vec::new();
        for n in connections {
            let known = content.as_ref().map(|content| self.known(n, content)).unwrap_or_default();
            if known > 0 {
                // Whoever has it has been answered, and those who have not come by themselves the next time.
                self.links[n].give_up();
                self.answer(n, &lost());
            } else if let Err(fault) = self.links[n].end(deadline).await {
                self.fail(n, &fault);
            } else {
                waiting.push(n);
            }
        }
        for n in waiting {
            let count = self.recipients_of(n);
            let (replies, fault) = self.links[n].outcomes(count, deadline).await;
            self.take_outcomes(n, &replies, content.as_ref());
            if let Some(fault) = fault {
                self.fail(n, &fault);
            }
        }
    }

    /// Answers for recipients of a connection who have this content from the last time, when others had not: how many they are.
    fn known(&mut self, n: usize, content: &[u8; 32]) -> usize {
        let Some(Message { sender, recipients, marks, .. }) = &mut self.message else { return 0 };
        let mut known = 0;
        let backend = self.links[n].backend();
        for recipient in recipients.iter_mut().filter(|recipient| recipient.backend == *backend) {
            let mark = Mark::taken(sender, &recipient.written, backend, content);
            if self.memory.has(&mark) {
                recipient.answer = Some(OwnReply::TakenEarlier.reply());
                marks.push(mark);
                known += 1;
            }
        }
        known
    }

    /// A back end has said what comes of it. Until the client has heard that, nobody knows whether it will come again.
    fn take_outcomes(&mut self, n: usize, replies: &[Reply], content: Option<&[u8; 32]>) {
        let Some(Message { sender, recipients, marks, .. }) = &mut self.message else { return };
        let backend = self.links[n].backend();
        for (recipient, reply) in recipients.iter_mut().filter(|recipient| recipient.backend == *backend).zip(replies) {
            recipient.answer = Some(reply.clone());
            if let Some(content) = content.filter(|_| reply.is_good()) {
                let mark = Mark::taken(sender, &recipient.written, backend, content);
                self.memory.keep(mark.clone());
                marks.push(mark);
            }
        }
    }

    /// The one answer for all recipients. Where they fared differently, that is remembered, so that the next time each has
    /// its own.
    fn conclude(&self) -> Reply {
        let replies = self.answers();
        let mut fates = replies.iter().map(Fate::of);
        let first = fates.next();
        if let (true, Some(message)) = (fates.any(|fate| Some(fate) != first), &self.message) {
            for (recipient, reply) in message.recipients.iter().zip(&replies) {
                self.memory.set_fate(&message.sender, &recipient.written, Fate::of(reply));
            }
        }
        in_one(&replies)
    }

    /// The client has heard what became of its message, and that was final: nothing need be remembered.
    pub(super) fn heard(&mut self) {
        let Some(message) = &mut self.message else { return };
        message.marks.drain(..).for_each(|mark| self.memory.forget(&mark));
        for recipient in &message.recipients {
            self.memory.set_fate(&message.sender, &recipient.written, Fate::Fresh);
        }
    }

    /// What is said for each recipient, in the order in which they were accepted.
    fn answers(&self) -> Vec<Reply> {
        let recipients = self.message.iter().flat_map(|message| &message.recipients);
        recipients.map(|recipient| recipient.answer.clone().unwrap_or_else(lost)).collect()
    }

    /// Says this of all recipients of a connection of whom nothing was said yet.
    fn answer(&mut self, n: usize, reply: &Reply) {
        let recipients = self.message.iter_mut().flat_map(|message| &mut message.recipients);
        let backend = self.links[n].backend();
        for recipient in recipients.filter(|recipient| recipient.backend == *backend) {
            recipient.answer.get_or_insert_with(|| reply.clone());
        }
    }

    /// Whether all recipients of a connection have an answer already.
    fn has_answered(&self, n: usize) -> bool {
        let mut recipients = self.message.iter().flat_map(|message| &message.recipients);
        recipients.all(|recipient| recipient.backend != *self.links[n].backend() || recipient.answer.is_some())
    }

    fn fail(&mut self, n: usize, fault: &Fault) {
        self.note(n, fault);
        self.answer(n, &lost());
    }

    fn note(&mut self, n: usize, fault: &Fault) {
        self.faults.push(BackendFault { backend: Arc::clone(self.links[n].backend()), fault: fault.to_string() });
    }

    /// The message is done with, or given up.
    pub(super) fn reset(&mut self) {
        self.abort();
        self.links.forget_lost();
        self.message = None;
    }
}

/// A back end does not take this mail, for reasons that are not the client's.
pub(super) fn unfit() -> Reply {
    OwnReply::ServerUnfit.reply()
}

/// A back end did not come to an end with a message.
fn lost() -> Reply {
    OwnReply::LostWithin.reply()
}

/// The only back end there is has gone: so must the client.
fn gone() -> Reply {
    OwnReply::OnlyServerLost.reply()
}

/// One answer of several: yes if all say so, and no for good only if all of them do.
fn in_one(replies: &[Reply]) -> Reply {
    let is_taken = replies.iter().any(Reply::is_good);
    match replies.iter().find(|reply| reply.is_transient()).or(replies.first()) {
        Some(_) if is_taken && !replies.iter().all(Reply::is_good) => OwnReply::TakenForSome.reply(),
        Some(reply) => reply.clone(),
        None => lost(),
    }
}
