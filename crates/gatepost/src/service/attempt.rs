//! A log-in by somebody who claims to be a user: counted, checked, placed and tried at the back end, and told of where it
//! came to nothing.

use std::pin::{Pin, pin};
use std::time::Duration;

use gatepost_wire::Mechanism;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Session;
use super::called_off::unless_called_off;
use super::claim::Means;
use super::denied::{Denied, MOVED, Told};
use super::reach::{LoggedIn, Onward};
use crate::defence::{Attempt, Stopped};

/// How long a wrong password takes where Gatepost checks it: longer than any hash in use.
const CHECKED_HERE_TIME: Duration = Duration::from_secs(1);
/// A refusal that takes its time still comes this long before the client's time is over.
const ANSWER_MARGIN: Duration = Duration::from_millis(200);
/// How often a log-in that waits for others looks whether they have ended.
const CROWD_PAUSE: Duration = Duration::from_millis(100);

impl Session {
    /// A log-in begins, and is counted unless too many failed before it; some must wait. It counts as failed until it isn't;
    /// dropped, as if it had not been.
    pub(super) async fn begin(&self, mechanism: Mechanism, user: Option<&str>) -> Result<Attempt, Told> {
        self.story().attempt(mechanism, user.map(str::to_owned));
        let (defence, address) = (&self.shared.defence, self.address.ip());
        let settings = self.snapshot.defence.as_ref();
        let last = self.deadline - ANSWER_MARGIN;
        let begun = loop {
            match defence.begin(settings, address, user, std::time::Instant::now()) {
                // So many are under way that more could be too many, if all fail: it waits until some have ended.
                Err(Stopped::Crowded) if Instant::now() + CROWD_PAUSE < last => {
                    self.rest_until(Instant::now() + CROWD_PAUSE).await?;
                }
                begun => break begun,
            }
        };
        let (what, whose) = match begun {
            Ok(attempt) => {
                if !attempt.delay.is_zero() {
                    self.rest_until((Instant::now() + attempt.delay).min(last)).await?;
                }
                return Ok(attempt);
            }
            Err(Stopped::Crowded) => {
                return Err(self.tell(Denied::Held("too many log-ins of this address or user are under way")));
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

    /// A log-in waits its time, unless it is called off.
    async fn rest_until(&self, end: Instant) -> Result<(), Told> {
        let rested = unless_called_off(&self.shared, &self.handle, pin!(sleep_until(end))).await;
        rested.map_err(|called_off| self.tell(called_off.into()))
    }

    /// Who is it, where is the mail, and does the back end agree?
    pub(super) async fn carry_out(&self, attempt: Attempt, means: &Means, onward: &Onward) -> Result<LoggedIn, Told> {
        // Behind the delay of a log-in after failures: what hides how long a check takes must not pass meanwhile.
        let asked = Instant::now();
        let resolved = self.in_time(asked, pin!(self.resolve(means))).await;
        let result = match resolved {
            Ok(place) => {
                let logged_in = self.connect(place, onward, asked).await;
                logged_in.and_then(|logged_in| self.still_there(logged_in))
            }
            Err(denied) => Err(denied),
        };
        match result {
            Ok(logged_in) => {
                attempt.succeeded(&logged_in.user, std::time::Instant::now());
                Ok(logged_in)
            }
            Err(denied) => Err(self.refuse(attempt, self.shared.defence.tag(means.mark()), denied)),
        }
    }

    /// What directories say in the log-in's time; what looks wrong takes as long as where a back end says so.
    pub(super) async fn in_time<T>(
        &self,
        asked: Instant,
        asking: Pin<&mut impl Future<Output = Result<T, Denied>>>,
    ) -> Result<T, Denied> {
        let bounded = timeout_at(self.deadline, asking);
        let result = match unless_called_off(&self.shared, &self.handle, pin!(bounded)).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Denied::Unavailable("directories and the checks of passwords took too long".into())),
            Err(called_off) => Err(called_off.into()),
        };
        if result.as_ref().is_err_and(Denied::looks_wrong) {
            self.take_time(asked).await;
        }
        result
    }

    /// A user who was moved meanwhile is not where this log-in went.
    fn still_there(&self, logged_in: LoggedIn) -> Result<LoggedIn, Denied> {
        if self.snapshot.map.was_moved_since(&logged_in.user, logged_in.placed_at) {
            return Err(Denied::Held(MOVED));
        }
        Ok(logged_in)
    }

    /// Credentials that no user can have: counted, logged and answered as any other that are wrong.
    pub(super) async fn malformed(&self, mechanism: Mechanism) -> Told {
        match self.begin(mechanism, None).await {
            Ok(attempt) => {
                self.take_time(Instant::now()).await;
                self.refuse(attempt, 0, Denied::Wrong)
            }
            Err(told) => told,
        }
    }

    /// A refusal that Gatepost could give at once takes as long as one by a back end, or where Gatepost
    /// checks passwords, longer than any check: the clock tells nobody which users exist.
    pub(super) async fn take_time(&self, asked: Instant) {
        let time = if self.service().checks.is_some() { CHECKED_HERE_TIME } else { self.shared.pace.sample() };
        sleep_until((asked + time).min(self.deadline - ANSWER_MARGIN)).await;
    }
}
