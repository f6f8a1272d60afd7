//! Children that wait for a shared object: started, known to be asleep, ended.

use std::time::Duration;

use forkyard::process::Process;
use forkyard::sync::Semaphore;

use super::{DEADLINE, eventually, sleeps};

/// How long a child waits at most: it is long over its test's deadline by then.
pub(crate) const LONG: Duration = Duration::from_secs(50);

/// The child's process id.
pub(crate) fn pid<R>(child: &Process<R>) -> i32 {
    child.pid().as_raw_nonzero().get()
}

/// Takes so many permits: as many have come so far.
pub(crate) fn take_all(ready: &Semaphore, count: usize) {
    (0..count).for_each(|_| ready.acquire_timeout(LONG).unwrap());
}

/// Waits until each of these has said that it is about to wait, and sleeps.
pub(crate) fn all_sleep<R>(ready: &Semaphore, children: &[Process<R>]) {
    take_all(ready, children.len());
    for child in children {
        eventually("a waiter sleeps", || sleeps(pid(child)));
    }
}

/// Kills the child and sees it dead.
pub(crate) fn end<R>(child: Process<R>) {
    child.kill().unwrap();
    child.wait_ended().unwrap();
}

/// What each child returned.
pub(crate) fn finish<R: serde::de::DeserializeOwned>(
    children: impl IntoIterator<Item = Process<R>>,
) -> Vec<R> {
    children.into_iter().map(|child| child.join_timeout(DEADLINE).unwrap()).collect()
}
