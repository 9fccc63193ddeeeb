//! What all conversations have in common, whatever the protocol: bytes are cut into frames, and those are worked off one
//! after another until something must come from outside. A protocol adds its grammar and its words.

use crate::frame::{Announced, Frame, Framer};
use crate::limits::{BACK_TALK_BYTES_MAX, PASSED_TEXT_BYTES_MAX};
use crate::protocols::{
    Answer, Back, BackEvent, BackFault, BackStep, Carry, Event, Front, Introduction, Refusal, Step, Welcome,
};
use crate::secret::Secret;
use crate::text::printable;

/// A peer's words as they come in, and what the log may show of a conversation.
pub(crate) struct Talk {
    framer: Framer,
    /// All bytes received so far.
    received_bytes: usize,
    /// `None`: nothing is kept.
    trace: Option<Vec<String>>,
}

impl Talk {
    pub(crate) fn new(framer: Framer, is_traced: bool) -> Self {
        Self { framer, received_bytes: 0, trace: is_traced.then(Vec::new) }
    }

    /// Keeps a line for the log, if anybody wants it.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    /// What has come of the present command.
    pub(crate) fn command(&self) -> &[u8] {
        self.framer.command()
    }

    /// Whether the present command must be refused whatever it says.
    pub(crate) fn is_broken(&self) -> bool {
        self.framer.is_broken()
    }

    /// Takes the announced literal into the command.
    pub(crate) fn accept_literal(&mut self) {
        self.framer.accept();
    }

    /// Refuses the announced literal, and with it the command. False: it is too large to read past.
    #[must_use]
    pub(crate) fn reject_literal(&mut self) -> bool {
        self.framer.reject()
    }

    /// Whether something came behind what was read last: an attacker could have placed it there.
    pub(crate) fn has_more(&mut self) -> bool {
        !self.framer.take_rest().is_empty()
    }
}

/// A protocol towards a back end.
pub(crate) trait BackGrammar: Send {
    fn talk(&mut self) -> &mut Talk;

    /// The back end said this, with its literals.
    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> BackStep;

    /// TLS is up.
    fn tls_up(&mut self, out: &mut Vec<u8>) -> BackStep;

    /// The back end has hung up. What it leaves behind, if goodbye was said.
    fn left(&mut self) -> Option<Welcome>;
}

impl<G: BackGrammar> Back for G {
    fn step(&mut self, event: BackEvent<'_>, out: &mut Vec<u8>) -> BackStep {
        let broken = |what| BackStep::Fault(BackFault::Protocol(what));
        let bytes = match event {
            BackEvent::TlsUp => return self.tls_up(out),
            BackEvent::Closed => return self.left().map_or(BackStep::Fault(BackFault::Closed), BackStep::Done),
            BackEvent::Input(bytes) => bytes,
        };
        let talk = self.talk();
        talk.received_bytes += bytes.len();
        if talk.received_bytes > BACK_TALK_BYTES_MAX {
            return broken("it says too much before the log-in is answered");
        }
        talk.framer.push(bytes);
        loop {
            let talk = self.talk();
            match talk.framer.next_frame() {
                None => return BackStep::Read,
                Some(Frame::Lost) => return broken("a line is too long"),
                Some(Frame::Literal(announced)) if announced.size > BACK_TALK_BYTES_MAX as u64 => {
                    return broken("a literal is too large");
                }
                Some(Frame::Literal(_)) => talk.framer.accept(),
                Some(Frame::Command) => {
                    let line = talk.framer.command().to_vec();
                    talk.framer.finish();
                    talk.note(|| format!("S: {}", printable(&line, PASSED_TEXT_BYTES_MAX)));
                    let step = self.line(&line, out);
                    if !matches!(step, BackStep::Read) {
                        return step;
                    }
                }
            }
        }
    }

    fn take_rest(&mut self) -> Vec<u8> {
        self.talk().framer.take_rest()
    }

    fn take_trace(&mut self) -> Vec<String> {
        self.talk().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// A protocol towards a client.
pub(crate) trait FrontGrammar: Send {
    fn talk(&mut self) -> &mut Talk;

    /// The greeting.
    fn start(&mut self, out: &mut Vec<u8>);

    /// What is said unasked once TLS is up; in most protocols nothing, since the client speaks first.
    fn tls_up(&mut self, _out: &mut Vec<u8>) {}

    /// The client said this, with its literals: a command, or a message of an exchange. `is_broken`: it must be refused
    /// whatever it says.
    fn command(&mut self, line: &[u8], is_broken: bool, out: &mut Vec<u8>) -> Step;

    /// The client announces a literal.
    fn literal(&mut self, announced: Announced, out: &mut Vec<u8>) -> Step;

    /// The outside answers.
    fn answer(&mut self, answer: &Answer, out: &mut Vec<u8>) -> Step;

    /// The last words, in this text or the refusal's own.
    fn end(&mut self, refusal: Refusal, text: Option<&'static str>, out: &mut Vec<u8>) -> Step;

    fn carry(&self) -> Carry;

    fn introduction(&self) -> Introduction {
        Introduction::default()
    }

    fn is_exchanging(&self) -> bool;
}

/// Works off what was received until something must come from outside.
fn run(front: &mut impl FrontGrammar, out: &mut Vec<u8>) -> Step {
    loop {
        let talk = front.talk();
        let step = match talk.framer.next_frame() {
            None => return Step::Read,
            Some(Frame::Lost) => return front.end(Refusal::Misbehaved, Some("Line or command too long."), out),
            Some(Frame::Literal(announced)) => front.literal(announced, out),
            Some(Frame::Command) => {
                let line = Secret::new(talk.framer.command().to_vec());
                let is_broken = talk.framer.is_broken();
                talk.framer.finish();
                front.command(line.expose(), is_broken, out)
            }
        };
        if !matches!(step, Step::Read) {
            return step;
        }
    }
}

impl<G: FrontGrammar> Front for G {
    fn step(&mut self, event: Event<'_>, out: &mut Vec<u8>) -> Step {
        match event {
            Event::Start => self.start(out),
            Event::TlsUp => self.tls_up(out),
            Event::Input(bytes) => {
                self.talk().framer.push(bytes);
                return run(self, out);
            }
            Event::Answer(answer) => {
                return match self.answer(&answer, out) {
                    Step::Read => run(self, out),
                    step => step,
                };
            }
            Event::Close(refusal) => return self.end(refusal, None, out),
        }
        Step::Read
    }

    fn carry(&self) -> Carry {
        FrontGrammar::carry(self)
    }

    fn introduction(&self) -> Introduction {
        FrontGrammar::introduction(self)
    }

    fn is_exchanging(&self) -> bool {
        FrontGrammar::is_exchanging(self)
    }

    fn take_rest(&mut self) -> Vec<u8> {
        self.talk().framer.take_rest()
    }

    fn take_trace(&mut self) -> Vec<String> {
        self.talk().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
