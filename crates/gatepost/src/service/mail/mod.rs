//! Sessions in which mail is taken: from strangers (SMTP), from within the site (LMTP), and from users whose senders are
//! looked at (submission). Each message goes straight to the back ends of its recipients, and none is ever kept here.

mod delivered;
mod delivery;
mod leg;
pub(crate) mod rates;
pub(crate) mod welcome;

use std::sync::Arc;

use gatepost_wire::smtp::{Content, Dialect, Event, Path, Receiver, Reply, Step};
use gatepost_wire::{Carry, Introduction, Outcome, Refusal};
use tokio::time::{Instant, timeout_at};

use super::login::{Farewell, Received};
use super::{Session, listener};
use crate::backend::{Aim, Backend, Client, Connected, Purpose};
use crate::config::{Level, ReverseDns, Senders};
use crate::log::Field;
use crate::story::Ended;
pub(crate) use delivered::Delivered;
use delivery::Delivery;
use leg::Leg;
pub(crate) use rates::Rates;

/// Recipients that a record names.
const NAMED_MAX: usize = 10;

/// A conversation about mail.
struct Mail<'s> {
    session: &'s mut Session,
    receiver: Receiver,
    delivery: Delivery,
    /// The message under way.
    sender: Option<Path>,
    recipients: Vec<String>,
    out: Vec<u8>,
    tally: Tally,
    client: Stranger,
}

/// What became of it all.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    pub(crate) recipients: u64,
    pub(crate) bytes: u64,
}

/// What is known of a client beside its address.
#[derive(Debug, Default)]
struct Stranger {
    /// Its name in the DNS, if that leads back to its address.
    name: Option<String>,
    /// Why its mail is not taken.
    objection: Option<Reply>,
}

impl Session {
    /// Takes mail from whoever this is.
    pub(super) async fn take_mail(&mut self, dialect: Dialect) -> Ended {
        let client = match self.look_at_stranger().await {
            Ok(client) => client,
            Err(ended) => return ended,
        };
        let receiver = self.new_receiver(dialect, Carry::default());
        let mut mail = Mail::new(self, receiver, Delivery::to_many(dialect), client);
        let early = std::mem::take(&mut mail.session.early);
        let mut step = mail.receiver.step(Event::Start, &mut mail.out);
        if !early.is_empty() {
            step = mail.receiver.step(Event::Input(&early), &mut mail.out);
        }
        mail.run(step).await
    }

    /// Takes mail from a user who has logged in, for their own back end.
    pub(super) async fn submit(&mut self, connected: Connected, farewell: Farewell) -> Ended {
        self.story.logged_in();
        let Farewell { client_rest, helo, .. } = farewell;
        let protocol = self.snapshot.listener.service.settings.protocol;
        let receiver = Receiver::after_log_in(protocol, helo, self.receiver_setup(Carry::default()));
        let backend = self.story.backend.clone().unwrap_or_default();
        let leg = Leg::new(backend, Dialect::Smtp, connected);
        let mut mail = Mail::new(self, receiver, Delivery::to_one(leg), Stranger::default());
        mail.set_deadline();
        let mut step = mail.receiver.step(Event::Go, &mut mail.out);
        if !client_rest.is_empty() {
            step = mail.receiver.step(Event::Input(&client_rest), &mut mail.out);
        }
        mail.run(step).await
    }

    /// Waits before the greeting, where that is set, and finds out who the client is.
    async fn look_at_stranger(&mut self) -> Result<Stranger, Ended> {
        let service = Arc::clone(&self.snapshot.listener.service);
        let rules = &service.settings.mail;
        let patience = Instant::now() + rules.greet_delay;
        let name = match rules.reverse_dns {
            ReverseDns::Off => Ok(None),
            ReverseDns::Note | ReverseDns::Require => match self.snapshot.map.backends().resolver() {
                Some(resolver) => resolver.name_of(self.address.ip()).await,
                None => Err("names can't be looked up".into()),
            },
        };
        if self.client.tls_facts().is_none() && !rules.greet_delay.is_zero() {
            let mut bytes = Vec::new();
            if let Ok(read) = timeout_at(patience, self.client.read(&mut bytes)).await {
                if !matches!(read, Ok(count) if count > 0) {
                    return Err(Ended::Gone("left before the greeting".into()));
                }
                self.say_last(b"554 5.5.1 You talk before it is your turn.\r\n").await;
                return Err(Ended::Refused(Refusal::Misbehaved));
            }
        }
        let required = rules.reverse_dns == ReverseDns::Require;
        let objection = match &name {
            Ok(Some(_)) => None,
            Ok(None) => required.then(|| Reply::ours(550, "5.7.25 Your address has no name that leads back to it.")),
            Err(_) => required.then(|| Reply::ours(450, "4.7.25 Your address' name can't be looked up now.")),
        };
        Ok(Stranger { name: name.ok().flatten(), objection })
    }

    async fn say_last(&mut self, words: &[u8]) {
        let mut words = words.to_vec();
        // Who doesn't read them misses them.
        let _ = self.send(&mut words).await;
    }

    fn new_receiver(&self, dialect: Dialect, carry: Carry) -> Receiver {
        let service = &self.snapshot.listener.service.settings;
        Receiver::new(service.protocol, dialect, service.mail.is_strict, self.receiver_setup(carry))
    }

    fn receiver_setup(&self, carry: Carry) -> gatepost_wire::FrontSetup {
        let listener = &self.snapshot.listener;
        let client = listener::Client {
            address: self.address,
            is_secured: self.client.tls_facts().is_some(),
            has_certificate: self.client.peer_certificate().is_some(),
            can_bind: false,
        };
        let protocol = listener.service.settings.protocol;
        let offers = Receiver::carries(protocol, self.snapshot.map.offers(protocol));
        listener.front(&client, offers, carry, self.shared.log.wants(Level::Protocol))
    }
}

impl<'s> Mail<'s> {
    fn new(session: &'s mut Session, receiver: Receiver, delivery: Delivery, client: Stranger) -> Self {
        let (sender, recipients, out, tally) = (None, Vec::new(), Vec::new(), Tally::default());
        Self { session, receiver, delivery, sender, recipients, out, tally, client }
    }

    /// Talks until the end.
    async fn run(&mut self, mut step: Step) -> Ended {
        loop {
            self.trace();
            if let Err(ended) = self.session.send(&mut self.out).await {
                return ended;
            }
            if self.tally.recipients > 0 || self.delivery.is_to_one() {
                self.set_deadline();
            }
            step = match step {
                Step::Read => match self.session.receive().await {
                    Ok(Received::Bytes(bytes)) => self.tell(Event::Input(bytes.expose())),
                    Ok(Received::Nothing(refusal)) => self.tell(Event::Close(refusal)),
                    Err(Ended::Gone(why)) => return Ended::Served { why, tally: self.tally },
                    Err(ended) => return ended,
                },
                Step::StartTls => {
                    if let Err(ended) = self.session.secure().await {
                        return ended;
                    }
                    self.receiver = self.session.new_receiver(self.delivery.client_dialect(), self.receiver.carry());
                    self.tell(Event::Go)
                }
                Step::Sender(path) => {
                    let reply = self.sender(path).await;
                    self.tell(Event::Reply(reply))
                }
                Step::Recipient(path) => {
                    let reply = self.recipient(path).await;
                    self.tell(Event::Reply(reply))
                }
                Step::Content => match self.content().await {
                    Ok(step) => step,
                    Err(ended) => return ended,
                },
                Step::Reset => {
                    self.reset();
                    self.tell(Event::Done)
                }
                Step::Close(outcome) => {
                    self.delivery.leave().await;
                    let why = match outcome {
                        Outcome::LoggedOut => "the client said goodbye".to_owned(),
                        Outcome::Refused(refusal) => format!("{refusal:?}"),
                    };
                    return Ended::Served { why, tally: self.tally };
                }
            };
        }
    }

    fn tell(&mut self, event: Event<'_>) -> Step {
        self.receiver.step(event, &mut self.out)
    }

    /// From now on the client may be silent for so long.
    fn set_deadline(&mut self) {
        self.session.deadline = Instant::now() + self.session.snapshot.listener.settings.idle_timeout;
    }

    /// At level `protocol` the log shows the conversation.
    fn trace(&mut self) {
        let log = &self.session.shared.log;
        if log.wants(Level::Protocol) {
            let said = String::from_utf8_lossy(&self.out).into_owned();
            let lines = self.receiver.take_trace().into_iter().map(|line| format!("C: {line}"));
            for line in lines.chain(said.lines().map(|line| format!("S: {line}"))) {
                self.session.story.tell_line(log, "client", line);
            }
        }
    }

    fn reset(&mut self) {
        self.delivery.reset();
        self.sender = None;
        self.recipients.clear();
    }

    /// May this sender send?
    async fn sender(&mut self, path: Path) -> Reply {
        self.reset();
        let session = &mut *self.session;
        if let Some(objection) = &self.client.objection {
            return objection.clone();
        }
        let needs_tls = session.snapshot.listener.client_certificates().is_some_and(|clients| clients.required);
        if needs_tls && session.client.tls_facts().is_none() {
            return Reply::ours(530, "5.7.0 Must issue a STARTTLS command first.");
        }
        let name = path.mailbox.as_ref().map(gatepost_wire::smtp::Mailbox::name);
        if session.snapshot.listener.service.settings.senders == Senders::Own
            && let Some(name) = &name
            && !session.owns(name).await
        {
            let reply = Reply::ours(553, "5.7.1 This is not your address.");
            self.note("a sender was refused", Some(&path), &reply);
            return reply;
        }
        if let Some(reply) = session.count_message(name.as_deref()) {
            self.note("mail was put off", Some(&path), &reply);
            return reply;
        }
        let reply = self.delivery.begin(&path).await;
        if reply.is_good() {
            self.sender = Some(path);
        }
        reply
    }

    /// May this recipient be had?
    async fn recipient(&mut self, path: Path) -> Reply {
        let reply = self.try_recipient(&path).await;
        if reply.is_good() {
            self.tally.recipients += 1;
            self.recipients.extend(path.mailbox.map(|mailbox| mailbox.text));
        } else {
            self.note("a recipient was refused", Some(&path), &reply);
        }
        reply
    }

    async fn try_recipient(&mut self, path: &Path) -> Reply {
        if let Some(reply) = self.session.count_recipient() {
            return reply;
        }
        if self.delivery.is_to_one() {
            return self.delivery.add_to_one(path).await;
        }
        let (backend, path) = match self.session.place(path).await {
            Ok(placed) => placed,
            Err(reply) => return reply,
        };
        let mut is_fresh = false;
        loop {
            if !self.delivery.has_leg(&backend) {
                match self.engage(&backend, &path).await {
                    Ok(leg) => self.delivery.add_leg(leg),
                    Err(reply) => return reply,
                }
                is_fresh = true;
            }
            match self.delivery.add(&backend, &path).await {
                Ok(reply) => return reply,
                // It may have hung up in the long time in which there was nothing to say to it.
                Err(_) if !is_fresh && self.delivery.drop_unused_leg(&backend) => {}
                Err(fault) => {
                    self.complain(&backend, &fault);
                    return Reply::ours(451, "4.4.2 The mail server of this user is lost, try again later.");
                }
            }
        }
    }

    /// A connection to a back end over which mail can be handed over.
    async fn engage(&mut self, backend: &Arc<Backend>, path: &Path) -> Result<Leg, Reply> {
        let session = &mut *self.session;
        session.story.backend = Some(Arc::clone(&backend.name));
        let service = &session.snapshot.listener.service;
        let (greeting, protocol) = (service.greeting(), service.settings.protocol);
        let helo = self.receiver.helo().map(str::to_owned);
        let introduction = Introduction { helo, ..Introduction::default() };
        let trace = session.shared.log.wants(Level::Protocol);
        let tell = |line| session.story.tell_line(&session.shared.log, "back end", line);
        let user = path.mailbox.as_ref().map(gatepost_wire::smtp::Mailbox::name).unwrap_or_default();
        let purpose = Purpose {
            protocol,
            user: &user,
            aim: Aim::Deliver,
            client: Client {
                address: session.address,
                local: session.local,
                session: session.story.session.as_str(),
                name: self.client.name.as_deref(),
                introduction: &introduction,
            },
            own_greeting: &greeting,
            own_listeners: &session.snapshot.own_listeners,
            deadline: Instant::now() + leg::COMMAND_TIME,
            tell: trace.then_some(&tell),
        };
        match backend.log_in(&purpose).await {
            Ok(connected) => {
                session.story.host = Some(connected.host);
                session.story.backend_tls = connected.tls;
                let dialect = backend.dialect(protocol);
                Ok(Leg::new(Arc::clone(&backend.name), dialect, connected))
            }
            Err(failure) => {
                self.complain(backend, &failure.to_string());
                Err(Reply::ours(451, "4.4.1 The mail server of this user can't be reached, try again later."))
            }
        }
    }

    /// Tells the administrator what is wrong with a back end.
    fn complain(&self, backend: &Backend, fault: &str) {
        let (log, story) = (&self.session.shared.log, &self.session.story);
        log.record(Level::Error, story.service, "mail could not be handed over")
            .with("session", Field::Name(story.session.as_str().to_owned()))
            .with("backend", &*backend.name)
            .with("fault", fault)
            .write();
    }

    /// The content of a message: from the question whether it may come to what became of it.
    async fn content(&mut self) -> Result<Step, Ended> {
        if let Err(reply) = self.delivery.ask_for_content().await {
            self.note("mail was refused", None, &reply);
            self.reset();
            return Ok(self.tell(Event::Reply(reply)));
        }
        // From here on there is no deadline but that of silence: however large a message is, it ends.
        let step = self.tell(Event::Reply(Reply::ours(354, "End with a dot on a line by itself.")));
        if step != Step::Read {
            return Ok(step);
        }
        self.session.send(&mut self.out).await?;
        let (rest, size) = self.pass_content().await?;
        let (replies, taken) =
            self.delivery.settle(self.sender.as_ref(), &self.recipients, &self.session.shared.delivered).await;
        for fault in self.delivery.take_faults() {
            self.session
                .shared
                .log
                .record(Level::Error, self.session.story.service, "mail could not be handed over")
                .with("fault", fault)
                .write();
        }
        self.set_deadline();
        self.tally.messages += u64::from(taken > 0);
        self.tally.bytes += size;
        self.note_message(&replies, taken, size);
        self.reset();
        let step = self.tell(Event::Outcome(replies));
        if step == Step::Read && !rest.is_empty() {
            return Ok(self.tell(Event::Input(&rest)));
        }
        Ok(step)
    }

    /// Passes content on as it comes, never faster than the slowest back end takes it. Gives what came behind it, and its
    /// size.
    async fn pass_content(&mut self) -> Result<(Vec<u8>, u64), Ended> {
        let (mut content, mut size) = (Content::default(), 0);
        let mut bytes = Vec::new();
        loop {
            self.set_deadline();
            bytes.clear();
            match timeout_at(self.session.deadline, self.session.client.read(&mut bytes)).await {
                Ok(Ok(count)) if count > 0 => {}
                // Without an end, no back end takes it for a message.
                Ok(Ok(_)) => return Err(self.lost("closed by the client within a message")),
                Ok(Err(error)) => return Err(self.lost(&error.to_string())),
                Err(_) => return Err(self.lost("the client fell silent within a message")),
            }
            let scanned = content.scan(&bytes);
            size += scanned.part.len() as u64 + u64::from(scanned.dot);
            if content.is_sound() {
                if scanned.dot {
                    self.delivery.pass(b".").await;
                }
                self.delivery.pass(scanned.part).await;
            } else {
                let text = "5.5.2 Lines must end in CRLF, and there only.";
                self.delivery.give_up(&Reply::ours(550, text));
            }
            if scanned.is_end {
                return Ok((bytes[scanned.taken..].to_vec(), size));
            }
        }
    }

    fn lost(&mut self, why: &str) -> Ended {
        self.delivery.reset();
        Ended::Served { why: why.to_owned(), tally: self.tally }
    }

    /// A message has its record, whatever became of it.
    fn note_message(&self, replies: &[Reply], taken: usize, size: u64) {
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
    fn note(&self, what: &'static str, path: Option<&Path>, reply: &Reply) {
        let mailbox = path.and_then(|path| path.mailbox.as_ref());
        let (from, to) = match what {
            "a recipient was refused" => {
                (sender_name(self.sender.as_ref()), mailbox.map(|mailbox| mailbox.text.clone()))
            }
            _ => (sender_name(path.or(self.sender.as_ref())), None),
        };
        self.draft(what)
            .with("from", Field::Name(from))
            .with_some("to", to.map(Field::Name))
            .with("reply", reply.joined())
            .write();
    }

    fn draft(&self, what: &'static str) -> crate::log::Draft<'_> {
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
