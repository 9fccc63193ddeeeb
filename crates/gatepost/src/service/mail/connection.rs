//! One connection to a back end over which mail is handed over.

use std::sync::Arc;
use std::time::Duration;

use gatepost_wire::smtp::{Dialect, Recipient, Replies, Reply, Sender};
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
    dialect: Dialect,
    stream: Stream,
    _held: (Lease, Option<OwnedSemaphorePermit>),
    replies: Replies,
    /// What it can do, of that which matters here.
    extensions: String,
    state: State,
}

/// How far a message has come there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is none.
    Idle,
    /// One was given up, of which it has not been told.
    Stale,
    /// The sender is taken.
    Open,
    /// The content is under way, and up to its end nothing else can be said.
    Content,
    /// The content is under way in chunks, and what was begun of them is whole.
    Paused,
    /// The connection is of no use any more.
    Lost,
}

/// Why something did not come of it.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection is lost. The text says how.
    Lost(String),
    /// It can't be used for this mail. The text is for the administrator.
    Unfit(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Lost(text) | Self::Unfit(text)) = self;
        f.write_str(text)
    }
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
        Self {
            visit,
            dialect,
            stream,
            _held: (lease, room),
            replies: Replies::after(&rest),
            extensions: welcome.capabilities.unwrap_or_default(),
            state: State::Idle,
        }
    }

    /// The back end's name.
    pub(super) fn backend(&self) -> &Arc<str> {
        &self.visit.backend
    }

    pub(super) fn is_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// Whether it waits for content.
    pub(super) fn takes_content(&self) -> bool {
        matches!(self.state, State::Content | State::Paused)
    }

    /// Whether it answers for each recipient.
    pub(super) fn answers_each(&self) -> bool {
        self.dialect == Dialect::Lmtp
    }

    /// Names the sender.
    pub(super) async fn begin(&mut self, sender: &Sender, deadline: Instant) -> Result<Reply, Fault> {
        self.clear(deadline).await?;
        let line = line_of(sender.command(|extension| self.has(extension)))?;
        let reply = self.ask(&line, deadline).await?;
        self.began(&reply);
        Ok(reply)
    }

    /// Names a recipient, and before that the sender if it doesn't know yet.
    pub(super) async fn add(
        &mut self,
        sender: &Sender,
        recipient: &Recipient,
        deadline: Instant,
    ) -> Result<Reply, Fault> {
        let line = line_of(recipient.command(|extension| self.has(extension)))?;
        if self.state == State::Open {
            return self.ask(&line, deadline).await;
        }
        self.clear(deadline).await?;
        let mail = line_of(sender.command(|extension| self.has(extension)))?;
        if self.has("PIPELINING") {
            self.say((mail + &line).as_bytes(), deadline).await?;
            let (begun, reply) = (self.reply(deadline).await?, self.reply(deadline).await?);
            let begun = self.judged(begun)?;
            self.began(&begun);
            return if begun.is_good() { self.judged(reply) } else { Ok(begun) };
        }
        let begun = self.ask(&mail, deadline).await?;
        self.began(&begun);
        if begun.is_good() { self.ask(&line, deadline).await } else { Ok(begun) }
    }

    fn began(&mut self, reply: &Reply) {
        if reply.is_good() {
            self.state = State::Open;
        }
    }

    fn has(&self, extension: &str) -> bool {
        self.extensions.split(' ').any(|word| word.split('=').next() == Some(extension))
    }

    /// Tells it to forget what it may still remember.
    async fn clear(&mut self, deadline: Instant) -> Result<(), Fault> {
        match self.state {
            State::Idle => self.look().await,
            State::Lost | State::Content => Err(Fault::Lost("the connection is lost".into())),
            State::Open | State::Stale | State::Paused => {
                let reply = self.ask("RSET\r\n", deadline).await?;
                if reply.is_good() {
                    self.state = State::Idle;
                    return Ok(());
                }
                Err(self.lose(format!("it answers RSET with {}", reply.joined())))
            }
        }
    }

    /// Sees, without waiting, whether it has hung up or said something that nobody asked for.
    async fn look(&mut self) -> Result<(), Fault> {
        let mut bytes = Vec::new();
        let read = tokio::select! {
            biased;
            read = self.stream.read(&mut bytes) => Some(read),
            () = std::future::ready(()) => None,
        };
        match read {
            None if self.replies.is_empty() => Ok(()),
            Some(Ok(0)) => Err(self.lose("it closed the connection".into())),
            None | Some(Ok(_)) => Err(self.lose("it speaks out of turn".into())),
            Some(Err(error)) => Err(self.lose(format!("the connection broke: {error}"))),
        }
    }

    /// Asks to send the content, which [`Connection::may_send`] finds out.
    pub(super) async fn ask_for_content(&mut self, deadline: Instant) -> Result<(), Fault> {
        self.say(b"DATA\r\n", deadline).await
    }

    /// Whether the content may come: else what is said against it.
    pub(super) async fn may_send(&mut self, deadline: Instant) -> Result<Option<Reply>, Fault> {
        self.granted(|reply| reply.code == 354, State::Content, deadline).await
    }

    /// Says that a chunk of so many bytes comes. That it is the last is only said by [`Connection::end`].
    pub(super) async fn open_chunk(&mut self, size: u64, deadline: Instant) -> Result<(), Fault> {
        if !self.has("CHUNKING") {
            return Err(lacks("CHUNKING"));
        }
        // An empty one needs no words.
        let words = if size > 0 { format!("BDAT {size}\r\n") } else { String::new() };
        self.say(words.as_bytes(), deadline).await?;
        self.state = if size > 0 { State::Content } else { State::Paused };
        Ok(())
    }

    /// Whether it has taken the chunk that has been passed on: else what is said against it.
    pub(super) async fn has_chunk(&mut self, deadline: Instant) -> Result<Option<Reply>, Fault> {
        match self.state {
            State::Content => self.granted(Reply::is_good, State::Paused, deadline).await,
            _ => Ok(None),
        }
    }

    /// Goes on to this state if the next reply is a yes, else gives the reply.
    async fn granted(
        &mut self,
        is_yes: impl Fn(&Reply) -> bool,
        next: State,
        deadline: Instant,
    ) -> Result<Option<Reply>, Fault> {
        match self.reply(deadline).await? {
            reply if is_yes(&reply) => {
                self.state = next;
                Ok(None)
            }
            reply if reply.code >= 400 => {
                self.state = State::Stale;
                Ok(Some(reply))
            }
            reply => Err(self.lose(format!("it answers out of turn: {}", reply.joined()))),
        }
    }

    /// Passes on a piece of the content.
    pub(super) async fn pass(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Fault> {
        self.say(bytes, deadline).await
    }

    /// Ends the content. From here on it may look whole there: should the message be given up, the connection must be closed.
    pub(super) async fn end(&mut self, deadline: Instant) -> Result<(), Fault> {
        let words: &[u8] = if self.state == State::Paused { b"BDAT 0 LAST\r\n" } else { b".\r\n" };
        self.say(words, deadline).await?;
        self.state = State::Content;
        Ok(())
    }

    /// What becomes of the message: for each of so many recipients, as far as it says, and why no further.
    pub(super) async fn outcomes(&mut self, recipients: usize, deadline: Instant) -> (Vec<Reply>, Option<Fault>) {
        let mut replies = Vec::new();
        let wanted = if self.answers_each() { recipients } else { 1 };
        while replies.len() < wanted {
            match self.reply(deadline).await {
                Ok(reply) if reply.code / 100 != 3 => replies.push(reply),
                Ok(reply) => return (replies, Some(self.lose(format!("it answers out of turn: {}", reply.joined())))),
                Err(fault) => return (replies, Some(fault)),
            }
        }
        if let (false, Some(reply)) = (self.answers_each(), replies.first().cloned()) {
            replies.resize(recipients, reply);
        }
        self.state = State::Idle;
        (replies, None)
    }

    /// What a back end said that takes no more of the content: why, if it says so for good.
    pub(super) async fn last_word(&mut self) -> Option<Reply> {
        let deadline = Instant::now() + LAST_WORD_TIME;
        self.read_reply(deadline).await.ok().filter(|reply| reply.code / 100 == 5)
    }

    /// The message is given up: what it has of the content must never look whole.
    pub(super) fn give_up(&mut self) {
        match self.state {
            State::Content => {
                self.stream.close();
                self.state = State::Lost;
            }
            State::Open | State::Paused => self.state = State::Stale,
            State::Idle | State::Stale | State::Lost => {}
        }
    }

    /// Says goodbye.
    pub(super) async fn leave(&mut self) {
        if !matches!(self.state, State::Content | State::Lost) {
            // Whether it hears that makes no difference.
            let _ = self.say(b"QUIT\r\n", Instant::now() + LAST_WORD_TIME).await;
            self.stream.close();
            self.state = State::Lost;
        }
    }

    async fn ask(&mut self, line: &str, deadline: Instant) -> Result<Reply, Fault> {
        self.look().await?;
        self.say(line.as_bytes(), deadline).await?;
        self.answer(deadline).await
    }

    async fn say(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Fault> {
        if self.is_lost() {
            return Err(Fault::Lost("the connection is lost".into()));
        }
        match timeout_at(deadline, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            // What it may still have said can be heard: the stream stays open until it goes.
            Ok(Err(error)) => {
                self.state = State::Lost;
                Err(Fault::Lost(format!("the connection broke: {error}")))
            }
            Err(_) => Err(self.lose("it does not read what is sent to it".into())),
        }
    }

    /// The next reply, which says yes or no.
    async fn answer(&mut self, deadline: Instant) -> Result<Reply, Fault> {
        let reply = self.reply(deadline).await?;
        self.judged(reply)
    }

    /// An answer to a command that names somebody: yes or no.
    fn judged(&mut self, reply: Reply) -> Result<Reply, Fault> {
        match reply.code {
            300..=399 => Err(self.lose(format!("it answers out of turn: {}", reply.joined()))),
            // Its quarrel with us is none of the client's.
            500 | 502 | 503 | 530 => Err(Fault::Unfit(format!("it does not take mail so: {}", reply.joined()))),
            _ => Ok(reply),
        }
    }

    /// The next reply. One that ends the conversation is no answer to what was said.
    async fn reply(&mut self, deadline: Instant) -> Result<Reply, Fault> {
        match self.read_reply(deadline).await {
            Ok(reply) if reply.code == 421 => Err(self.lose(format!("it ends the conversation: {}", reply.joined()))),
            Ok(reply) => Ok(reply),
            Err(fault) => Err(self.lose(fault)),
        }
    }

    async fn read_reply(&mut self, deadline: Instant) -> Result<Reply, String> {
        let reading = async {
            let mut bytes = Vec::new();
            loop {
                match self.replies.next_reply() {
                    Ok(Some(reply)) => return Ok(reply),
                    Ok(None) => {}
                    Err(what) => return Err(format!("it broke the protocol: {what}")),
                }
                bytes.clear();
                match self.stream.read(&mut bytes).await {
                    Ok(0) => return Err("it closed the connection".into()),
                    Ok(_) => self.replies.push(&bytes),
                    Err(error) => return Err(format!("the connection broke: {error}")),
                }
            }
        };
        timeout_at(deadline, reading).await.unwrap_or_else(|_| Err("it does not answer".into()))
    }

    fn lose(&mut self, fault: String) -> Fault {
        self.state = State::Lost;
        self.stream.close();
        Fault::Lost(fault)
    }
}

/// The line of a command that has all it needs. What that is was there when the client was promised it: that may change
/// again.
fn line_of(command: Result<String, &'static str>) -> Result<String, Fault> {
    command.map(|command| command + "\r\n").map_err(lacks)
}

/// A back end has lost an extension.
fn lacks(extension: &'static str) -> Fault {
    Fault::Unfit(format!("it has no {extension} any more, which clients were told of"))
}
