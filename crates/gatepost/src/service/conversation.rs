//! The conversation with the client until it is logged in: the one loop in which every protocol's front talks.

use std::pin::pin;
use std::time::Duration;

use gatepost_wire::smtp::Receiver;
use gatepost_wire::{Carry, ClientSetup, Event, Front, LogInMachines, Offers, Outcome, Refusal, Secret, Step};
use tokio::time::{Instant, timeout_at};

use super::called_off::{CalledOff, unless_called_off};
use super::claim::Progress;
use super::denied::MOVED;
use super::reach::{LoggedIn, Onward};
use super::{Session, listener};
use crate::config::{self, Task};
use crate::metrics::LogIn;
use crate::net::stream::Stream;
use crate::story::Ended;

/// What was said last may still be on its way when a connection is closed under unread input; the peer's
/// kernel would throw it away. So much is read, and for so long, before that.
const LINGER_BYTES_MAX: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// What a front leaves to whoever goes on with its client.
pub(super) struct HandOver {
    pub(super) logged_in: LoggedIn,
    /// What the client sent behind its log-in.
    pub(super) client_rest: Vec<u8>,
    /// What it called itself.
    pub(super) helo: Option<String>,
}

/// What came from the client.
pub(super) enum Received {
    Bytes(Secret),
    /// Nothing will: it is to be told, and that is the end.
    Nothing(Silence),
}

/// Why nothing more comes from a client, or need.
pub(super) enum Silence {
    /// It has said nothing for too long.
    TimedOut,
    CalledOff(CalledOff),
}

impl Silence {
    /// What it is told.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::TimedOut => Refusal::TimedOut,
            Self::CalledOff(_) => Refusal::ShuttingDown,
        }
    }
}

impl From<Silence> for Ended {
    fn from(silence: Silence) -> Self {
        match silence {
            Silence::TimedOut => Self::Refused(Refusal::TimedOut),
            Silence::CalledOff(called_off) => called_off.into(),
        }
    }
}

impl Session {
    /// Talks with the client until a back end has taken its log-in.
    pub(super) async fn log_in(&mut self, machines: LogInMachines) -> Result<HandOver, Ended> {
        let mut progress = Progress::default();
        let result = self.converse(machines, &mut progress).await;
        self.give_up(progress);
        result
    }

    async fn converse(&mut self, machines: LogInMachines, progress: &mut Progress) -> Result<HandOver, Ended> {
        let mut front = self.build_front(machines, Carry::default());
        let mut out = Vec::new();
        let mut step = front.step(Event::Start, &mut out);
        let early = std::mem::take(&mut self.early);
        if !early.is_empty() {
            step = front.step(Event::Input(early.expose()), &mut out);
        }
        loop {
            if !front.is_exchanging() && matches!(step, Step::Read) {
                // Whatever was begun over several messages is given up.
                self.give_up(std::mem::take(progress));
            }
            self.say(front.as_mut(), &mut out, progress).await?;
            step = match step {
                Step::Read => match self.receive().await? {
                    Received::Bytes(bytes) => front.step(Event::Input(bytes.expose()), &mut out),
                    Received::Nothing(silence) => {
                        front.step(Event::Close(silence.refusal()), &mut out);
                        self.say(front.as_mut(), &mut out, progress).await?;
                        return Err(silence.into());
                    }
                },
                Step::StartTls => {
                    self.secure().await?;
                    front = self.build_front(machines, front.carry());
                    front.step(Event::TlsUp, &mut out)
                }
                Step::Ask(ask) => {
                    let onward = Onward { back: machines.back, introduction: front.introduction() };
                    let Some(replied) = self.reply_to(ask, &onward, std::mem::take(progress)).await else {
                        return Err(Ended::Gone("left during its log-in".into()));
                    };
                    let answer;
                    (answer, *progress) = replied;
                    front.step(Event::Answer(answer), &mut out)
                }
                Step::Through => {
                    let helo = front.introduction().helo;
                    // A front is only through after a welcome.
                    let Progress::In(logged_in) = std::mem::take(progress) else {
                        return Err(Ended::Gone("no back end".into()));
                    };
                    self.come_in(&logged_in)?;
                    return Ok(HandOver { logged_in: *logged_in, client_rest: front.take_rest(), helo });
                }
                Step::Close(Outcome::LoggedOut) => return Err(Ended::LoggedOut),
                Step::Close(Outcome::Refused(refusal)) => return Err(Ended::Refused(refusal)),
            };
        }
    }

    /// Says what the front has to say, here to who listens and to the client.
    async fn say(&mut self, front: &mut dyn Front, out: &mut Vec<u8>, progress: &Progress) -> Result<(), Ended> {
        self.tell_front(front, out, progress);
        self.send(out).await
    }

    /// The user is in: all who count hear of it, and what bound the log-in is forgotten. An error: moved meanwhile.
    fn come_in(&self, logged_in: &LoggedIn) -> Result<(), Ended> {
        self.note_log_in(LogIn::Ok);
        self.witness.iter().for_each(|witness| witness.forget());
        self.story().logged_in();
        // Whoever moves a user has those go who are logged in: one who became so a moment later must see to it here.
        if self.snapshot.map.was_moved_since(&logged_in.user, logged_in.placed_at) {
            return Err(Ended::Gone(MOVED.into()));
        }
        Ok(())
    }

    /// The front of a new conversation. Of one before it, in clear, nothing but counts remains.
    fn build_front(&self, machines: LogInMachines, carry: Carry) -> Box<dyn Front> {
        let config::Service { protocol, task, .. } = &self.service().settings;
        let offers = self.snapshot.map.offers(protocol);
        let offers = if matches!(task, Task::Relay(_)) { offers } else { Receiver::carries(protocol, offers) };
        (machines.front)(self.setup(offers, carry), self.snapshot.listener.log_in_rules(&self.seen()))
    }

    /// What a state machine towards this client must know to begin, where so much may be promised.
    pub(super) fn setup(&self, offers: Offers, carry: Carry) -> ClientSetup {
        self.snapshot.listener.client_setup(&self.seen(), offers, carry, self.is_heard())
    }

    /// The client as it is seen now.
    fn seen(&self) -> listener::Client {
        let tls = self.client.tls_facts().map(|_| listener::Secured {
            has_certificate: self.client.peer_certificate().is_some(),
            can_bind: self.can_bind(),
        });
        listener::Client { address: self.address, tls }
    }

    /// Says what is to be said, as long as the client has time for it.
    pub(super) async fn send(&mut self, out: &mut Vec<u8>) -> Result<(), Ended> {
        let sent = timeout_at(self.deadline, self.client.write_all(out)).await;
        out.clear();
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Ended::Gone(error.to_string())),
            Err(_) => Err(Ended::Gone("it does not read what is sent to it".into())),
        }
    }

    /// What the client says next, unless the session is to end.
    pub(super) async fn receive(&mut self) -> Result<Received, Ended> {
        let reading = read_until(&mut self.client, self.deadline);
        match unless_called_off(&self.shared, &self.handle, pin!(reading)).await {
            Ok(received) => received,
            Err(called_off) => Ok(Received::Nothing(Silence::CalledOff(called_off))),
        }
    }

    /// What the client says next, whether or not the session is to end.
    pub(super) async fn receive_on(&mut self) -> Result<Received, Ended> {
        read_until(&mut self.client, self.deadline).await
    }

    /// Sees to it that the last words arrive: ends our side, then reads what the client still sends.
    pub(super) async fn linger(&mut self) {
        self.client.close();
        let deadline = Instant::now() + LINGER_TIME;
        let (mut bytes, mut total) = (Vec::new(), 0);
        while total < LINGER_BYTES_MAX {
            match timeout_at(deadline, self.client.read(&mut bytes)).await {
                Ok(Ok(count)) if count > 0 => total += count,
                _ => return,
            }
            bytes.clear();
        }
    }
}

/// What a client says next, within the time that it has.
async fn read_until(client: &mut Stream, deadline: Instant) -> Result<Received, Ended> {
    let mut bytes = Vec::new();
    match timeout_at(deadline, client.read(&mut bytes)).await {
        Ok(Ok(0)) => Err(Ended::Gone("closed by the client".into())),
        Ok(Err(error)) => Err(Ended::Gone(error.to_string())),
        Ok(Ok(_)) => Ok(Received::Bytes(Secret::new(bytes))),
        Err(_) => Ok(Received::Nothing(Silence::TimedOut)),
    }
}
