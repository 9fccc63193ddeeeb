//! What a session has done on another runtime.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Work that ends with whoever waits for it: what nobody waits for any more must not take the place of what somebody does.
/// It has its room there; its answer is all that a session waits for.
pub(super) struct Errand<T>(JoinHandle<T>);

impl<T: Send + 'static> Errand<T> {
    /// Begins `work` on this runtime.
    pub(super) fn begin(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(runtime.spawn(work))
    }
}

impl<T> Future for Errand<T> {
    type Output = T;

    /// Panics where the work does.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match ready!(Pin::new(&mut self.0).poll(cx)) {
            Ok(value) => Poll::Ready(value),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime has ended, which it does with the program alone.
            Err(_) => Poll::Pending,
        }
    }
}

impl<T> Drop for Errand<T> {
    fn drop(&mut self) {
        self.0.abort();
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

    #[tokio::test]
    #[should_panic(expected = "out of order")]
    async fn a_panic_is_the_panic_of_whoever_waits() {
        Errand::begin(&Handle::current(), async { panic!("out of order") }).await;
    }
}
