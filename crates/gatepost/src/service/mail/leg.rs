//! One connection to a back end over which mail is handed over.

use std::sync::Arc;
use std::time::Duration;

use gatepost_wire::smtp::{Dialect, Path, Replies, Reply};
use tokio::time::timeout;

use crate::backend::{Connected, Lease};
use crate::net::stream::Stream;

/// How long a back end has for the answer to a command; clients wait for five minutes (RFC 5321, section 4.5.3.2), and
/// several commands may come of one of theirs.
pub(super) const COMMAND_TIME: Duration = Duration::from_secs(100);
/// How long it may take no more of the content.
const BLOCK_TIME: Duration = Duration::from_mins(3);
/// How long it has to say what becomes of a message; clients wait for ten minutes.
const OUTCOME_TIME: Duration = Duration::from_mins(9);

/// See the module's documentation.
pub(super) struct Leg {
    pub(super) backend: Arc<str>,
    dialect: Dialect,
    stream: Stream,
    _lease: Lease,
    replies: Replies,
    takes_pipelined: bool,
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
    /// The content is under way.
    Content,
    /// The connection is of no use any more.
    Lost,
}

/// The connection is lost. The text says how.
pub(super) type Fault = String;

impl Leg {
    /// One over a connection that is ready for mail.
    pub(super) fn new(backend: Arc<str>, dialect: Dialect, connected: Connected) -> Self {
        let Connected { stream, lease, welcome, rest, .. } = connected;
        let extensions = welcome.capabilities.unwrap_or_default();
        Self {
            backend,
            dialect,
            stream,
            _lease: lease,
            replies: Replies::after(&rest),
            takes_pipelined: extensions.split(' ').any(|name| name == "PIPELINING"),
            state: State::Idle,
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// Whether it waits for content.
    pub(super) fn takes_content(&self) -> bool {
        self.state == State::Content
    }

    /// Whether it answers for each recipient.
    pub(super) fn answers_each(&self) -> bool {
        self.dialect == Dialect::Lmtp
    }

    /// Names the sender, unless it knows already.
    pub(super) async fn begin(&mut self, sender: &Path) -> Result<Reply, Fault> {
        self.clear().await?;
        let reply = self.ask(&format!("MAIL FROM:{}\r\n", sender.argument())).await?;
        self.began(&reply);
        Ok(reply)
    }

    /// Names a recipient, and before that the sender if it doesn't know yet.
    pub(super) async fn add(&mut self, sender: &Path, recipient: &Path) -> Result<Reply, Fault> {
        let line = format!("RCPT TO:{}\r\n", recipient.argument());
        if self.state == State::Open {
            return self.ask(&line).await;
        }
        self.clear().await?;
        let mail = format!("MAIL FROM:{}\r\n", sender.argument());
        if self.takes_pipelined {
            self.say((mail + &line).as_bytes(), COMMAND_TIME).await?;
            let (begun, reply) = (self.reply(COMMAND_TIME).await?, self.reply(COMMAND_TIME).await?);
            self.began(&begun);
            return Ok(if begun.is_good() { reply } else { begun });
        }
        let begun = self.ask(&mail).await?;
        self.began(&begun);
        if begun.is_good() { self.ask(&line).await } else { Ok(begun) }
    }

    fn began(&mut self, reply: &Reply) {
        if reply.is_good() {
            self.state = State::Open;
        }
    }

    /// Tells it to forget what it may still remember.
    async fn clear(&mut self) -> Result<(), Fault> {
        match self.state {
            State::Idle => Ok(()),
            State::Lost | State::Content => Err("the connection is lost".into()),
            State::Open | State::Stale => {
                let reply = self.ask("RSET\r\n").await?;
                if reply.is_good() {
                    self.state = State::Idle;
                    return Ok(());
                }
                Err(self.lose(format!("it answers RSET with {}", reply.joined())))
            }
        }
    }

    /// Asks to send the content, which [`Leg::may_send`] finds out.
    pub(super) async fn ask_for_content(&mut self) -> Result<(), Fault> {
        self.say(b"DATA\r\n", COMMAND_TIME).await
    }

    /// Whether the content may come: else what is said against it.
    pub(super) async fn may_send(&mut self) -> Result<Option<Reply>, Fault> {
        let reply = self.reply(COMMAND_TIME).await?;
        let may = reply.code == 354;
        self.state = if may { State::Content } else { State::Stale };
        Ok((!may).then_some(reply))
    }

    /// Passes on a piece of the content.
    pub(super) async fn pass(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.say(bytes, BLOCK_TIME).await
    }

    /// Ends the content.
    pub(super) async fn end(&mut self) -> Result<(), Fault> {
        self.say(b".\r\n", BLOCK_TIME).await
    }

    /// What becomes of the message: for each of so many recipients. What is not known is an error.
    pub(super) async fn outcomes(&mut self, recipients: usize) -> Result<Vec<Reply>, Fault> {
        let mut replies = Vec::new();
        if self.answers_each() {
            while replies.len() < recipients {
                replies.push(self.reply(OUTCOME_TIME).await?);
            }
        } else {
            replies.resize(recipients, self.reply(OUTCOME_TIME).await?);
        }
        self.state = State::Idle;
        Ok(replies)
    }

    /// The message is given up: what it has of the content must never look whole.
    pub(super) fn give_up(&mut self) {
        match self.state {
            State::Content => {
                self.stream.close();
                self.state = State::Lost;
            }
            State::Open => self.state = State::Stale,
            State::Idle | State::Stale | State::Lost => {}
        }
    }

    /// Says goodbye.
    pub(super) async fn leave(&mut self) {
        if !matches!(self.state, State::Content | State::Lost) {
            // Whether it hears that makes no difference.
            let _ = self.say(b"QUIT\r\n", Duration::from_secs(1)).await;
            self.stream.close();
        }
    }

    async fn ask(&mut self, line: &str) -> Result<Reply, Fault> {
        self.say(line.as_bytes(), COMMAND_TIME).await?;
        self.reply(COMMAND_TIME).await
    }

    async fn say(&mut self, bytes: &[u8], time: Duration) -> Result<(), Fault> {
        if self.is_lost() {
            return Err("the connection is lost".into());
        }
        match timeout(time, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lose(format!("the connection broke: {error}"))),
            Err(_) => Err(self.lose("it does not read what is sent to it".into())),
        }
    }

    /// The next reply. One that ends the conversation is no answer to what was said.
    async fn reply(&mut self, time: Duration) -> Result<Reply, Fault> {
        let reading = async {
            let mut bytes = Vec::new();
            loop {
                match self.replies.next_reply() {
                    Ok(Some(reply)) if reply.code == 421 => {
                        return Err(format!("it ends the conversation: {}", reply.joined()));
                    }
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
        let read = timeout(time, reading).await;
        read.unwrap_or_else(|_| Err("it does not answer".into())).map_err(|fault| self.lose(fault))
    }

    fn lose(&mut self, fault: Fault) -> Fault {
        self.state = State::Lost;
        self.stream.close();
        fault
    }
}
