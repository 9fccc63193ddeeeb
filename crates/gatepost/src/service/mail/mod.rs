//! Sessions in which mail is taken: from strangers (SMTP), from within the site (LMTP), and from users whose senders are
//! looked at (submission). Each message goes straight to the back ends of its recipients, or what a user submits to their own,
//! and none is ever kept here.
//!
//! SMTP's grammar belongs to `wire`, and placing users to the map.

pub(crate) mod address;
mod connection;
mod content;
mod delivery;
mod links;
mod memory;
mod rates;
mod record;
mod screen;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gatepost_wire::smtp::{Dialect, Event, Fault, Mailbox, OwnReply, Receiver, Recipient, Reply, Sender, Step};
use gatepost_wire::{Carry, ClientSetup, Introduction, Outcome};
use tokio::time::Instant;

use super::Session;
use super::conversation::{HandOver, Received};
use super::reach::{LoggedIn, Wanted};
use crate::backend::{Aim, Backend};
use crate::config::{HeloCheck, Level, MailSettings};
use crate::story::{At, Ended, Tally};
use address::Placed;
use connection::Connection;
use delivery::{BackendFault, COMMAND_TIME, Delivery};
use links::{Links, User};
pub(crate) use memory::Memory;
pub(crate) use rates::Rates;
use screen::Screened;

/// How long a client may be silent within a message (RFC 5321, section 4.5.3.2.7).
const SILENCE_TIME: Duration = Duration::from_mins(5);
/// Connections to back ends are kept so long for a client's next message.
const CONNECTION_KEPT_TIME: Duration = Duration::from_secs(30);
/// What we take ourselves for a client's commands is not counted as its time, up to this before it comes forward.
const OWN_TIME_MAX: Duration = Duration::from_mins(5);

/// What is said of a back end that does not take mail.
const HANDING_OVER: &str = "mail could not be handed over";

/// A conversation about mail.
struct Mail<'s> {
    session: &'s mut Session,
    receiver: Receiver,
    delivery: Delivery,
    out: Vec<u8>,
    tally: Tally,
    /// What was not counted as the client's time since it came forward last.
    own_time: Duration,
}

impl Session {
    /// Takes mail from whoever this is.
    pub(super) async fn take_mail(&mut self, dialect: Dialect, settings: Arc<MailSettings>) -> Ended {
        let client = match self.screen(settings).await {
            Ok(client) => client,
            Err(ended) => return ended,
        };
        let links = Links::many(client, dialect);
        let receiver = self.new_receiver(&links, Carry::default());
        let mut mail = Mail::new(self, receiver, links);
        let early = std::mem::take(&mut mail.session.early);
        mail.run(Event::Start, early.expose()).await
    }

    /// Takes mail from a user who has logged in, for their own back end.
    pub(super) async fn submit(&mut self, HandOver { logged_in, client_rest, helo }: HandOver) -> Ended {
        let LoggedIn { user, backend, connected, expires, .. } = logged_in;
        let protocol = self.snapshot.listener.service.settings.protocol;
        let receiver = Receiver::after_log_in(protocol, helo, self.receiver_setup(Carry::default()));
        let connection = Connection::new(self.handle.visit(&backend), Dialect::Smtp, connected, None);
        let links = Links::One { connection: Box::new(connection), user: User { name: user, expires } };
        let mut mail = Mail::new(self, receiver, links);
        mail.set_deadline();
        mail.run(Event::Go, &client_rest).await
    }

    fn new_receiver(&self, links: &Links, carry: Carry) -> Receiver {
        let is_strict = match links {
            Links::Many { client, .. } => client.settings.helo == HeloCheck::Strict,
            Links::One { .. } => false,
        };
        let protocol = self.snapshot.listener.service.settings.protocol;
        Receiver::new(protocol, links.dialect(), is_strict, self.receiver_setup(carry))
    }

    fn receiver_setup(&self, carry: Carry) -> ClientSetup {
        let protocol = self.snapshot.listener.service.settings.protocol;
        self.setup(Receiver::carries(protocol, self.snapshot.map.offers(protocol)), carry)
    }
}

impl<'s> Mail<'s> {
    fn new(session: &'s mut Session, receiver: Receiver, links: Links) -> Self {
        let delivery = Delivery::new(links, Arc::clone(&session.shared.memory));
        let (out, tally, own_time) = (Vec::new(), Tally::default(), Duration::ZERO);
        Self { session, receiver, delivery, out, tally, own_time }
    }

    /// Talks until the end, from a beginning behind which the client has said something already.
    async fn run(&mut self, beginning: Event<'_>, behind: &[u8]) -> Ended {
        let step = self.tell(beginning);
        let step = self.go_on(step, behind);
        let ended = self.talk(step).await;
        self.delivery.reset();
        self.report_faults();
        self.delivery.links.leave().await;
        let why = match ended {
            Ended::LoggedOut => "the client said goodbye".to_owned(),
            Ended::Refused(refusal) => format!("{refusal:?}"),
            Ended::CalledOff(reason) => reason.to_string(),
            Ended::Gone(why) => why,
            ended => return ended,
        };
        Ended::Served { why, tally: self.tally }
    }

    async fn talk(&mut self, mut step: Step) -> Ended {
        loop {
            self.report_faults();
            if let Err(ended) = self.flush().await {
                return ended;
            }
            step = match step {
                Step::Read => match self.receive().await {
                    Ok(Received::Bytes(bytes)) => self.tell(Event::Input(bytes.expose())),
                    Ok(Received::Nothing(silence)) => {
                        self.tell(Event::Close(silence.refusal()));
                        return self.flush().await.err().unwrap_or_else(|| silence.into());
                    }
                    Err(ended) => return ended,
                },
                Step::StartTls => {
                    // What was said in clear is forgotten, here and by back ends.
                    self.delivery.reset();
                    self.delivery.links.leave().await;
                    if let Err(ended) = self.session.secure().await {
                        return ended;
                    }
                    self.receiver = self.session.new_receiver(&self.delivery.links, self.receiver.carry());
                    self.tell(Event::Go)
                }
                Step::Sender(sender) => {
                    let reply = self.sender(&sender).await;
                    self.tell(Event::Reply(reply))
                }
                Step::Recipient(recipient) => {
                    let reply = self.recipient(&recipient).await;
                    self.tell(Event::Reply(reply))
                }
                Step::Content => match self.content().await {
                    Ok(step) => step,
                    Err(ended) => return ended,
                },
                Step::Chunk(chunk) => match self.chunk(chunk).await {
                    Ok(step) => step,
                    Err(ended) => return ended,
                },
                Step::Reset => {
                    self.delivery.reset();
                    self.tell(Event::Done)
                }
                Step::Close(Outcome::LoggedOut) => return Ended::LoggedOut,
                Step::Close(Outcome::Refused(refusal)) => return Ended::Refused(refusal),
            };
        }
    }

    fn tell(&mut self, event: Event<'_>) -> Step {
        self.receiver.step(event, &mut self.out)
    }

    /// Something has come of what the client said: from now on it may be silent for so long, but within a message for no
    /// longer than that.
    fn set_deadline(&mut self) {
        let idle = self.session.snapshot.listener.settings.idle_timeout;
        let time = if self.delivery.sender().is_some() { idle.min(SILENCE_TIME) } else { idle };
        self.session.handle.moved(0, 0);
        self.session.deadline = Instant::now() + time;
        self.own_time = Duration::ZERO;
    }

    /// Time that passed since `started` was ours, not the client's.
    fn excuse(&mut self, started: Instant) {
        let time = started.elapsed().min(OWN_TIME_MAX.saturating_sub(self.own_time));
        self.own_time += time;
        self.session.deadline += time;
    }

    /// What the client says next. While it says nothing, connections to back ends are not kept for long.
    async fn receive(&mut self) -> Result<Received, Ended> {
        if self.delivery.is_in_chunks() {
            // As with content that comes in one piece: what has begun is taken first.
            return self.session.receive_on().await;
        }
        if !self.delivery.is_idle() {
            return self.session.receive().await;
        }
        let receiving = self.session.receive();
        tokio::pin!(receiving);
        tokio::select! {
            received = &mut receiving => return received,
            () = tokio::time::sleep(CONNECTION_KEPT_TIME) => {}
        }
        self.delivery.links.leave().await;
        receiving.await
    }

    /// Says what is to be said. At level `protocol` the log shows the conversation.
    async fn flush(&mut self) -> Result<(), Ended> {
        if self.session.is_heard() {
            self.session.tell_talk(self.receiver.take_trace(), &String::from_utf8_lossy(&self.out));
        }
        self.session.send(&mut self.out).await
    }

    /// May this sender send?
    async fn sender(&mut self, sender: &Sender) -> Reply {
        let started = Instant::now();
        let answered = self.try_sender(sender).await;
        self.excuse(started);
        match answered {
            Ok(reply) => {
                // Nobody keeps back ends waiting for longer than this.
                let latest = Instant::now() + SILENCE_TIME;
                self.session.deadline = if matches!(self.delivery.links, Links::One { .. }) {
                    latest
                } else {
                    self.session.deadline.min(latest)
                };
                reply
            }
            Err((what, reply)) => {
                self.note(what, Some(sender), None, &reply);
                reply
            }
        }
    }

    /// An error is what the sender is told instead, and what the log says of it.
    async fn try_sender(&mut self, sender: &Sender) -> Result<Reply, (&'static str, Reply)> {
        self.delivery.reset();
        self.check_sender(sender)
            .await
            .map_err(|reply| (if reply.is_transient() { "mail was put off" } else { "a sender was refused" }, reply))?;
        self.delivery.links.introduce(self.receiver.helo()).await;
        let reply = self.delivery.begin(sender.clone()).await;
        if reply.is_good() { Ok(reply) } else { Err(("a sender was refused", reply)) }
    }

    async fn check_sender(&self, sender: &Sender) -> Result<(), Reply> {
        let session = &*self.session;
        let needs_tls = session.snapshot.listener.client_certificates().is_some_and(|clients| clients.required);
        let lacks_tls = needs_tls && session.client.tls_facts().is_none();
        match &self.delivery.links {
            Links::Many { client: Screened { objection: Some(objection), .. }, .. } => Err(objection.clone()),
            _ if lacks_tls => Err(OwnReply::TlsFirst.reply()),
            Links::Many { client, .. } => {
                let name = sender.mailbox.as_ref().map(Mailbox::name);
                session.count_message(client.settings.rates, name.as_deref()).map_or(Ok(()), Err)
            }
            Links::One { user: User { expires: Some(end), .. }, .. } if *end <= SystemTime::now() => {
                Err(OwnReply::Expired.reply())
            }
            Links::One { user, .. } => match &sender.mailbox {
                Some(mailbox) => session.check_owner(&user.name, mailbox).await,
                None => Ok(()),
            },
        }
    }

    /// May this recipient be had?
    async fn recipient(&mut self, recipient: &Recipient) -> Reply {
        let started = Instant::now();
        let reply = self.try_recipient(recipient).await;
        self.excuse(started);
        if reply.is_good() {
            self.tally.recipients += 1;
            self.set_deadline();
        } else {
            self.note("a recipient was refused", self.delivery.sender(), Some(recipient), &reply);
        }
        reply
    }

    async fn try_recipient(&mut self, recipient: &Recipient) -> Reply {
        if let Some(reply) = self.delivery.add_to_one(recipient).await {
            return reply;
        }
        if let Links::Many { client, .. } = &self.delivery.links
            && let Some(reply) = self.session.count_recipient(client.settings.rates)
        {
            return reply;
        }
        let written = &recipient.mailbox.text;
        if let Some(reply) = self.delivery.must_wait(written) {
            return reply;
        }
        let Placed { backend, login, recipient: placed } = match self.session.place(recipient).await {
            Ok(placed) => placed,
            Err(reply) => return reply,
        };
        if backend.duty().is_some() {
            self.delivery.drop_unused(&backend);
            return OwnReply::OutOfService.reply();
        }
        let deadline = Instant::now() + COMMAND_TIME;
        let mut is_fresh = false;
        loop {
            if self.delivery.links.position_of(&backend.name).is_none() {
                let connection = match self.engage(&backend, &login, deadline).await {
                    Ok(connection) => connection,
                    Err(reply) => return reply,
                };
                if !self.delivery.links.add(connection) {
                    return delivery::unfit();
                }
                is_fresh = true;
            }
            match self.delivery.add(&backend, written, &placed, deadline).await {
                Ok(reply) => return reply,
                // It may have hung up in the long time in which there was nothing to say to it.
                Err(Fault::Lost(_)) if !is_fresh && self.delivery.drop_unused(&backend) => {}
                Err(fault) => {
                    self.session.report(Level::Error, HANDING_OVER, &format!("{}: {fault}", backend.name));
                    return match fault {
                        Fault::Lost(_) => OwnReply::ServerLost.reply(),
                        Fault::Unfit(_) => delivery::unfit(),
                    };
                }
            }
        }
    }

    /// A connection to a back end over which mail can be handed over for whoever is called so there.
    async fn engage(&mut self, backend: &Arc<Backend>, login: &str, deadline: Instant) -> Result<Connection, Reply> {
        // A session has room for one; each further one takes files that others may need.
        let room = match self.delivery.links.all().len() {
            0 => None,
            _ => match Arc::clone(&self.session.shared.room).try_acquire_owned() {
                Ok(room) => Some(room),
                Err(_) => return Err(OwnReply::TooManyConnections.reply()),
            },
        };
        let session = &mut *self.session;
        let visit = session.handle.visit(&backend.name);
        session.story().at = At::Tried(Arc::clone(&backend.name));
        let helo = self.receiver.helo().map(str::to_owned);
        let introduction = Introduction { helo, ..Introduction::default() };
        let name = self.delivery.links.client_name();
        let reached = match backend.dialect(session.service().settings.protocol) {
            Ok(dialect) => {
                let aim = Aim::HandOver(dialect);
                let wanted = Wanted { user: login, aim, introduction: &introduction, name, deadline };
                session.reach(backend, wanted).await.map(|connected| (dialect, connected))
            }
            Err(failure) => Err(failure),
        };
        match reached {
            Ok((dialect, connected)) => Ok(Connection::new(visit, dialect, connected, room)),
            Err(failure) => {
                session.report(Level::Error, HANDING_OVER, &format!("{}: {failure}", backend.name));
                Err(OwnReply::ServerUnreachable.reply())
            }
        }
    }

    /// Tells the administrator what went wrong with back ends.
    fn report_faults(&mut self) {
        for BackendFault { backend, fault } in self.delivery.take_faults() {
            self.session.report(Level::Error, HANDING_OVER, &format!("{backend}: {fault}"));
        }
    }
}
