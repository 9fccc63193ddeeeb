//! What the log says of mail: a record for each message, and for each sender and recipient who is refused.

use gatepost_wire::smtp::{Recipient, Reply, Sender};

use super::Mail;
use crate::config::Level;
use crate::log::{Draft, Field};
use crate::service::Session;

/// Recipients that a record names.
const NAMED_MAX: usize = 10;

impl Mail<'_> {
    /// A message has its record, whatever became of it.
    pub(super) fn note_message(&self, replies: &[Reply], taken: usize, size: u64) {
        let what = match taken {
            0 => "mail was refused",
            taken if taken == self.delivery.recipients().len() => "mail was handed over",
            _ => "mail was handed over for some recipients",
        };
        let user = self.session.story().user.clone();
        let backends = self.delivery.backends().join(",");
        let reply = replies.iter().find(|reply| !reply.is_good()).or(replies.first());
        self.draft(what)
            .with("from", Field::Name(sender_name(self.delivery.sender())))
            .with("to", Field::Name(some(&self.delivery.recipients())))
            .with("recipients", self.delivery.recipients().len() as u64)
            .with("size", size)
            .with_some("user", user.map(Field::Name))
            .with("backend", backends)
            .with_some("reply", reply.map(Reply::joined))
            .write();
    }

    /// Says why something was refused.
    pub(super) fn note(&self, what: &'static str, from: Option<&Sender>, to: Option<&Recipient>, reply: &Reply) {
        let to = to.map(|recipient| Field::Name(recipient.mailbox.text.clone()));
        self.draft(what)
            .with("from", Field::Name(sender_name(from)))
            .with_some("to", to)
            .with("reply", reply.joined())
            .write();
    }

    fn draft(&self, what: &'static str) -> Draft<'_> {
        let story = self.session.story();
        self.session
            .shared
            .log
            .record(Level::Info, story.protocol.name, what)
            .with("session", Field::Name(story.session.as_str().to_owned()))
            .with("rip", self.session.address.ip().to_canonical())
            .with_some("helo", self.receiver.helo().map(|helo| Field::Name(helo.to_owned())))
            .with_some("rdns", self.delivery.links.client_name().map(|name| Field::Name(name.to_owned())))
    }
}

/// A sender as the log has it.
fn sender_name(sender: Option<&Sender>) -> String {
    sender.map(|sender| sender.address().to_owned()).unwrap_or_default()
}

/// The first few of many.
fn some(names: &[&str]) -> String {
    let mut text = names[..names.len().min(NAMED_MAX)].join(" ");
    if names.len() > NAMED_MAX {
        text.push_str(" ...");
    }
    text
}

impl Session {
    /// Tells the administrator of something that many messages may meet.
    pub(super) fn report(&self, level: Level, what: &'static str, fault: &str) {
        let service = self.story().protocol.name;
        if let Some(times) = self.shared.log.seldom(&format!("{service} {what} {fault}")) {
            let record = self.shared.log.record(level, service, what);
            record.with("fault", fault).with("times", times).write();
        }
    }
}
