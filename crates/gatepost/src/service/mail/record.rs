//! What the log says of mail: a record for each message and each refusal.

use gatepost_wire::smtp::{Path, Reply};

use super::Mail;
use crate::config::Level;
use crate::log::{Draft, Field};

/// Recipients that a record names.
const NAMED_MAX: usize = 10;

impl Mail<'_> {
    /// A message has its record, whatever became of it.
    pub(super) fn note_message(&self, replies: &[Reply], taken: usize, size: u64) {
        let what = match taken {
            0 => "mail was refused",
            taken if taken == self.recipients.len() => "mail was handed over",
            _ => "mail was handed over for some recipients",
        };
        let story = &self.session.story;
        let backends = self.delivery.backends().join(",");
        let reply = replies.iter().find(|reply| !reply.is_good()).or(replies.first());
        self.draft(what)
            .with("from", Field::Name(sender_name(self.sender.as_ref())))
            .with("to", Field::Name(some(&self.recipients)))
            .with("recipients", self.recipients.len() as u64)
            .with("size", size)
            .with_some("user", story.user.clone().map(Field::Name))
            .with("backend", backends)
            .with_some("reply", reply.map(Reply::joined))
            .write();
    }

    /// Says why something was refused.
    pub(super) fn note(&self, what: &'static str, from: Option<&Path>, to: Option<&Path>, reply: &Reply) {
        let to = to.and_then(|path| path.mailbox.as_ref()).map(|mailbox| Field::Name(mailbox.text.clone()));
        self.draft(what)
            .with("from", Field::Name(sender_name(from)))
            .with_some("to", to)
            .with("reply", reply.joined())
            .write();
    }

    fn draft(&self, what: &'static str) -> Draft<'_> {
        let story = &self.session.story;
        self.session
            .shared
            .log
            .record(Level::Info, story.service, what)
            .with("session", Field::Name(story.session.as_str().to_owned()))
            .with("rip", self.session.address.ip().to_canonical())
            .with_some("helo", self.receiver.helo().map(|helo| Field::Name(helo.to_owned())))
            .with_some("rdns", self.client.name.clone().map(Field::Name))
    }
}

/// A sender as the log has it.
fn sender_name(sender: Option<&Path>) -> String {
    sender.and_then(|path| path.mailbox.as_ref()).map(|mailbox| mailbox.text.clone()).unwrap_or_default()
}

/// The first few of many.
fn some(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(" ");
    if names.len() > NAMED_MAX {
        text.push_str(" ...");
    }
    text
}
