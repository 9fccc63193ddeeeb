//! The end of sessions that are no relay: Gatepost stops, or an administrator says so. Up to the log-in, and between the
//! commands of a client that brings mail, whoever waits for somebody's word waits by [`unless_called_off`]; what is said to
//! the client has its time, and a message that is under way is seen through.

use std::pin::Pin;

use super::Shared;
use super::denied::Denied;
use super::wheel::SessionHandle;
use crate::story::{EndReason, Ended};

/// The session must end before what it waited for was there: why, which is a stop or an administrator's word.
#[derive(Clone, Copy)]
pub(super) struct CalledOff(EndReason);

/// Waits for this, unless the session must end first. What is waited for stays where the caller has it: given away, it would
/// have its room twice in each session.
pub(super) async fn unless_called_off<T>(
    shared: &Shared,
    handle: &SessionHandle,
    awaited: Pin<&mut impl Future<Output = T>>,
) -> Result<T, CalledOff> {
    let mut stopping = shared.stopping.clone();
    tokio::select! {
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => Err(CalledOff(EndReason::Stopped)),
        reason = handle.told() => Err(CalledOff(reason)),
        result = awaited => Ok(result),
    }
}

impl From<CalledOff> for Denied {
    fn from(CalledOff(_): CalledOff) -> Self {
        Self::Stopping
    }
}

impl From<CalledOff> for Ended {
    fn from(CalledOff(reason): CalledOff) -> Self {
        Self::CalledOff(reason)
    }
}
