//! How one host of a back end is doing, for one service.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::net::health::{Health, Standing};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct HostState {
    health: Health,
    /// What was wrong last.
    fault: Mutex<String>,
    /// A log-in failed there: worth a look.
    trouble: Notify,
}

impl HostState {
    /// A log-in was answered.
    pub(super) fn served(&self) {
        self.health.mark_up();
    }

    /// A log-in failed because of the host.
    pub(super) fn failed(&self, fault: String) {
        self.health.mark_down();
        self.note(fault);
        self.trouble.notify_one();
    }

    /// This is wrong.
    pub(super) fn note(&self, fault: String) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// A look found it in order, or repeated ones found it out of order.
    pub(super) fn looked(&self, is_found: bool) {
        if is_found {
            self.health.mark_found();
        } else {
            self.health.mark_missed();
        }
    }

    /// What a log-in should do about it.
    pub(super) fn standing(&self) -> Standing {
        self.health.standing()
    }

    /// As [`HostState::standing`], for whoever only wants to know.
    pub(super) fn appears(&self) -> Standing {
        self.health.appears()
    }

    /// Whether so many log-ins failed in a row that it is left alone.
    pub(super) fn is_broken(&self) -> bool {
        self.health.is_broken()
    }

    /// What was wrong last.
    pub(super) fn fault(&self) -> String {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a log-in fails.
    pub(super) async fn trouble(&self) {
        self.trouble.notified().await;
    }
}
