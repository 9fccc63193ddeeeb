//! A log-in by somebody who claims to be a user: counted, checked, placed and tried at the back end, and told of where it
//! came to nothing.

use std::sync::Arc;
use std::time::Duration;

use gatepost_wire::{Introduction, Mechanism};
use tokio::time::{Instant, timeout_at};

use super::Session;
use super::claim::Claim;
use super::denied::Denied;
use super::reach::LoggedIn;
use crate::config::Level;
use crate::defence::{Attempt, Consequence, Stopped};
use crate::metrics::LogIn;
use crate::traces::Trace;

/// How long a wrong password takes where Gatepost checks it: longer than any hash in use.
const CHECKED_HERE_TIME: Duration = Duration::from_secs(1);
/// A refusal that takes its time still comes this long before the client's time is over.
const ANSWER_MARGIN: Duration = Duration::from_millis(200);
/// How often a log-in that waits for others looks whether they have ended.
const CROWD_PAUSE: Duration = Duration::from_millis(100);
/// Why a log-in came to nothing, or to an early end.
pub(super) const MOVED: &str = "the user was moved during this log-in";

/// A log-in that has begun.
pub(super) struct Begun {
    /// Counts as failed until it isn't.
    pub(super) attempt: Attempt,
    /// As users are looked up; empty where what is shown must say who it is.
    pub(super) user: String,
}

impl Session {
    /// A log-in begins: `written` is the name as the client wrote it, where there is one.
    pub(super) async fn begin(&self, mechanism: Mechanism, written: &str) -> Result<Begun, Denied> {
        let user = match written {
            "" => None,
            written => Some(self.snapshot.listener.settings.names.canonical(written)),
        };
        self.story().attempt(mechanism.name(), user.clone());
        let attempt = self.begin_attempt(user.as_deref()).await?;
        Ok(Begun { attempt, user: user.unwrap_or_default() })
    }

    /// Counts a log-in, unless too many failed before it; some must wait.
    async fn begin_attempt(&self, user: Option<&str>) -> Result<Attempt, Denied> {
        let (defence, address) = (&self.shared.defence, self.address.ip());
        let settings = self.snapshot.defence.as_ref();
        let last = self.deadline - ANSWER_MARGIN;
        let begun = loop {
            match defence.begin(settings, address, user, std::time::Instant::now()) {
                // So many are under way that more could be too many, if all fail: it waits until some have ended.
                Err(Stopped::Crowded) if Instant::now() + CROWD_PAUSE < last => tokio::time::sleep(CROWD_PAUSE).await,
                begun => break begun,
            }
        };
        let (what, whose) = match begun {
            Ok(attempt) => {
                if !attempt.delay.is_zero() {
                    tokio::time::sleep_until((Instant::now() + attempt.delay).min(last)).await;
                }
                return Ok(attempt);
            }
            Err(Stopped::Crowded) => {
                return Err(self.tell(Denied::Unavailable("too many log-ins from there are under way".into())));
            }
            Err(Stopped::Address) => {
                ("log-ins from an address are refused: too many failed", address.to_canonical().to_string())
            }
            Err(Stopped::User) => {
                let what = "log-ins of a user from new places are refused: too many failed";
                (what, user.unwrap_or_default().to_owned())
            }
        };
        if let Some(times) = self.shared.log.seldom(&format!("{what} {whose}")) {
            self.story().tell_guessing(&self.shared.log, what, times);
        }
        Err(self.tell(Denied::Guessing))
    }

    /// Who is it, where is the mail, and does the back end agree?
    pub(super) async fn carry_out(
        &self,
        begun: Begun,
        claim: &Claim,
        introduction: &Introduction,
    ) -> Result<LoggedIn, Denied> {
        let Begun { attempt, user } = begun;
        // Behind the delay of a log-in after failures: what hides how long a check takes must not pass meanwhile.
        let asked = Instant::now();
        let result = match timeout_at(self.deadline, self.resolve(user, claim)).await {
            Ok(Ok(place)) => {
                let logged_in = self.connect(place, claim.means.proof(), introduction, asked).await;
                logged_in.and_then(|logged_in| self.still_there(logged_in))
            }
            Ok(Err(denied)) => {
                if denied.looks_wrong() {
                    self.take_time(asked).await;
                }
                Err(denied)
            }
            Err(_) => Err(Denied::Unavailable("the directories took too long".into())),
        };
        let now = std::time::Instant::now();
        match &result {
            Ok(logged_in) => attempt.succeeded(&logged_in.user, now),
            Err(denied) if denied.is_failure(self.service().settings.protocol) => {
                let tag = self.shared.defence.tag(claim.means.shown());
                self.count_failure(attempt, tag, now);
            }
            // Not wrong, as far as anybody knows.
            Err(_) => drop(attempt),
        }
        result.map_err(|denied| self.tell(denied))
    }

    /// A user who was moved meanwhile is not where this log-in went.
    fn still_there(&self, logged_in: LoggedIn) -> Result<LoggedIn, Denied> {
        if self.snapshot.map.was_moved_since(&logged_in.user, logged_in.placed_at) {
            return Err(Denied::Unavailable(MOVED.into()));
        }
        Ok(logged_in)
    }

    /// Counts a log-in that failed; `tag` tells one wrong password from the next.
    pub(super) fn count_failure(&self, attempt: Attempt, tag: u64, now: std::time::Instant) {
        if attempt.failed(tag, now) == Consequence::Ban {
            self.story().tell_guessing(&self.shared.log, "an address is banned: too many log-ins failed", 1);
        }
    }

    /// Counts and logs credentials that no user can have, and takes as long as for any others.
    pub(super) async fn refuse_malformed(&self, mechanism: Mechanism) {
        let Ok(begun) = self.begin(mechanism, "").await else { return };
        self.take_time(Instant::now()).await;
        self.count_failure(begun.attempt, 0, std::time::Instant::now());
        self.tell(Denied::Wrong);
    }

    /// A refusal that Gatepost could give at once takes as long as one by a back end, or where Gatepost
    /// checks passwords, longer than any check: the clock tells nobody which users exist.
    pub(super) async fn take_time(&self, asked: Instant) {
        let time = if self.service().checks.is_some() { CHECKED_HERE_TIME } else { self.shared.pace.sample() };
        tokio::time::sleep_until((asked + time).min(self.deadline - ANSWER_MARGIN)).await;
    }

    /// Counts a log-in that came to nothing, and logs it at once, in the words that filters against guessing know.
    pub(super) fn tell(&self, denied: Denied) -> Denied {
        if let Some(result) = denied.counted_as() {
            self.note_log_in(result);
        }
        let (log, story) = (&self.shared.log, self.story());
        match &denied {
            Denied::Wrong | Denied::Disabled | Denied::Expired | Denied::Guessing | Denied::Passed(_) => {
                story.tell_failure(log, self.local.ip());
            }
            Denied::Unfit(text) => {
                story.tell_failure(log, self.local.ip());
                story.tell_fault(log, Level::Error, text);
            }
            Denied::Misplaced(text) => match log.seldom(&format!("{:?} {text}", story.service)) {
                None => {}
                Some(1) => story.tell_fault(log, Level::Error, text),
                Some(times) => {
                    let text = format!("{text} ({times} log-ins since this was last said)");
                    story.tell_fault(log, Level::Error, &text);
                }
            },
            Denied::Full(text) => story.tell_fault(log, Level::Warning, text),
            Denied::Unavailable(text) => story.tell_fault(log, Level::Error, text),
            // Whose doing it is, is logged already.
            Denied::Stopping | Denied::Left => {}
        }
        denied
    }

    /// Counts a log-in.
    pub(super) fn note_log_in(&self, result: LogIn) {
        let story = self.story();
        self.service().metrics.log_in(story.mechanism.unwrap_or_default(), result);
        self.trail.tell(|| Trace {
            session: story.session.bytes(),
            service: story.service,
            listener: Arc::clone(&story.listener),
            mechanism: story.mechanism,
            backend: story.backend.clone(),
            result,
        });
    }
}
