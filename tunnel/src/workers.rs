//! The threads that drive tunnels.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::{fmt, io, thread};

use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

/// Tasks that wait to be taken by one worker. A worker takes them at once, so a longer queue
/// means a thread that hangs.
const START_QUEUE: usize = 1024;

type Make = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

thread_local! {
    static CURRENT: Cell<Option<WorkerId>> = const { Cell::new(None) };
}

/// Names one of the threads of a [`Workers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerId(usize);

impl WorkerId {
    /// The worker that runs the caller; none on any other thread.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.get()
    }
}

struct Worker {
    start: mpsc::Sender<Make>,
    load: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// A fixed number of threads, each with a runtime of its own, for tasks that stay on the thread
/// on which they began.
///
/// Dropping it ends the tasks and waits for the threads.
pub struct Workers {
    workers: Vec<Worker>,
    stop: watch::Sender<bool>,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("threads", &self.workers.len())
            .finish()
    }
}

/// Why a task could not be started: the worker takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker threads take no more tasks")]
pub struct WorkersBusy;

impl Workers {
    /// Starts `threads` workers (at least one).
    ///
    /// # Errors
    ///
    /// The operating system's error where a thread or a reactor cannot be made.
    pub fn start(threads: usize) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let workers = (0..threads.max(1))
            .map(|number| Worker::start(number, stopped.clone()))
            .collect::<io::Result<_>>()?;
        Ok(Self { workers, stop })
    }

    /// Runs the task that `make` makes on the worker that has the fewest.
    ///
    /// # Errors
    ///
    /// [`WorkersBusy`] where that worker takes no more.
    pub fn spawn<M, F>(&self, make: M) -> Result<(), WorkersBusy>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let worker = self
            .workers
            .iter()
            .min_by_key(|worker| worker.load.load(Ordering::Relaxed))
            .ok_or(WorkersBusy)?;
        worker.spawn(make)
    }

    /// Runs the task that `make` makes on one worker: beside what it works with most.
    ///
    /// # Errors
    ///
    /// [`WorkersBusy`] where that worker takes no more.
    pub fn spawn_on<M, F>(&self, worker: WorkerId, make: M) -> Result<(), WorkersBusy>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let worker = self.workers.get(worker.0).ok_or(WorkersBusy)?;
        worker.spawn(make)
    }
}

impl Worker {
    fn spawn<M, F>(&self, make: M) -> Result<(), WorkersBusy>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let load = LoadGuard::new(Arc::clone(&self.load));
        let make: Make = Box::new(move || {
            let task = make();
            Box::pin(async move {
                let _load = load;
                task.await;
            })
        });
        self.start.try_send(make).map_err(|_| WorkersBusy)
    }

    fn start(number: usize, mut stopped: watch::Receiver<bool>) -> io::Result<Self> {
        let (start, mut started) = mpsc::channel::<Make>(START_QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::Builder::new()
            .name(format!("tunnel-{number}"))
            .spawn(move || {
                CURRENT.set(Some(WorkerId(number)));
                LocalSet::new().block_on(&runtime, async move {
                    loop {
                        tokio::select! {
                            _ = stopped.changed() => break,
                            make = started.recv() => match make {
                                Some(make) => drop(tokio::task::spawn_local(make())),
                                None => break,
                            },
                        }
                    }
                });
            })?;
        Ok(Self {
            start,
            load: Arc::new(AtomicUsize::new(0)),
            thread: Some(thread),
        })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                // A worker that panicked has nothing left to wait for.
                drop(thread.join());
            }
        }
    }
}

struct LoadGuard(Arc<AtomicUsize>);

impl LoadGuard {
    fn new(load: Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(load)
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_task_runs_on_the_worker_that_was_named() {
        let workers = Workers::start(3).unwrap();
        for number in [2, 0, 1, 2] {
            let (tell, told) = oneshot::channel();
            workers
                .spawn_on(WorkerId(number), move || async move {
                    tell.send(WorkerId::current()).unwrap();
                })
                .unwrap();
            assert_eq!(told.blocking_recv().unwrap(), Some(WorkerId(number)));
        }
        assert_eq!(WorkerId::current(), None);
        assert!(workers.spawn_on(WorkerId(3), || async {}).is_err());
    }
}
