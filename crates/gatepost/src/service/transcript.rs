//! A session's conversations in the log: at level `protocol`, or where somebody's are followed.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use gatepost_wire::Front;

use super::Session;
use super::claim::Progress;
use crate::config::Level;

/// What of a conversation is kept while it is not known whose it is.
const UNHEARD_BYTES_MAX: usize = 8 * 1024;

/// What was said, and with whom, before it was known whose conversation this is, where somebody's is followed.
#[derive(Default)]
pub(super) struct Unheard(Mutex<Vec<(&'static str, String)>>);

impl Session {
    /// Whether anybody may want to know what is said.
    pub(super) fn is_heard(&self) -> bool {
        let log = &self.shared.log;
        log.wants(Level::Protocol) || log.following().is_any()
    }

    /// Logs what passed between a front and its client.
    pub(super) fn tell_front(&self, front: &mut dyn Front, out: &[u8], progress: &Progress) {
        if !self.is_heard() {
            return;
        }
        // With challenges, who reads the log could try passwords at leisure.
        let is_challenge = matches!(progress, Progress::Challenged(_) | Progress::Agreed(..));
        let said = if is_challenge { "[struck out]".into() } else { String::from_utf8_lossy(out) };
        self.tell_talk(front.take_trace(), &said);
    }

    /// Logs what a client said, as far as that may be seen, and what it was told.
    pub(super) fn tell_talk(&self, heard: Vec<String>, said: &str) {
        let lines = heard.into_iter().map(|line| format!("C: {line}"));
        for line in lines.chain(said.lines().map(|line| format!("S: {line}"))) {
            self.tell_line("client", line);
        }
    }

    /// Logs a line of a conversation, or keeps it until it is known whether its user is followed.
    pub(super) fn tell_line(&self, with: &'static str, line: String) {
        let (log, story) = (&self.shared.log, self.story());
        if log.wants(Level::Protocol) {
            return story.tell_line(log, false, with, line);
        }
        let mut unheard = self.unheard.0.lock().unwrap_or_else(PoisonError::into_inner);
        if story.user.as_ref().is_some_and(|user| log.following().has(user, Instant::now())) {
            let kept = std::mem::take(&mut *unheard).into_iter();
            kept.chain([(with, line)]).for_each(|(with, line)| story.tell_line(log, true, with, line));
        } else if unheard.iter().map(|(_, line)| line.len()).sum::<usize>() + line.len() <= UNHEARD_BYTES_MAX {
            unheard.push((with, line));
        }
    }
}
