//! What a session has done on another runtime.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Work that ends with whoever waits for it: what nobody waits for any more must not take the place of what somebody does.
/// It has its room there; its answer is all that a session waits for.
pub(super) struct Errand<T>(
    /// `None` once the runtime has ended, which it does with the program alone.
    Option<JoinHandle<T>>,
);

impl<T: Send + 'static> Errand<T> {
    /// Begins `work` on this runtime.
    pub(super) fn begin(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(runtime.spawn(work)))
    }
}

impl<T> Future for Errand<T> {
    type Output = T;

    /// Panics where the work does.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.0 else { return Poll::Pending };
        match ready!(Pin::new(work).poll(cx)) {
            Ok(value) => Poll::Ready(value),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {
                self.0 = None;
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Errand<T> {
    fn drop(&mut self) {
        if let Some(work) = &self.0 {
            work.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_gives_its_place_to_others() {
        let here = Handle::current();
        assert_eq!(Errand::begin(&here, async { 7 }).await, 7);
        let place = Arc::new(Semaphore::new(1));
        let theirs = Arc::clone(&place);
        let (begun, begins) = tokio::sync::oneshot::channel();
        let endless = Errand::begin(&here, async move {
            let _place = theirs.acquire().await;
            let _ = begun.send(());
            std::future::pending::<()>().await;
        });
        tokio::select! {
            () = endless => unreachable!("it never ends"),
            begun = begins => begun.expect("it has begun"),
        }
        let had = tokio::time::timeout(Duration::from_secs(20), place.acquire()).await;
        drop(had.expect("the place is free again").expect("a place"));
    }

    #[test]
    fn work_on_a_runtime_that_has_ended_is_never_answered() {
        let there = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let mut errand = Errand::begin(there.handle(), std::future::pending::<()>());
        there.shutdown_background();
        let here = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        // Whoever waits may look again for reasons of their own.
        for _ in 0..2 {
            let waited = here.block_on(async { tokio::time::timeout(Duration::from_millis(50), &mut errand).await });
            assert!(waited.is_err(), "there is nobody who could answer");
        }
    }

    #[tokio::test]
    #[should_panic(expected = "out of order")]
    async fn a_panic_is_the_panic_of_whoever_waits() {
        Errand::begin(&Handle::current(), async { panic!("out of order") }).await;
    }
}
