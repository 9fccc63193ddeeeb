//! The content of a message on its way from the client: behind DATA up to its end, or behind BDAT in chunks.

use std::time::Duration;

use gatepost_wire::Refusal;
use gatepost_wire::smtp::{Chunk, Content, Event, OwnReply, Reply, Step, chunk_taken};
use tokio::time::{Instant, timeout_at};

use super::delivery::{COMMAND_TIME, OUTCOME_TIME};
use super::{Mail, SILENCE_TIME};
use crate::story::Ended;

/// Content that comes more slowly than this, over and above a silence, comes from nobody who wants to send mail.
const CONTENT_BYTES_PER_SECOND_MIN: u64 = 500;
/// What is read of a message that nobody will have, before the session ends.
const DISCARDED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How much of a message has come, and since when. It may come as slowly as is said above, but no more slowly, however it is
/// spread; what back ends take is not the client's.
pub(super) struct Pace {
    since: Instant,
    size: u64,
    /// Of that, what nobody will have.
    discarded: u64,
}

impl Pace {
    pub(super) fn begin() -> Self {
        Self { since: Instant::now(), size: 0, discarded: 0 }
    }

    /// When more must have come.
    fn deadline(&self) -> Instant {
        let latest = self.since + SILENCE_TIME + Duration::from_secs(self.size / CONTENT_BYTES_PER_SECOND_MIN);
        latest.min(Instant::now() + SILENCE_TIME)
    }

    /// Time that passed since `started` was not the client's.
    fn excuse(&mut self, started: Instant) {
        self.since += started.elapsed();
    }
}

impl Mail<'_> {
    /// From the question whether the content may come to what became of it.
    pub(super) async fn content(&mut self) -> Result<Step, Ended> {
        let started = Instant::now();
        let asked = self.delivery.ask_for_content().await;
        self.excuse(started);
        if let Err(reply) = asked {
            let step = self.no_content(reply);
            // Whoever has not waited for that answer has sent content, which must not be read as commands.
            if self.session.has_spoken().await {
                return Ok(self.tell(Event::Close(Refusal::Misbehaved)));
            }
            return Ok(step);
        }
        let step = self.tell(Event::Reply(OwnReply::SendContent.reply()));
        if step != Step::Read {
            return Ok(step);
        }
        self.flush().await?;
        let (rest, size) = self.pass_content().await?;
        self.conclude(&rest, size, Instant::now() + OUTCOME_TIME).await
    }

    /// A chunk, up to what became of it; with the last, of the message.
    pub(super) async fn chunk(&mut self, Chunk { size, is_last }: Chunk) -> Result<Step, Ended> {
        let started = Instant::now();
        let begun = self.delivery.take_pace();
        self.delivery.open_chunk(size, begun.is_none()).await;
        let mut pace = match begun {
            Some(mut pace) => {
                pace.excuse(started);
                pace
            }
            None => Pace::begin(),
        };
        let rest = self.pass_chunk(size, &mut pace).await?;
        let closing = Instant::now();
        // The client waits for the last word no longer than for that of a message that came by DATA.
        let deadline = closing + if is_last { OUTCOME_TIME } else { COMMAND_TIME };
        let closed = self.delivery.close_chunk(deadline).await;
        if is_last {
            // Each recipient has an answer, whatever came of it.
            return self.conclude(&rest, pace.size, deadline).await;
        }
        if let Err(reply) = closed {
            let step = self.no_content(reply);
            self.set_deadline();
            return Ok(self.go_on(step, &rest));
        }
        pace.excuse(closing);
        self.session.deadline = pace.deadline();
        self.delivery.keep_pace(pace);
        let step = self.tell(Event::Reply(chunk_taken(size)));
        Ok(self.go_on(step, &rest))
    }

    /// Nobody has, or will have, the message: the client is told before all of it has come.
    fn no_content(&mut self, reply: Reply) -> Step {
        self.note("mail was refused", self.delivery.sender(), None, &reply);
        let is_final = !reply.is_transient();
        let step = self.tell(Event::Reply(reply));
        if is_final {
            self.delivery.heard();
        }
        self.delivery.reset();
        step
    }

    /// All of the message has come, and `rest` behind it: what becomes of it until then.
    async fn conclude(&mut self, rest: &[u8], size: u64, deadline: Instant) -> Result<Step, Ended> {
        let (replies, taken) = self.delivery.settle(deadline).await;
        self.tally.messages += u64::from(taken > 0);
        self.tally.bytes += size;
        self.session.snapshot.listener.service.metrics.bytes_up.add(size);
        self.session.handle.moved(size, 0);
        self.note_message(&replies, taken, size);
        let is_final = replies.iter().all(|reply| !reply.is_transient());
        let step = self.tell(Event::Outcome(replies));
        self.set_deadline();
        self.flush().await?;
        if is_final {
            self.delivery.heard();
        }
        self.delivery.reset();
        self.set_deadline();
        Ok(self.go_on(step, rest))
    }

    /// Reads on in what came behind a message, a chunk or the beginning.
    pub(super) fn go_on(&mut self, step: Step, rest: &[u8]) -> Step {
        if step == Step::Read && !rest.is_empty() { self.tell(Event::Input(rest)) } else { step }
    }

    /// Passes content on as it comes, never faster than the slowest back end takes it. Gives what came behind it, and its
    /// size.
    async fn pass_content(&mut self) -> Result<(Vec<u8>, u64), Ended> {
        let (mut content, mut pace, mut bytes) = (Content::default(), Pace::begin(), Vec::new());
        loop {
            self.read_content(&mut bytes, &pace).await?;
            let passing = Instant::now();
            let scanned = content.scan(&bytes);
            pace.size += scanned.part.len() as u64 + u64::from(scanned.dot);
            if content.is_sound() {
                if scanned.dot {
                    self.delivery.pass(b".").await;
                }
                self.delivery.pass(scanned.part).await;
            } else {
                self.delivery.refuse(&OwnReply::BareLineEnd.reply());
            }
            pace.excuse(passing);
            self.check_discarded(&mut pace, scanned.taken).await?;
            if scanned.is_end {
                return Ok((bytes[scanned.taken..].to_vec(), pace.size));
            }
        }
    }

    /// Passes a chunk on, as [`Mail::pass_content`] does. Gives what came behind it.
    async fn pass_chunk(&mut self, size: u64, pace: &mut Pace) -> Result<Vec<u8>, Ended> {
        let (mut bytes, mut left) = (self.receiver.take_content(size), size);
        loop {
            let now = left.min(bytes.len() as u64) as usize;
            left -= now as u64;
            pace.size += now as u64;
            let passing = Instant::now();
            self.delivery.pass(&bytes[..now]).await;
            pace.excuse(passing);
            self.check_discarded(pace, now).await?;
            if left == 0 {
                return Ok(bytes.split_off(now));
            }
            self.read_content(&mut bytes, pace).await?;
        }
    }

    /// The next of what the client sends, at least a byte.
    async fn read_content(&mut self, bytes: &mut Vec<u8>, pace: &Pace) -> Result<(), Ended> {
        bytes.clear();
        match timeout_at(pace.deadline(), self.session.client.read_mail(bytes)).await {
            Ok(Ok(count)) if count > 0 => Ok(()),
            // Without an end, no back end takes it for a message.
            Ok(Ok(_)) => Err(Ended::Gone("closed by the client within a message".into())),
            Ok(Err(error)) => Err(Ended::Gone(error.to_string())),
            Err(_) => Err(self.cut_off(OwnReply::TooSlow).await),
        }
    }

    /// Ends the session once too much was read of what nobody will have.
    async fn check_discarded(&mut self, pace: &mut Pace, taken: usize) -> Result<(), Ended> {
        if self.delivery.is_given_up() {
            pace.discarded += taken as u64;
            if pace.discarded > DISCARDED_BYTES_MAX {
                return Err(self.cut_off(OwnReply::WithoutEnd).await);
            }
        }
        Ok(())
    }

    /// Ends the session in the middle of a message, which nobody will have.
    async fn cut_off(&mut self, why: OwnReply) -> Ended {
        let reply = why.reply();
        self.out.extend_from_slice(reply.line().as_bytes());
        // Who sends without end may not listen either.
        let _ = self.flush().await;
        Ended::Gone(reply.joined())
    }
}
