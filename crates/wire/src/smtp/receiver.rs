//! The state machine of a server that takes mail: SMTP (RFC 5321), LMTP (RFC 2033), and what follows the log-in of a client
//! that submits mail.
//!
//! It keeps to the order of commands and answers what can be answered from that alone; whether a sender or recipient is
//! welcome, and what becomes of a message, the outside says. The content passes by it ([`Content`](super::Content)).

use super::envelope::{Command, Parameter, Recipient, Sender, is_domain};
use super::order::{Envelope, Mail, Needs, NotReady, Skipped, Turn};
use super::{
    BINARY, CHUNKING, Chunk, Dialect, PIPELINING, Reply, STATUS_CODES, UTF8, announces_chunk, bye, hello_name, number,
    say, say_lines, starttls, told,
};
use crate::conversation::{Heard, NO_WEB_SERVER, TOO_MANY_AT_ONCE, Talk};
use crate::frame::{Framer, is_http};
use crate::limits::{
    ANSWER_BYTES_MAX, CHUNK_BYTES_MAX, IDLE_COMMANDS_MAX, LINE_BYTES_MAX, RECIPIENTS_MAX, SKIPPED_BYTES_MAX,
};
use crate::protocols::{Carry, ClientSetup, ClientTls, Offers, Outcome, Protocol, Refusal};

/// See the module's documentation.
pub struct Receiver {
    setup: ClientSetup,
    talk: Talk,
    carry: Carry,
    protocol: &'static Protocol,
    bringer: Bringer,
    /// What it called itself.
    helo: Option<String>,
    turn: Turn,
    /// How much was read past since mail was taken last.
    skipped_bytes: u64,
    /// Since mail was taken last, or a recipient named.
    idle_commands: u32,
}

/// Who brings the mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bringer {
    /// Whoever connects. `is_strict`: names by which nobody could be reached are refused.
    Anybody { dialect: Dialect, is_strict: bool },
    /// A user who has logged in.
    User,
}

/// What happens to a [`Receiver`].
#[derive(Debug)]
pub enum Event<'a> {
    /// The connection stands (and TLS with it, if [`ClientSetup::tls`] says so): greet.
    Start,
    /// The TLS that [`Step::StartTls`] asked for is up, or the client has just logged in: the client speaks first.
    Go,
    /// The client sent this.
    Input(&'a [u8]),
    /// The answer to [`Step::Sender`], [`Step::Recipient`] or [`Step::Content`], or to a chunk that is not the last, or that
    /// nobody took.
    Reply(Reply),
    /// What became of the whole content: one reply, in LMTP one for each accepted recipient.
    Outcome(Vec<Reply>),
    /// [`Step::Reset`] is done.
    Done,
    /// The session must end, and the client be told.
    Close(Refusal),
}

/// What a [`Receiver`] wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// More input.
    Read,
    /// Throw away all that was received, begin TLS, and build a new receiver.
    StartTls,
    /// Mail begins: may this sender send?
    Sender(Sender),
    /// May this recipient be had?
    Recipient(Recipient),
    /// May the content come? Once [`Event::Reply`] with 354 is given, it does.
    Content,
    /// A chunk of the content comes, which begins with [`Receiver::take_content`].
    Chunk(Chunk),
    /// Whatever was begun is given up.
    Reset,
    /// The session is over.
    Close(Outcome),
}

impl Receiver {
    /// One that takes mail from anybody, as this protocol of the table has it.
    pub fn new(protocol: &'static Protocol, dialect: Dialect, is_strict: bool, setup: ClientSetup) -> Self {
        Self::of(Bringer::Anybody { dialect, is_strict }, protocol, setup)
    }

    fn of(bringer: Bringer, protocol: &'static Protocol, setup: ClientSetup) -> Self {
        Self {
            talk: Talk::new(Framer::of_lines(LINE_BYTES_MAX), setup.trace),
            carry: setup.carry,
            setup,
            protocol,
            bringer,
            helo: None,
            turn: Turn::ANEW,
            skipped_bytes: 0,
            idle_commands: 0,
        }
    }

    /// One that goes on with a client that has logged in, and has called itself so.
    pub fn after_log_in(protocol: &'static Protocol, helo: Option<String>, setup: ClientSetup) -> Self {
        Self { helo, ..Self::of(Bringer::User, protocol, setup) }
    }

    /// What this can pass on of what back ends offer.
    pub fn carries(protocol: &'static Protocol, offers: Offers) -> Offers {
        // What need not be lines can only be sent in chunks.
        let has_chunks = offers.has(protocol, CHUNKING);
        offers.without(protocol, if has_chunks { &["VRFY"] } else { &["VRFY", BINARY] })
    }

    /// Takes one event, appends what is to be sent to `out` and says what to do next. What is in `out` goes to the client
    /// before the step is carried out.
    pub fn step(&mut self, event: Event<'_>, out: &mut Vec<u8>) -> Step {
        match event {
            Event::Start => {
                let ClientSetup { name, greeting, .. } = &self.setup;
                say(out, &format!("220 {name} {} {greeting}", self.dialect().greets_as()));
                return Step::Read;
            }
            Event::Go => return Step::Read,
            Event::Input(bytes) => self.talk.push(bytes),
            Event::Done => {}
            Event::Reply(reply) => {
                let step = self.answered(&reply, out);
                if !matches!(step, Step::Read) {
                    return step;
                }
            }
            Event::Outcome(replies) => {
                self.turn = Turn::ANEW;
                if replies.iter().any(Reply::is_good) {
                    (self.carry.errors, self.idle_commands, self.skipped_bytes) = (0, 0, 0);
                }
                replies.iter().for_each(|reply| say_lines(out, reply.code, &reply.lines));
            }
            // There is no log-in that could have taken too long.
            Event::Close(Refusal::TimedOut) => return end(Refusal::TimedOut, Some("You took too long."), out),
            Event::Close(refusal) => return end(refusal, None, out),
        }
        self.run(out)
    }

    /// The few facts that outlive STARTTLS.
    pub fn carry(&self) -> Carry {
        self.carry
    }

    /// What the client called itself.
    pub fn helo(&self) -> Option<&str> {
        self.helo.as_deref()
    }

    /// As [`Front::take_trace`](crate::Front::take_trace).
    pub fn take_trace(&mut self) -> Vec<String> {
        self.talk.take_trace()
    }

    /// What has come of a chunk of this size.
    pub fn take_content(&mut self, size: u64) -> Vec<u8> {
        self.talk.take(size)
    }

    /// Works off what was received until something must come from outside.
    fn run(&mut self, out: &mut Vec<u8>) -> Step {
        loop {
            let mail = match self.turn {
                Turn::Client(mail) => mail,
                Turn::Skip(Skipped { left, text, times }, mail) => {
                    let left = left - self.talk.skip(left);
                    if left > 0 {
                        self.turn = Turn::Skip(Skipped { left, text, times }, mail);
                        return Step::Read;
                    }
                    (0..times).for_each(|_| say(out, text));
                    self.turn = Turn::Client(mail);
                    mail
                }
                // What the client says meanwhile waits; behind a 354 it is content, in which there are no commands.
                Turn::Sender(_) | Turn::Recipient(_) | Turn::Content | Turn::Chunk(_) | Turn::Outcome => {
                    return Step::Read;
                }
            };
            let step = match self.talk.next_heard() {
                None => return Step::Read,
                Some(Heard::Lost | Heard::Literal(_)) => end(Refusal::Misbehaved, Some("Line too long."), out),
                Some(Heard::Line { line, .. }) if is_http(line.expose()) => {
                    end(Refusal::Misbehaved, Some(NO_WEB_SERVER), out)
                }
                Some(Heard::Line { line, is_broken: true }) if announces_chunk(line.expose()) => no_size(out),
                Some(Heard::Line { is_broken: true, .. }) => self.wrong("500 5.5.2 Lines end in CRLF.", out),
                Some(Heard::Line { line, .. }) => self.command(mail, line.expose(), out),
            };
            if !matches!(step, Step::Read) {
                return step;
            }
            if out.len() > ANSWER_BYTES_MAX {
                return end(Refusal::Misbehaved, Some(TOO_MANY_AT_ONCE), out);
            }
        }
    }

    fn command(&mut self, mail: Mail, line: &[u8], out: &mut Vec<u8>) -> Step {
        let word = line.split(|&b| b == b' ').next().unwrap_or_default();
        let argument = line[word.len()..].trim_ascii();
        let word = word.to_ascii_uppercase();
        self.talk.note(|| told(&word, argument));
        // A message that some will have may have many more recipients who are put off.
        let is_wanted = word == b"RCPT" && matches!(mail, Mail::Begun(Envelope { accepted: 1.., .. }));
        self.idle_commands += u32::from(!is_wanted);
        if self.idle_commands > IDLE_COMMANDS_MAX {
            return end(Refusal::Misbehaved, Some("Too many commands without mail."), out);
        }
        let is_lmtp = self.dialect() == Dialect::Lmtp;
        match word.as_slice() {
            b"EHLO" | b"HELO" if !is_lmtp => self.hello(mail, word == b"EHLO", argument, out),
            b"LHLO" if is_lmtp => self.hello(mail, true, argument, out),
            // Who logged in before TLS could be somebody else than who speaks under it (RFC 3207, section 4.2).
            b"STARTTLS" if self.is_submission() => self.wrong("503 5.5.1 You are logged in.", out),
            b"STARTTLS" => match starttls(self.setup.tls, argument, out) {
                Ok(()) => Step::StartTls,
                Err(text) => self.wrong(text, out),
            },
            b"MAIL" => self.sender(mail, argument, out),
            b"RCPT" => self.recipient(mail, argument, out),
            b"DATA" => self.data(mail, argument, out),
            b"BDAT" => self.chunk(mail, argument, out),
            _ if announces_chunk(&word) => no_size(out),
            b"RSET" => {
                say(out, "250 2.0.0 Ok.");
                self.reset(mail)
            }
            b"NOOP" => {
                say(out, "250 2.0.0 Ok.");
                Step::Read
            }
            b"VRFY" => {
                say(out, "252 2.1.5 Send mail to find out.");
                Step::Read
            }
            b"HELP" => {
                say(out, "214 2.0.0 See RFC 5321.");
                Step::Read
            }
            b"QUIT" => {
                say(out, "221 2.0.0 Bye.");
                Step::Close(Outcome::LoggedOut)
            }
            b"AUTH" if self.is_submission() => self.wrong("503 5.5.1 You are logged in.", out),
            b"AUTH" | b"EXPN" | b"ETRN" | b"TURN" => self.wrong("502 5.5.1 This command is not available here.", out),
            _ => self.wrong("500 5.5.1 Unknown command.", out),
        }
    }

    fn hello(&mut self, mail: Mail, is_extended: bool, argument: &[u8], out: &mut Vec<u8>) -> Step {
        let Some(name) = hello_name(argument) else {
            return self.wrong("501 5.5.4 A host name or an address literal is missing.", out);
        };
        let is_strict = matches!(self.bringer, Bringer::Anybody { is_strict: true, .. });
        if is_strict && !(is_domain(name) && name.contains(['.', '['])) {
            return self.wrong("504 5.5.2 Your host name is not fully qualified.", out);
        }
        if is_strict && name.eq_ignore_ascii_case(&self.setup.name) {
            return self.wrong("550 5.7.1 That is our own name.", out);
        }
        self.helo = Some(name.to_owned());
        let mut lines = vec![self.setup.name.clone()];
        if is_extended {
            lines.push(PIPELINING.to_owned());
            let offers = self.setup.offers;
            lines.extend(super::extensions(self.protocol, offers.without(self.protocol, &[PIPELINING])));
            if self.dialect() == Dialect::Lmtp && !self.offers(STATUS_CODES) {
                // LMTP has them always (RFC 2033, section 5), and ours are there.
                lines.push(STATUS_CODES.to_owned());
            }
            if self.setup.tls == ClientTls::Offered && !self.is_submission() {
                lines.push("STARTTLS".to_owned());
            }
        }
        say_lines(out, 250, &lines);
        self.reset(mail)
    }

    /// Whatever was begun is given up, and the outside told.
    fn reset(&mut self, mail: Mail) -> Step {
        self.turn = Turn::ANEW;
        match mail {
            Mail::Nothing { .. } => Step::Read,
            Mail::Begun(_) | Mail::Chunked(_) => Step::Reset,
        }
    }

    fn sender(&mut self, mail: Mail, argument: &[u8], out: &mut Vec<u8>) -> Step {
        if self.helo.is_none() {
            return self.wrong("503 5.5.1 Say hello first.", out);
        }
        if !matches!(mail, Mail::Nothing { .. }) {
            return self.wrong("503 5.5.1 A sender is named already.", out);
        }
        let mut sender = match Sender::parse(argument) {
            Ok(sender) => sender,
            Err(text) => return self.wrong(text, out),
        };
        // Whoever else may have submitted it before, nobody here knows (RFC 4954, section 5).
        for parameter in sender.parameters.iter_mut().filter(|parameter| parameter.name == "AUTH") {
            parameter.value = Some("<>".to_owned());
        }
        let needs = Needs { utf8: sender.wants(UTF8), binary: sender.wants(BINARY) };
        let checked = self.check(&sender.parameters, Command::Mail);
        if let Err(text) = checked.and_then(|()| needs.check(sender.address(), &sender.parameters)) {
            return self.wrong(text, out);
        }
        self.turn = Turn::Sender(needs);
        Step::Sender(sender)
    }

    fn recipient(&mut self, mail: Mail, argument: &[u8], out: &mut Vec<u8>) -> Step {
        let envelope = match mail.takes_recipients() {
            Ok(envelope) => envelope,
            Err(text) => return self.wrong(text, out),
        };
        let recipient = match Recipient::parse(argument) {
            Ok(recipient) => recipient,
            Err(text) => return self.wrong(text, out),
        };
        let (address, parameters) = (&recipient.mailbox.text, &recipient.parameters);
        if let Err(text) =
            self.check(parameters, Command::Rcpt).and_then(|()| envelope.needs.check(address, parameters))
        {
            return self.wrong(text, out);
        }
        if envelope.named == RECIPIENTS_MAX {
            say(out, "452 4.5.3 Too many recipients.");
            return Step::Read;
        }
        self.turn = Turn::Recipient(Envelope { named: envelope.named + 1, ..envelope });
        Step::Recipient(recipient)
    }

    /// Whether the parameters of a command are those of extensions that are offered, and what they say can be kept.
    fn check(&self, parameters: &[Parameter], behind: Command) -> Result<(), &'static str> {
        let unknown = "555 5.5.4 A parameter is not supported.";
        for parameter in parameters {
            match (parameter.name.as_str(), &parameter.value) {
                ("AUTH", Some(_)) if behind == Command::Mail && self.is_submission() => continue,
                ("SIZE", Some(size)) if behind == Command::Mail => {
                    let size = number(size.as_bytes()).ok_or("501 5.5.4 SIZE is not a number.")?;
                    if self.setup.offers.number().is_some_and(|max| size > max.get()) {
                        return Err("552 5.3.4 The message is larger than what is taken here.");
                    }
                }
                _ => {}
            }
            let extension = parameter.extension().filter(|_| parameter.command() == behind).ok_or(unknown)?;
            if !self.offers(extension) {
                return Err(unknown);
            }
        }
        Ok(())
    }

    fn data(&mut self, mail: Mail, argument: &[u8], out: &mut Vec<u8>) -> Step {
        if !argument.is_empty() {
            return self.wrong("501 5.5.4 This command takes no argument.", out);
        }
        let envelope = match mail.takes_content(self.dialect()) {
            Ok(envelope) => envelope,
            Err(NotReady::Nobody(text)) => {
                say(out, text);
                return Step::Read;
            }
            Err(NotReady::OutOfOrder(text)) => return self.wrong(text, out),
        };
        if matches!(mail, Mail::Chunked(_)) || envelope.needs.binary {
            return self.wrong("503 5.5.1 This message is sent by BDAT.", out);
        }
        if self.talk.discard_rest() {
            // Should the content be refused, it would be read as commands.
            return end(Refusal::Misbehaved, Some("You talk before it is your turn."), out);
        }
        self.turn = Turn::Content;
        Step::Content
    }

    /// BDAT: so many bytes of the message follow, whatever is said to it (RFC 3030, section 2).
    fn chunk(&mut self, mail: Mail, argument: &[u8], out: &mut Vec<u8>) -> Step {
        if !self.offers(CHUNKING) {
            return end(Refusal::Misbehaved, Some("CHUNKING is not offered."), out);
        }
        let Some(chunk) = Chunk::parse(argument) else { return no_size(out) };
        if chunk.size > CHUNK_BYTES_MAX {
            return end(Refusal::Misbehaved, Some("The chunk is too large."), out);
        }
        match mail.takes_content(self.dialect()) {
            Ok(envelope) => {
                self.turn = Turn::Chunk(envelope);
                // Without bytes it leads to nothing.
                if chunk.size > 0 {
                    self.idle_commands = 0;
                }
                Step::Chunk(chunk)
            }
            // A client may have sent all chunks before it hears what became of the first: that is no mistake.
            Err(NotReady::OutOfOrder(text) | NotReady::Nobody(text)) => self.skip(mail, chunk, text, out),
        }
    }

    /// Reads past a chunk that nobody wants, and then says so.
    fn skip(&mut self, mail: Mail, Chunk { size, is_last }: Chunk, text: &'static str, out: &mut Vec<u8>) -> Step {
        self.skipped_bytes += size;
        if self.skipped_bytes > SKIPPED_BYTES_MAX {
            return end(Refusal::Misbehaved, Some("Too much content that nobody wants."), out);
        }
        let (times, mail) = mail.past_chunk(is_last, self.dialect());
        self.turn = Turn::Skip(Skipped { left: size, text, times }, mail);
        Step::Read
    }

    fn dialect(&self) -> Dialect {
        match self.bringer {
            Bringer::Anybody { dialect, .. } => dialect,
            Bringer::User => Dialect::Smtp,
        }
    }

    fn is_submission(&self) -> bool {
        self.bringer == Bringer::User
    }

    fn offers(&self, extension: &str) -> bool {
        self.setup.offers.has(self.protocol, extension)
    }

    /// The outside has answered.
    fn answered(&mut self, reply: &Reply, out: &mut Vec<u8>) -> Step {
        say_lines(out, reply.code, &reply.lines);
        if matches!(self.turn, Turn::Recipient(_)) && reply.is_good() {
            self.idle_commands = 0;
        }
        self.turn = self.turn.after(reply);
        if reply.code == 421 {
            return Step::Close(Outcome::Refused(Refusal::Unavailable));
        }
        // Whoever asks for many who are not here may be looking for those who are.
        if reply.code / 100 == 5 { self.count_error(out) } else { Step::Read }
    }

    /// One reply for one wrong command, and the end after too many.
    fn wrong(&mut self, text: &str, out: &mut Vec<u8>) -> Step {
        say(out, text);
        self.count_error(out)
    }

    fn count_error(&mut self, out: &mut Vec<u8>) -> Step {
        if self.carry.count_error(self.setup.max_errors) {
            return end(Refusal::Misbehaved, None, out);
        }
        Step::Read
    }
}

/// Nobody knows where what follows ends, and it must not be read as commands.
fn no_size(out: &mut Vec<u8>) -> Step {
    end(Refusal::Misbehaved, Some("BDAT takes a size, and LAST or nothing."), out)
}

/// Says goodbye.
fn end(refusal: Refusal, text: Option<&str>, out: &mut Vec<u8>) -> Step {
    bye(refusal, text, out);
    Step::Close(Outcome::Refused(refusal))
}
