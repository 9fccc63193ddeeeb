//! A conversation with a back end: what it says, a line after another.

use super::Talk;
use crate::frame::Frame;
use crate::limits::{BACK_TALK_BYTES_MAX, PASSED_TEXT_BYTES_MAX};
use crate::protocols::{Back, BackEvent, BackFault, BackStep, Welcome};
use crate::text::printable;

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

/// Says a line, and goes to the state in which it is answered.
pub(crate) fn send<S>(line: &str, next: S, state: &mut S, out: &mut Vec<u8>) -> BackStep {
    out.extend_from_slice(line.as_bytes());
    *state = next;
    BackStep::Read
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
        self.talk().take_trace()
    }
}
