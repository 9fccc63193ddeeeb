//! The latest records, for those who look on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use super::Record;

/// How many are kept, and how many those who look on may lag behind.
const RECENT_MAX: usize = 1000;

/// Records to come.
pub(crate) type Followed = broadcast::Receiver<Arc<Record>>;

/// See the module's documentation. Nothing is kept before somebody may look.
#[derive(Default)]
pub(super) struct Recent(Mutex<Option<Kept>>);

struct Kept {
    records: VecDeque<Arc<Record>>,
    followers: broadcast::Sender<Arc<Record>>,
}

impl Recent {
    /// Keeps records from now on.
    pub(super) fn begin(&self) {
        self.kept()
            .get_or_insert_with(|| Kept { records: VecDeque::new(), followers: broadcast::Sender::new(RECENT_MAX) });
    }

    /// Keeps a record, if anybody may look.
    pub(super) fn keep(&self, record: Record) {
        let mut kept = self.kept();
        let Some(kept) = kept.as_mut() else { return };
        if kept.records.len() >= RECENT_MAX {
            kept.records.pop_front();
        }
        let record = Arc::new(record);
        kept.records.push_back(Arc::clone(&record));
        // Nobody may be looking.
        let _ = kept.followers.send(record);
    }

    /// Those that were kept, and those that will come; whoever is too slow misses some.
    pub(super) fn look(&self) -> Option<(Vec<Arc<Record>>, Followed)> {
        let kept = self.kept();
        kept.as_ref().map(|kept| (kept.records.iter().map(Arc::clone).collect(), kept.followers.subscribe()))
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
