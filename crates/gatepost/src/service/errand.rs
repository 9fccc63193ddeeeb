//! What a session has done on another runtime.

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Work that ends with whoever waits for it: what nobody waits for any more must not take the place of what somebody does.
struct Errand<T>(JoinHandle<T>);

impl<T> Drop for Errand<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs `work` on this runtime, for as long as its answer is waited for. It panics where the work does.
pub(super) async fn run<T: Send + 'static>(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> T {
    let mut errand = Errand(runtime.spawn(work));
    match (&mut errand.0).await {
        Ok(value) => value,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime has ended, which it does with the program alone.
        Err(_) => std::future::pending().await,
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
        assert_eq!(run(&here, async { 7 }).await, 7);
        let place = Arc::new(Semaphore::new(1));
        let theirs = Arc::clone(&place);
        let (begun, begins) = tokio::sync::oneshot::channel();
        let endless = run(&here, async move {
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
        run(&Handle::current(), async { panic!("out of order") }).await;
    }
}
