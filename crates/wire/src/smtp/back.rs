//! The state machine towards a server of SMTP.

use std::net::IpAddr;

use super::reply::{Gatherer, Reply};
use super::{Dialect, EXTENSIONS, SIZE};
use crate::conversation::{BackGrammar, LogInLines, Sasl, Talk, send};
use crate::frame::Framer;
use crate::limits::{BACK_LINE_BYTES_MAX, PASSED_TEXT_BYTES_MAX, SMTP_LINE_BYTES_MAX};
use crate::protocols::{BackFault, BackLogin, BackSetup, BackStep, ClientFacts, Welcome};
use crate::text::printable;

/// See the module's documentation.
pub(super) struct Back {
    setup: BackSetup,
    aim: Aim,
    talk: Talk,
    state: State,
    dialect: Dialect,
    replies: Gatherer,
    /// What it can do, on the channel in use now: a line each, in capitals.
    extensions: Vec<String>,
}

/// What it is for.
pub(super) enum Aim {
    /// To log in.
    LogIn(BackLogin),
    /// To hand over mail, for which nobody logs in.
    HandOver,
    /// To see whether it would serve.
    Look,
}

/// Where the conversation stands.
enum State {
    Greeting,
    /// EHLO is said.
    Hello(Stage),
    StartTls,
    /// STARTTLS is agreed; TLS comes up elsewhere.
    Securing,
    Xclient,
    /// The log-in is sent, but for what waits for the back end's word.
    LogIn(LogInLines),
    Leaving,
    Over,
}

/// What the back end has just heard EHLO for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// To hear whether it offers STARTTLS, and nothing else.
    Clear,
    /// On the channel that is used.
    Ready,
    /// After XCLIENT, which puts everything back to the beginning, in the client's name.
    Introduced,
    /// After that was refused, in our own.
    Again,
}

impl Back {
    pub(super) fn new(setup: BackSetup, dialect: Dialect, aim: Aim) -> Self {
        let talk = Talk::new(Framer::of_lines(BACK_LINE_BYTES_MAX), setup.trace);
        let replies = Gatherer::default();
        Self { setup, aim, talk, state: State::Greeting, dialect, replies, extensions: Vec::new() }
    }

    /// Whether this is the greeting of a front of ours with the same name and text.
    fn is_own(&self, reply: &Reply) -> bool {
        let own = &self.setup.own_greeting;
        let name = self.own_name();
        let text = reply.text();
        let behind_name = text.strip_prefix(name).and_then(|text| text.strip_prefix(' '));
        behind_name.and_then(|text| text.strip_prefix(self.dialect.greets_as())) == own.strip_prefix(name)
    }

    /// Our name, with which our greeting begins.
    fn own_name(&self) -> &str {
        self.setup.own_greeting.split(' ').next().unwrap_or_default()
    }

    fn say_hello(&mut self, stage: Stage, out: &mut Vec<u8>) -> BackStep {
        let helo = match (stage, self.setup.introduction.helo.as_deref()) {
            // Who is introduced speaks for itself: Postfix goes by this, whatever XCLIENT said.
            (Stage::Introduced, Some(helo)) if helo.is_ascii() => helo,
            _ => self.own_name(),
        };
        let line = format!("{} {helo}\r\n", self.dialect.hello());
        send(&line, State::Hello(stage), &mut self.state, out)
    }

    fn greeted(&mut self, stage: Stage, reply: Reply, out: &mut Vec<u8>) -> BackStep {
        // The first line is its name.
        self.extensions = reply.lines.into_iter().skip(1).map(|line| line.to_ascii_uppercase()).collect();
        if stage == Stage::Clear {
            if self.extension("STARTTLS").is_none() {
                return BackStep::Fault(BackFault::NoStartTls);
            }
            return send("STARTTLS\r\n", State::StartTls, &mut self.state, out);
        }
        match &self.setup.client {
            Some(facts) if stage == Stage::Ready => {
                let line = self.extension("XCLIENT").and_then(|known| self.xclient(facts, known));
                match line {
                    Some(line) => send(&line, State::Xclient, &mut self.state, out),
                    None => self.go_on(out),
                }
            }
            _ => self.go_on(out),
        }
    }

    /// Says on whose behalf we come, in those words that the back end knows and as far as a line goes; `None`: in none.
    fn xclient(&self, ClientFacts { addresses, session, name }: &ClientFacts, known: &str) -> Option<String> {
        let mut facts = Vec::new();
        if let Some((client, local)) = addresses {
            // Left out, it would be taken for ours.
            let name = name.as_deref().map_or_else(|| "[UNAVAILABLE]".to_owned(), xtext);
            facts.extend([
                ("ADDR", address(client.ip())),
                ("PORT", client.port().to_string()),
                ("NAME", name),
                ("DESTADDR", address(local.ip())),
                ("DESTPORT", local.port().to_string()),
            ]);
        }
        facts.push(("PROTO", self.dialect.greets_as().to_owned()));
        facts.push(("SESSION", xtext(session)));
        facts.extend(self.setup.introduction.helo.as_deref().map(|helo| ("HELO", xtext(helo))));
        let mut line = String::from("XCLIENT");
        for (name, value) in facts {
            let is_known = known.split(' ').any(|word| word == name);
            if is_known && line.len() + name.len() + value.len() + 4 <= SMTP_LINE_BYTES_MAX {
                line.extend([" ", name, "=", &value]);
            }
        }
        line.push_str("\r\n");
        line.contains('=').then_some(line)
    }

    /// Does what it is for.
    fn go_on(&mut self, out: &mut Vec<u8>) -> BackStep {
        let login = match &self.aim {
            Aim::LogIn(login) => login,
            Aim::HandOver => return BackStep::Done(self.farewell()),
            Aim::Look => return send("QUIT\r\n", State::Leaving, &mut self.state, out),
        };
        let offered = self.extension("AUTH").unwrap_or_default();
        let takes = |sasl: &Sasl<'_>| offered.split(' ').any(|name| name == sasl.name());
        let Some(sasl) = Sasl::choose(login, takes) else { return BackStep::Fault(BackFault::NoMechanism) };
        let lines = sasl.auth_lines(true, SMTP_LINE_BYTES_MAX);
        self.talk.note(|| format!("C: AUTH {} [struck out]", sasl.name()));
        self.state = State::LogIn(LogInLines::begin(sasl.token(), lines, out));
        BackStep::Read
    }

    fn log_in_answered(&mut self, mut log_in: LogInLines, reply: &Reply, out: &mut Vec<u8>) -> BackStep {
        match reply.code {
            334 => {
                let step = log_in.go_on(out);
                self.state = State::LogIn(log_in);
                step
            }
            200..=299 if log_in.is_said() => {
                BackStep::Done(Welcome { status: reply.joined().into_bytes(), ..self.farewell() })
            }
            400..=499 => BackStep::Fault(BackFault::Unavailable(reply.joined())),
            code if code == 535 || log_in.is_dismissed() => BackStep::BadCredentials,
            500..=504 => BackStep::Fault(BackFault::NotUnderstood),
            // RFC 3207, section 4, and RFC 4954, section 6.
            530 | 538 => BackStep::Fault(BackFault::WantsTls),
            505..=599 => BackStep::Passed(reply.joined()),
            _ => BackStep::Fault(BackFault::Protocol("it answers out of turn")),
        }
    }

    /// What it can do, of that which clients may be told.
    fn farewell(&self) -> Welcome {
        let told = EXTENSIONS.iter().filter_map(|name| {
            let parameters = self.extension(name)?;
            let has_number = *name == SIZE && parameters.parse::<u64>().is_ok();
            Some(if has_number { format!("{name}={parameters}") } else { (*name).to_owned() })
        });
        Welcome { capabilities: Some(told.collect::<Vec<_>>().join(" ")), ..Welcome::default() }
    }

    /// The parameters of an extension, where it has that.
    fn extension(&self, name: &str) -> Option<&str> {
        self.extensions.iter().find_map(|line| {
            let rest = line.strip_prefix(name)?;
            // Old servers write AUTH=LOGIN.
            if rest.is_empty() { Some(rest) } else { rest.strip_prefix([' ', '=']) }
        })
    }
}

impl BackGrammar for Back {
    fn talk(&mut self) -> &mut Talk {
        &mut self.talk
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> BackStep {
        let reply = match self.replies.line(line) {
            Ok(Some(reply)) => reply,
            Ok(None) => return BackStep::Read,
            Err(_) if matches!(self.state, State::Greeting) => {
                return BackStep::Fault(BackFault::Greeting(printable(line, PASSED_TEXT_BYTES_MAX)));
            }
            Err(what) => return BackStep::Fault(BackFault::Protocol(what)),
        };
        let is_good = reply.is_good();
        match std::mem::replace(&mut self.state, State::Over) {
            State::Leaving => BackStep::Done(self.farewell()),
            State::Greeting if reply.code == 220 && self.is_own(&reply) => BackStep::Fault(BackFault::Loop),
            State::Greeting if reply.code == 220 => {
                self.say_hello(if self.setup.starttls { Stage::Clear } else { Stage::Ready }, out)
            }
            State::LogIn(log_in) => self.log_in_answered(log_in, &reply, out),
            State::StartTls if is_good => {
                self.state = State::Securing;
                self.extensions.clear();
                self.talk.begin_tls()
            }
            State::StartTls => BackStep::Fault(BackFault::NoStartTls),
            State::Hello(stage) if is_good => self.greeted(stage, reply, out),
            // What the client calls itself is none of the back end's faults.
            State::Hello(Stage::Introduced) if !reply.is_transient() => self.say_hello(Stage::Again, out),
            // It has greeted anew, and forgotten what came before.
            State::Xclient if is_good => self.say_hello(Stage::Introduced, out),
            // That it doesn't believe us is its own affair.
            State::Xclient if !reply.is_transient() => self.go_on(out),
            _ if reply.is_transient() => BackStep::Fault(BackFault::Unavailable(reply.joined())),
            State::Greeting => BackStep::Fault(BackFault::Greeting(reply.joined())),
            State::Hello(_) => BackStep::Fault(BackFault::Protocol("it refuses our hello")),
            State::Xclient | State::Securing | State::Over => {
                BackStep::Fault(BackFault::Protocol("it speaks out of turn"))
            }
        }
    }

    fn tls_up(&mut self, out: &mut Vec<u8>) -> BackStep {
        self.say_hello(Stage::Ready, out)
    }

    fn left(&mut self) -> Option<Welcome> {
        matches!(self.state, State::Leaving).then(|| self.farewell())
    }
}

/// An address as XCLIENT has it.
fn address(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("IPV6:{ip}"),
    }
}

/// Text as an attribute's value (RFC 1891, section 5).
fn xtext(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'+' | b'=' | 0..=32 | 127.. => format!("+{byte:02X}"),
        _ => char::from(byte).to_string(),
    };
    text.bytes().map(encode).collect()
}
