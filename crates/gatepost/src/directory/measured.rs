//! A directory whose answers are timed.

use std::sync::Arc;
use std::time::Instant;

use gatepost_wire::Secret;

use super::{Accounts, Answering, Entry, Fault, TokenVerdict, Tokens, Verdict, Who};
use crate::metrics::{Answer, DirectoryMetrics};

/// See the module's documentation.
pub(crate) struct Measured<D: ?Sized> {
    directory: Arc<D>,
    metrics: Arc<DirectoryMetrics>,
}

impl<D: ?Sized> Measured<D> {
    pub(crate) fn new(directory: Arc<D>, metrics: Arc<DirectoryMetrics>) -> Self {
        Self { directory, metrics }
    }

    fn note<T>(&self, began: Instant, answer: &Result<T, Fault>, is_known: impl FnOnce(&T) -> bool) {
        let answer = match answer {
            Ok(answer) if is_known(answer) => Answer::Found,
            Ok(_) => Answer::Unknown,
            Err(_) => Answer::Fault,
        };
        self.metrics.answers.of(answer).record(began.elapsed());
    }
}

impl Accounts for Measured<dyn Accounts> {
    fn is_exact(&self) -> bool {
        self.directory.is_exact()
    }

    fn find<'a>(&'a self, who: &'a Who) -> Answering<'a, Option<Entry>> {
        Box::pin(async move {
            let began = Instant::now();
            let answer = self.directory.find(who).await;
            self.note(began, &answer, Option::is_some);
            answer
        })
    }

    fn authenticate<'a>(&'a self, who: &'a Who, password: &'a Secret) -> Answering<'a, Verdict> {
        Box::pin(async move {
            let began = Instant::now();
            let answer = self.directory.authenticate(who, password).await;
            self.note(began, &answer, |verdict| *verdict != Verdict::Unknown);
            answer
        })
    }

    fn set_place<'a>(&'a self, user: &'a str, place: &'a str) -> Answering<'a, bool> {
        self.directory.set_place(user, place)
    }

    fn is_down(&self) -> bool {
        self.directory.is_down()
    }
}

impl Tokens for Measured<dyn Tokens> {
    fn check<'a>(&'a self, token: &'a Secret) -> Answering<'a, TokenVerdict> {
        Box::pin(async move {
            let began = Instant::now();
            let answer = self.directory.check(token).await;
            // Whatever it says, it has looked.
            self.note(began, &answer, |_| true);
            answer
        })
    }

    fn forget(&self) -> usize {
        self.directory.forget()
    }
}
