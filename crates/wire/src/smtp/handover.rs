//! Handing mail over to a server that a [`Back`](crate::Back) has made ready for it (RFC 5321, RFC 2033, RFC 3030): what is
//! said there, and what its answers mean. Content passes by it.

use std::collections::VecDeque;

use super::{CHUNKING, Dialect, PIPELINING, Recipient, Replies, Reply, Sender};

/// The machine towards a server that takes mail. What is in `out` is to be said before anything more is heard.
#[derive(Debug)]
pub struct Handover {
    dialect: Dialect,
    /// What the server can do, of that which matters here: words divided by spaces.
    extensions: String,
    replies: Replies,
    stage: Stage,
    /// Commands that wait for those before them.
    waiting: VecDeque<Command>,
    /// What was said and has no answer yet.
    said: VecDeque<Word>,
    /// What is told of a sender who is refused, once all that was said has its answer.
    refusal: Option<Result<Reply, Fault>>,
}

/// How far a message has come there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is none.
    Idle,
    /// One was given up, of which the server has not been told.
    Stale,
    /// The sender is taken.
    Open,
    /// It was asked whether the content may come.
    Asked,
    /// The content is under way behind DATA, and up to its end nothing else can be said.
    Data,
    /// As much as was announced is under way, and up to its end nothing else can be said.
    Chunk,
    /// The content comes in chunks, and what was begun of them is whole.
    Paused,
    /// All of the content has been said.
    Ended,
    /// The conversation is.
    Over,
}

#[derive(Debug)]
struct Command {
    word: Word,
    line: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Reset,
    Mail,
    Rcpt,
}

/// Why something did not come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
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

/// Whether what was asked may be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// It may.
    Yes,
    /// This is said against it.
    No(Reply),
}

impl Handover {
    /// With a server that speaks this and offers these `extensions`; `rest` is what it has said behind that.
    pub fn new(dialect: Dialect, extensions: String, rest: &[u8]) -> Self {
        Self {
            dialect,
            extensions,
            replies: Replies::after(rest),
            stage: Stage::Idle,
            waiting: VecDeque::new(),
            said: VecDeque::new(),
            refusal: None,
        }
    }

    /// Whether it is of no use any more.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether the server has said nothing that it was not asked for.
    pub fn is_quiet(&self) -> bool {
        self.replies.is_empty()
    }

    /// Whether the server waits for content.
    pub fn takes_content(&self) -> bool {
        matches!(self.stage, Stage::Data | Stage::Chunk | Stage::Paused | Stage::Ended)
    }

    /// Whether the server answers for each recipient.
    pub fn answers_each(&self) -> bool {
        self.dialect == Dialect::Lmtp
    }

    /// The server has said this.
    pub fn hear(&mut self, bytes: &[u8]) {
        self.replies.push(bytes);
    }

    /// Names the sender; [`Handover::answer`] has what comes of it.
    ///
    /// # Errors
    /// The server can't take such mail, takes none any more, or has said something that nobody asked for.
    pub fn begin(&mut self, sender: &Sender, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mail = self.mail(sender)?;
        self.clear()?;
        self.waiting.push_back(mail);
        self.say_next(out)
    }

    /// Names a recipient, and before that the sender if the server doesn't know yet; [`Handover::answer`] has what comes of it.
    ///
    /// # Errors
    /// As [`Handover::begin`].
    pub fn add(&mut self, sender: &Sender, recipient: &Recipient, out: &mut Vec<u8>) -> Result<(), Fault> {
        let line = line_of(recipient.command(|extension| self.has(extension)))?;
        if self.stage != Stage::Open {
            let mail = self.mail(sender)?;
            self.clear()?;
            self.waiting.push_back(mail);
        }
        self.waiting.push_back(Command { word: Word::Rcpt, line });
        self.say_next(out)
    }

    fn mail(&self, sender: &Sender) -> Result<Command, Fault> {
        Ok(Command { word: Word::Mail, line: line_of(sender.command(|extension| self.has(extension)))? })
    }

    fn has(&self, extension: &str) -> bool {
        self.extensions.split(' ').any(|word| word.split('=').next() == Some(extension))
    }

    /// Has the server forget what it may still remember.
    fn clear(&mut self) -> Result<(), Fault> {
        match self.stage {
            Stage::Idle => Ok(()),
            Stage::Stale | Stage::Open | Stage::Paused => {
                self.waiting.push_back(Command { word: Word::Reset, line: "RSET\r\n".into() });
                Ok(())
            }
            Stage::Asked | Stage::Data | Stage::Chunk | Stage::Ended | Stage::Over => Err(self.lost()),
        }
    }

    /// Says the next command, and what need not wait for its answer.
    fn say_next(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        if !self.is_quiet() {
            return Err(self.lose("it speaks out of turn"));
        }
        while let Some(Command { word, line }) = self.waiting.pop_front() {
            out.extend_from_slice(line.as_bytes());
            self.said.push_back(word);
            if word != Word::Mail || !self.has(PIPELINING) {
                break;
            }
        }
        Ok(())
    }

    /// What the server says to the sender or recipient that was named: yes or no. `None`: more must be heard.
    ///
    /// # Errors
    /// It says neither.
    pub fn answer(&mut self, out: &mut Vec<u8>) -> Result<Option<Reply>, Fault> {
        while let Some(word) = self.said.front().copied() {
            let Some(reply) = self.next_reply()? else { return Ok(None) };
            self.said.pop_front();
            match word {
                Word::Reset if reply.is_good() => self.stage = Stage::Idle,
                Word::Reset => return Err(self.lose(format!("it answers RSET with {}", reply.joined()))),
                Word::Mail if reply.is_good() => {
                    self.stage = Stage::Open;
                    if self.waiting.is_empty() && self.said.is_empty() {
                        return Ok(Some(reply));
                    }
                }
                Word::Mail => {
                    self.waiting.clear();
                    self.refusal = Some(self.judged(reply));
                }
                Word::Rcpt if self.refusal.is_none() => return self.judged(reply).map(Some),
                // Without a sender, nobody can be a recipient.
                Word::Rcpt => {}
            }
            if self.said.is_empty() {
                if let Some(refusal) = self.refusal.take() {
                    return refusal.map(Some);
                }
                self.say_next(out)?;
            }
        }
        Ok(None)
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

    /// Asks whether the content may come, which [`Handover::grant`] has.
    ///
    /// # Errors
    /// There is no message.
    pub fn ask_for_content(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.stage != Stage::Open {
            return Err(self.lost());
        }
        out.extend_from_slice(b"DATA\r\n");
        self.stage = Stage::Asked;
        Ok(())
    }

    /// Says that a chunk of so many bytes comes. That it is the last is only said by [`Handover::end`].
    ///
    /// # Errors
    /// There is no message, or the server takes no chunks.
    pub fn open_chunk(&mut self, size: u64, out: &mut Vec<u8>) -> Result<(), Fault> {
        if !self.has(CHUNKING) {
            return Err(lacks(CHUNKING));
        }
        if !matches!(self.stage, Stage::Open | Stage::Paused) {
            return Err(self.lost());
        }
        // An empty one needs no words.
        self.stage = Stage::Paused;
        if size > 0 {
            out.extend_from_slice(format!("BDAT {size}\r\n").as_bytes());
            self.stage = Stage::Chunk;
        }
        Ok(())
    }

    /// Whether the content may come, or the chunk that has been passed on is taken; where nothing was asked, yes. `None`: more
    /// must be heard.
    ///
    /// # Errors
    /// The server says neither.
    pub fn grant(&mut self) -> Result<Option<Grant>, Fault> {
        let (is_yes, next): (fn(&Reply) -> bool, _) = match self.stage {
            Stage::Asked => (|reply| reply.code == 354, Stage::Data),
            Stage::Chunk => (Reply::is_good, Stage::Paused),
            _ => return Ok(Some(Grant::Yes)),
        };
        let Some(reply) = self.next_reply()? else { return Ok(None) };
        if is_yes(&reply) {
            self.stage = next;
            return Ok(Some(Grant::Yes));
        }
        if reply.code >= 400 {
            self.stage = Stage::Stale;
            return Ok(Some(Grant::No(reply)));
        }
        Err(self.lose(format!("it answers out of turn: {}", reply.joined())))
    }

    /// Ends the content. From here on it may look whole there: should the message be given up, the connection must be closed.
    ///
    /// # Errors
    /// There is nothing that could be ended.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let words: &[u8] = match self.stage {
            Stage::Data => b".\r\n",
            Stage::Paused => b"BDAT 0 LAST\r\n",
            _ => return Err(self.lost()),
        };
        out.extend_from_slice(words);
        self.stage = Stage::Ended;
        Ok(())
    }

    /// What becomes of the message, or in LMTP, of it for the next recipient. `None`: more must be heard.
    ///
    /// # Errors
    /// The server does not say so.
    pub fn outcome(&mut self) -> Result<Option<Reply>, Fault> {
        match self.next_reply()? {
            Some(reply) if reply.code / 100 == 3 => {
                Err(self.lose(format!("it answers out of turn: {}", reply.joined())))
            }
            reply => Ok(reply),
        }
    }

    /// All outcomes are known.
    pub fn conclude(&mut self) {
        self.stage = Stage::Idle;
    }

    /// The next of what a server said that takes no more of the content. `None`: more must be heard.
    ///
    /// # Errors
    /// It is no reply.
    pub fn last_word(&mut self) -> Result<Option<Reply>, Fault> {
        self.replies.next_reply().map_err(|what| self.broke(what))
    }

    /// The message is given up: what the server has of the content must never look whole. Whether the connection must be closed
    /// for that.
    pub fn give_up(&mut self) -> bool {
        match self.stage {
            Stage::Asked | Stage::Data | Stage::Chunk | Stage::Ended => {
                self.stage = Stage::Over;
                true
            }
            Stage::Open | Stage::Paused => {
                self.stage = Stage::Stale;
                false
            }
            Stage::Idle | Stage::Stale | Stage::Over => false,
        }
    }

    /// Says goodbye, where that can be heard.
    pub fn leave(&mut self, out: &mut Vec<u8>) {
        if matches!(self.stage, Stage::Idle | Stage::Stale | Stage::Open | Stage::Paused) {
            out.extend_from_slice(b"QUIT\r\n");
        }
        self.stage = Stage::Over;
    }

    /// The connection is lost: how.
    pub fn lose(&mut self, how: impl Into<String>) -> Fault {
        self.stage = Stage::Over;
        Fault::Lost(how.into())
    }

    /// It can't be said, now or any more: what would be said next could be taken for something else.
    fn lost(&mut self) -> Fault {
        self.lose("the connection is lost")
    }

    /// The next reply. One that ends the conversation is no answer to what was said.
    fn next_reply(&mut self) -> Result<Option<Reply>, Fault> {
        match self.replies.next_reply() {
            Ok(Some(reply)) if reply.code == 421 => {
                Err(self.lose(format!("it ends the conversation: {}", reply.joined())))
            }
            Ok(reply) => Ok(reply),
            Err(what) => Err(self.broke(what)),
        }
    }

    fn broke(&mut self, what: &str) -> Fault {
        self.lose(format!("it broke the protocol: {what}"))
    }
}

/// The line of a command that has all it needs. What that is was there when the client was promised it: that may change
/// again.
fn line_of(command: Result<String, &'static str>) -> Result<String, Fault> {
    command.map(|command| command + "\r\n").map_err(lacks)
}

/// A server has lost an extension.
fn lacks(extension: &'static str) -> Fault {
    Fault::Unfit(format!("it has no {extension} any more, which clients were told of"))
}
