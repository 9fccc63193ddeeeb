//! One connection to a back end over which mail is handed over: what `wire`'s [`Handover`] says and hears, in its time.

use std::sync::Arc;
use std::time::Duration;

use gatepost_wire::smtp::{Dialect, Fault, Grant, Handover, Recipient, Reply, Sender};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::backend::{Connected, Lease};
use crate::net::stream::Stream;
use crate::service::wheel::Visit;

/// How long a goodbye may take, and the word of a back end that hangs up.
const LAST_WORD_TIME: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(super) struct Connection {
    visit: Visit,
    stream: Stream,
    _held: (Lease, Option<OwnedSemaphorePermit>),
    handover: Handover,
}

impl Connection {
    /// One over a connection that is ready for mail; `room` is what it takes beyond what its session has anyway.
    pub(super) fn new(
        visit: Visit,
        dialect: Dialect,
        connected: Connected,
        room: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let Connected { stream, lease, welcome, rest, .. } = connected;
        let handover = Handover::new(dialect, welcome.capabilities.unwrap_or_default(), &rest);
        Self { visit, stream, _held: (lease, room), handover }
    }

    /// The back end's name.
    pub(super) fn backend(&self) -> &Arc<str> {
        &self.visit.backend
    }

    /// As [`Handover::is_over`].
    pub(super) fn is_lost(&self) -> bool {
        self.handover.is_over()
    }

    /// As [`Handover::takes_content`].
    pub(super) fn takes_content(&self) -> bool {
        self.handover.takes_content()
    }

    /// As [`Handover::answers_each`].
    pub(super) fn answers_each(&self) -> bool {
        self.handover.answers_each()
    }

    /// As [`Handover::begin`], up to the answer.
    pub(super) async fn begin(&mut self, sender: &Sender, deadline: Instant) -> Result<Reply, Fault> {
        self.look().await?;
        self.tell(deadline, |handover, out| handover.begin(sender, out)).await?;
        self.hear(deadline, Handover::answer).await
    }

    /// As [`Handover::add`], up to the answer.
    pub(super) async fn add(
        &mut self,
        sender: &Sender,
        recipient: &Recipient,
        deadline: Instant,
    ) -> Result<Reply, Fault> {
        self.look().await?;
        self.tell(deadline, |handover, out| handover.add(sender, recipient, out)).await?;
        self.hear(deadline, Handover::answer).await
    }

    /// As [`Handover::ask_for_content`]; [`Connection::grant`] has the answer.
    pub(super) async fn ask_for_content(&mut self, deadline: Instant) -> Result<(), Fault> {
        self.tell(deadline, Handover::ask_for_content).await
    }

    /// As [`Handover::open_chunk`].
    pub(super) async fn open_chunk(&mut self, size: u64, deadline: Instant) -> Result<(), Fault> {
        self.tell(deadline, |handover, out| handover.open_chunk(size, out)).await
    }

    /// As [`Handover::grant`].
    pub(super) async fn grant(&mut self, deadline: Instant) -> Result<Grant, Fault> {
        self.hear(deadline, |handover, _| handover.grant()).await
    }

    /// Passes on a piece of the content.
    pub(super) async fn pass(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Fault> {
        self.say(bytes, deadline).await
    }

    /// As [`Handover::end`].
    pub(super) async fn end(&mut self, deadline: Instant) -> Result<(), Fault> {
        self.tell(deadline, Handover::end).await
    }

    /// What becomes of the message: for each of so many recipients, as far as the back end says, and why no further.
    pub(super) async fn outcomes(&mut self, recipients: usize, deadline: Instant) -> (Vec<Reply>, Option<Fault>) {
        let mut replies = Vec::new();
        let wanted = if self.answers_each() { recipients } else { 1 };
        while replies.len() < wanted {
            match self.hear(deadline, |handover, _| handover.outcome()).await {
                Ok(reply) => replies.push(reply),
                Err(fault) => return (replies, Some(fault)),
            }
        }
        if let (false, Some(reply)) = (self.answers_each(), replies.first().cloned()) {
            replies.resize(recipients, reply);
        }
        self.handover.conclude();
        (replies, None)
    }

    /// What a back end said that takes no more of the content: why, if it says so for good.
    pub(super) async fn last_word(&mut self) -> Option<Reply> {
        let deadline = Instant::now() + LAST_WORD_TIME;
        let word = self.hear(deadline, |handover, _| handover.last_word()).await;
        word.ok().filter(|reply| reply.code / 100 == 5)
    }

    /// As [`Handover::give_up`].
    pub(super) fn give_up(&mut self) {
        if self.handover.give_up() {
            self.stream.close();
        }
    }

    /// Says goodbye.
    pub(super) async fn leave(&mut self) {
        let mut out = Vec::new();
        self.handover.leave(&mut out);
        if !out.is_empty() {
            // Whether it hears that makes no difference.
            let _ = timeout_at(Instant::now() + LAST_WORD_TIME, self.stream.write_all(&out)).await;
            self.stream.close();
        }
    }

    /// Sees, without waiting, whether the back end has hung up or said something that nobody asked for.
    async fn look(&mut self) -> Result<(), Fault> {
        if self.is_lost() {
            // Nobody listens to it any more.
            return Err(self.lose("the connection is lost"));
        }
        let mut bytes = Vec::new();
        let read = tokio::select! {
            biased;
            read = self.stream.read(&mut bytes) => Some(read),
            () = std::future::ready(()) => None,
        };
        match read {
            None if self.handover.is_quiet() => Ok(()),
            Some(Ok(0)) => Err(self.lose("it closed the connection")),
            None | Some(Ok(_)) => Err(self.lose("it speaks out of turn")),
            Some(Err(error)) => Err(self.lose(format!("the connection broke: {error}"))),
        }
    }

    /// Says what the machine makes of this.
    async fn tell(
        &mut self,
        deadline: Instant,
        what: impl FnOnce(&mut Handover, &mut Vec<u8>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut out = Vec::new();
        if let Err(fault) = what(&mut self.handover, &mut out) {
            self.close_if_lost(&fault);
            return Err(fault);
        }
        self.say(&out, deadline).await
    }

    async fn say(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Fault> {
        if self.is_lost() {
            return Err(self.lose("the connection is lost"));
        }
        match timeout_at(deadline, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            // What it may still have said can be heard: the stream stays open until it goes.
            Ok(Err(error)) => Err(self.handover.lose(format!("the connection broke: {error}"))),
            Err(_) => Err(self.lose("it does not read what is sent to it")),
        }
    }

    /// Hears the back end out until the machine has what is wanted of it.
    async fn hear<T>(
        &mut self,
        deadline: Instant,
        mut wanted: impl FnMut(&mut Handover, &mut Vec<u8>) -> Result<Option<T>, Fault>,
    ) -> Result<T, Fault> {
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        loop {
            match wanted(&mut self.handover, &mut out) {
                Ok(Some(heard)) => return Ok(heard),
                Ok(None) => {}
                Err(fault) => {
                    self.close_if_lost(&fault);
                    return Err(fault);
                }
            }
            if !out.is_empty() {
                self.look().await?;
                self.say(&out, deadline).await?;
                out.clear();
            }
            bytes.clear();
            match timeout_at(deadline, self.stream.read(&mut bytes)).await {
                Ok(Ok(0)) => return Err(self.lose("it closed the connection")),
                Ok(Ok(_)) => self.handover.hear(&bytes),
                Ok(Err(error)) => return Err(self.lose(format!("the connection broke: {error}"))),
                Err(_) => return Err(self.lose("it does not answer")),
            }
        }
    }

    fn lose(&mut self, how: impl Into<String>) -> Fault {
        self.stream.close();
        self.handover.lose(how)
    }

    /// A machine that has lost the connection wants it closed.
    fn close_if_lost(&mut self, fault: &Fault) {
        if matches!(fault, Fault::Lost(_)) {
            self.stream.close();
        }
    }
}
