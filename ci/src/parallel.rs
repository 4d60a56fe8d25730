//! The same for many things, as many at a time as there are processors.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;

/// Does `work` for each of `things`. After a failure the others go on, and no worker that failed
/// takes another.
///
/// # Errors
/// The first failure.
pub fn each<T: Sync>(things: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let worker = || -> Result<()> {
        while let Some(thing) = things.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(thing)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn each_is_done_once_and_a_failure_is_told() {
        let done = Mutex::new(Vec::new());
        each(&[1, 2, 3, 4, 5], |thing| {
            done.lock().unwrap().push(*thing);
            Ok(())
        })
        .unwrap();
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, [1, 2, 3, 4, 5]);
        let only_one = |thing: &i32| if *thing == 1 { Ok(()) } else { anyhow::bail!("no") };
        assert!(each(&[1, 2], only_one).is_err());
    }
}
