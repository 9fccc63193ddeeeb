//! A conversation with a client up to the end of its log-in.

use super::{Heard, NO_WEB_SERVER, TOO_MANY_AT_ONCE, Talk};
use crate::exchange::{Exchange, Turn};
use crate::frame::{Announced, Framer, is_http};
use crate::limits::ANSWER_BYTES_MAX;
use crate::protocols::{
    Answer, Carry, ClientSetup, ClientTls, Event, Front, Introduction, LogInRules, Mechanism, Outcome, Refusal, Step,
    TokenMechanism, Welcome,
};
use crate::secret::Secret;

/// What every conversation keeps in which a client logs in.
pub(crate) struct Client {
    pub(crate) setup: ClientSetup,
    pub(crate) rules: LogInRules,
    pub(crate) talk: Talk,
    pub(crate) carry: Carry,
    pub(crate) introduction: Introduction,
    pub(crate) log_in: LogIn,
}

/// How far a log-in has come.
#[derive(Default)]
pub(crate) enum LogIn {
    /// None is under way: a command comes next.
    #[default]
    Idle,
    /// The client's next line belongs to this exchange.
    Exchanging(Exchange),
    /// The outside has been asked; where that was about a token, shown by this mechanism.
    Asked(Option<TokenMechanism>),
}

impl Client {
    pub(crate) fn new(setup: ClientSetup, rules: LogInRules, framer: Framer) -> Self {
        Self {
            talk: Talk::new(framer, setup.trace),
            carry: setup.carry,
            introduction: Introduction::default(),
            log_in: LogIn::Idle,
            setup,
            rules,
        }
    }

    /// The SASL mechanism of this name, if it is offered.
    pub(crate) fn mechanism(&self, name: &[u8]) -> Option<Mechanism> {
        Mechanism::named(name).filter(|mechanism| self.rules.mechanisms.contains(mechanism))
    }

    /// The mechanisms that the client is told of: none while there would have to be TLS first.
    pub(crate) fn advertised(&self) -> &[Mechanism] {
        if self.rules.takes_secrets { &self.rules.mechanisms } else { &[] }
    }
}

/// Whoever talks to a client.
pub(crate) trait HasClient {
    fn client(&self) -> &Client;

    fn client_mut(&mut self) -> &mut Client;
}

/// Has a type talk to the client in its field of that name.
macro_rules! has_client {
    ($front:ty) => {
        impl $crate::conversation::HasClient for $front {
            fn client(&self) -> &$crate::conversation::Client {
                &self.client
            }

            fn client_mut(&mut self) -> &mut $crate::conversation::Client {
                &mut self.client
            }
        }
    };
}
pub(crate) use has_client;

/// A protocol towards a client: what it has of its own is its commands and how things are put into words; those of a
/// log-in, up to its end, belong to the command that began it.
pub(crate) trait FrontGrammar: HasClient + Send {
    /// The greeting.
    fn start(&mut self, out: &mut Vec<u8>);

    /// What is said unasked once TLS is up; in most protocols nothing, since the client speaks first.
    fn tls_up(&mut self, _out: &mut Vec<u8>) {}

    /// The client said this, with its literals. `is_broken`: it must be refused whatever it says.
    fn command(&mut self, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step;

    /// The client announces a literal. Where there are only lines, the framer finds none.
    fn literal(&mut self, _announced: Announced, out: &mut Vec<u8>) -> Step {
        self.reject_literal(out)
    }

    /// What a line of an exchange holds, in base64, or what is wrong with it; `is_broken` as for a command.
    fn response(&self, line: &[u8], is_broken: bool) -> Result<Secret, &'static str> {
        match line {
            _ if is_broken => Err("Lines end in CRLF."),
            b"*" => Err("AUTH cancelled."),
            line => Ok(Secret::new(line.to_vec())),
        }
    }

    /// The client is to answer this, which is base64.
    fn say_challenge(&self, text: &str, out: &mut Vec<u8>);

    /// It is logged in: the back end's own line, where it needs no other tag.
    fn say_welcome(&self, welcome: &Welcome, out: &mut Vec<u8>) {
        out.extend_from_slice(&welcome.status);
        out.extend_from_slice(b"\r\n");
    }

    /// The log-in is refused.
    fn say_refused(&self, refusal: Refusal, out: &mut Vec<u8>);

    /// The log-in is refused in the back end's own words. Whether that counts as a failed one.
    fn say_passed(&self, text: &str, out: &mut Vec<u8>) -> bool;

    /// The command is wrong.
    fn say_wrong(&self, text: &str, out: &mut Vec<u8>);

    /// The last words, in this text or the refusal's own.
    fn say_bye(&self, refusal: Refusal, text: Option<&str>, out: &mut Vec<u8>);

    /// What is said when the client has gone wrong too often, behind the answer to the last time.
    fn say_enough(&self, text: Option<&str>, out: &mut Vec<u8>) {
        self.say_bye(Refusal::Misbehaved, text, out);
    }

    /// One reply for one wrong command, and the end after too many.
    fn wrong(&mut self, text: &str, out: &mut Vec<u8>) -> Step {
        self.say_wrong(text, out);
        self.count_error(out)
    }

    /// The end after too many wrong commands; each has been answered.
    fn count_error(&mut self, out: &mut Vec<u8>) -> Step {
        let client = self.client_mut();
        if client.carry.count_error(client.setup.max_errors) {
            self.say_enough(None, out);
            return Step::Close(Outcome::Refused(Refusal::Misbehaved));
        }
        Step::Read
    }

    /// The log-in is refused, and it is the end after too many.
    fn refuse(&mut self, refusal: Refusal, out: &mut Vec<u8>) -> Step {
        self.say_refused(refusal, out);
        self.count_failure(refusal.counts(), out)
    }

    /// The end after too many failed log-ins, if this is one; each has been answered.
    fn count_failure(&mut self, counts: bool, out: &mut Vec<u8>) -> Step {
        let client = self.client_mut();
        if counts && client.carry.count_failure(client.rules.max_auth_errors) {
            self.say_enough(Some("Too many failed log-ins."), out);
            return Step::Close(Outcome::Refused(Refusal::Misbehaved));
        }
        Step::Read
    }

    /// A password is refused before it is sent, where it isn't sent already.
    fn refuse_in_clear(&mut self, out: &mut Vec<u8>) -> Step {
        self.say_refused(Refusal::TlsRequired, out);
        self.count_error(out)
    }

    /// Begins a log-in by the mechanism of this name; `initial` is base64.
    fn begin_exchange(&mut self, name: &[u8], initial: Option<&[u8]>, out: &mut Vec<u8>) -> Step {
        let Some(mechanism) = self.client().mechanism(name) else { return self.refuse_mechanism(out) };
        if !self.client().rules.takes_secrets {
            return self.refuse_in_clear(out);
        }
        self.turn(Exchange::begin(mechanism, initial), out)
    }

    /// The mechanism is none that is offered.
    fn refuse_mechanism(&mut self, out: &mut Vec<u8>) -> Step {
        self.wrong("This mechanism is not offered.", out)
    }

    /// Begins TLS, where it is to be had; `agreed` is the line that the client reads then.
    fn start_tls(&mut self, agreed: &str, out: &mut Vec<u8>) -> Step {
        match self.client().setup.tls {
            ClientTls::Offered => {
                out.extend_from_slice(agreed.as_bytes());
                out.extend_from_slice(b"\r\n");
                Step::StartTls
            }
            ClientTls::Up => self.wrong("TLS is already active.", out),
            ClientTls::Never => self.wrong("TLS is not available here.", out),
        }
    }

    /// Says goodbye.
    fn end(&mut self, refusal: Refusal, text: Option<&str>, out: &mut Vec<u8>) -> Step {
        self.say_bye(refusal, text, out);
        Step::Close(Outcome::Refused(refusal))
    }

    /// Refuses the announced literal, and with it the command; it is the end if it is too large to read past.
    fn reject_literal(&mut self, out: &mut Vec<u8>) -> Step {
        if self.client_mut().talk.reject_literal() {
            Step::Read
        } else {
            self.end(Refusal::Misbehaved, Some("Literal too large."), out)
        }
    }

    /// Goes where an exchange leads.
    fn turn(&mut self, turn: Turn, out: &mut Vec<u8>) -> Step {
        match turn {
            Turn::Challenge(exchange, text) => {
                self.say_challenge(&text, out);
                self.client_mut().log_in = LogIn::Exchanging(exchange);
                Step::Read
            }
            Turn::Ask(ask) => {
                self.client_mut().log_in = LogIn::Asked(ask.token());
                Step::Ask(ask)
            }
            Turn::Dismissed => self.refuse(Refusal::BadCredentials, out),
            Turn::Malformed => self.wrong("Invalid base64.", out),
        }
    }
}

/// A line of an exchange.
fn respond(front: &mut impl FrontGrammar, exchange: Exchange, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step {
    front.client_mut().talk.note(|| "[struck out]".to_owned());
    if exchange.is_dismissal() {
        return front.turn(exchange.take(line), out);
    }
    match front.response(line, is_broken) {
        Ok(base64) => front.turn(exchange.take(base64.expose()), out),
        Err(text) => front.wrong(text, out),
    }
}

/// The outside answers what it was asked.
fn answer(front: &mut impl FrontGrammar, answer: &Answer, out: &mut Vec<u8>) -> Step {
    let client = front.client_mut();
    let LogIn::Asked(token) = std::mem::take(&mut client.log_in) else { return Step::Read };
    match answer {
        Answer::Challenge(message) => front.turn(Exchange::carry(message), out),
        Answer::Welcome(welcome) => {
            front.say_welcome(welcome, out);
            Step::Through
        }
        Answer::Refused(Refusal::BadCredentials) => match token {
            Some(by) => {
                let turn = Exchange::refuse_token(by, &client.rules.oauth);
                front.turn(turn, out)
            }
            None => front.refuse(Refusal::BadCredentials, out),
        },
        Answer::Refused(refusal) => front.refuse(*refusal, out),
        Answer::Passed(text) => {
            let counts = front.say_passed(text, out);
            front.count_failure(counts, out)
        }
    }
}

/// Works off what was received until something must come from outside.
fn run(front: &mut impl FrontGrammar, out: &mut Vec<u8>) -> Step {
    loop {
        let Client { talk, log_in, .. } = front.client_mut();
        let step = match talk.next_heard() {
            None => return Step::Read,
            Some(Heard::Lost) => return front.end(Refusal::Misbehaved, Some("Line or command too long."), out),
            Some(Heard::Literal(announced)) => front.literal(announced, out),
            Some(Heard::Line { line, is_broken }) => match std::mem::take(log_in) {
                LogIn::Exchanging(exchange) => respond(front, exchange, line.expose(), is_broken, out),
                _ if is_http(line.expose()) => front.end(Refusal::Misbehaved, Some(NO_WEB_SERVER), out),
                LogIn::Idle | LogIn::Asked(_) => front.command(line.expose(), is_broken, out),
            },
        };
        if !matches!(step, Step::Read) {
            return step;
        }
        if out.len() > ANSWER_BYTES_MAX {
            return front.end(Refusal::Misbehaved, Some(TOO_MANY_AT_ONCE), out);
        }
    }
}

impl<G: FrontGrammar> Front for G {
    fn step(&mut self, event: Event<'_>, out: &mut Vec<u8>) -> Step {
        match event {
            Event::Start => self.start(out),
            Event::TlsUp => self.tls_up(out),
            Event::Input(bytes) => {
                self.client_mut().talk.push(bytes);
                return run(self, out);
            }
            Event::Answer(said) => {
                return match answer(self, &said, out) {
                    Step::Read => run(self, out),
                    step => step,
                };
            }
            Event::Close(refusal) => return self.end(refusal, None, out),
        }
        Step::Read
    }

    fn carry(&self) -> Carry {
        self.client().carry
    }

    fn introduction(&self) -> Introduction {
        self.client().introduction.clone()
    }

    fn is_exchanging(&self) -> bool {
        matches!(self.client().log_in, LogIn::Exchanging(_))
    }

    fn take_rest(&mut self) -> Vec<u8> {
        self.client_mut().talk.take_rest()
    }

    fn take_trace(&mut self) -> Vec<String> {
        self.client_mut().talk.take_trace()
    }
}
