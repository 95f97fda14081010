//! Threads that wait for work close by: a decoding step has two meetings a layer, each of which may cost a microsecond.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

/// A pool of threads, the caller's own among them. One piece of work runs at a time; whoever comes meanwhile, from another
/// thread or from inside, does its work alone.
#[derive(Debug)]
pub struct Pool {
    threads: usize,
    busy: Mutex<()>,
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

/// Work, as the other threads see it: called with a thread's number.
type Job<'a> = &'a (dyn Fn(usize) + Sync);

#[derive(Debug)]
struct Shared {
    /// How many pieces of work there have been.
    round: AtomicUsize,
    /// Points at the present [`Job`].
    job: AtomicPtr<()>,
    /// Other threads still at it.
    working: AtomicUsize,
    failed: AtomicBool,
    quit: AtomicBool,
    asleep: Vec<AtomicBool>,
}

thread_local! {
    /// Whether this thread is at work for a pool.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Looks whether `done` for about this many cycles of waiting; afterwards the system may give the core away.
const PATIENCE: usize = 20_000;
/// How often a core is offered to others while waiting.
const YIELD: usize = 512;

fn wait_for(done: impl Fn() -> bool, patience: usize) -> bool {
    for i in 1..=patience {
        if done() {
            return true;
        }
        if i % YIELD == 0 {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
    done()
}

impl Pool {
    /// A pool of `threads` threads, at least one.
    pub fn new(threads: usize) -> Self {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            round: AtomicUsize::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            working: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            quit: AtomicBool::new(false),
            asleep: (0..threads).map(|_| AtomicBool::new(false)).collect(),
        });
        let spawn = |thread: usize| {
            let shared = shared.clone();
            let work = move || shared.work(thread);
            std::thread::Builder::new().name(format!("kernel-{thread}")).spawn(work).expect("a thread can be started")
        };
        let handles = (1..threads).map(spawn).collect();
        Self { threads, busy: Mutex::new(()), shared, handles }
    }

    /// The pool of this process, of as many threads as [`Pool::set_global`] said, or one a core.
    pub fn global() -> &'static Arc<Self> {
        GLOBAL.get_or_init(|| {
            let cores = || std::thread::available_parallelism().map_or(1, usize::from);
            Arc::new(Self::new(*THREADS.get_or_init(cores)))
        })
    }

    /// How many threads the process's pool has; only the first call counts, and only before [`Pool::global`].
    pub fn set_global(threads: usize) {
        THREADS.get_or_init(|| threads.max(1));
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `f(thread, threads)` once on each of `threads` threads; they may meet at a [`Barrier`] of that many.
    pub fn run(&self, f: impl Fn(usize, usize) + Sync) {
        let free = if INSIDE.get() || self.threads == 1 { None } else { self.busy.try_lock().ok() };
        let Some(_free) = free else { return f(0, 1) };
        let job = |thread: usize| f(thread, self.threads);
        let job: Job = &job;
        let shared = &*self.shared;
        shared.job.store((&raw const job).cast_mut().cast(), Ordering::Release);
        shared.working.store(self.threads - 1, Ordering::Release);
        shared.round.fetch_add(1, Ordering::SeqCst);
        for (handle, asleep) in self.handles.iter().zip(&shared.asleep[1..]) {
            if asleep.load(Ordering::SeqCst) {
                handle.thread().unpark();
            }
        }
        INSIDE.set(true);
        // The others hold `job` until they are done: a panic here must wait for them.
        let mine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(0)));
        INSIDE.set(false);
        while !wait_for(|| shared.working.load(Ordering::Acquire) == 0, PATIENCE) {}
        if let Err(panic) = mine {
            std::panic::resume_unwind(panic);
        }
        assert!(!shared.failed.swap(false, Ordering::AcqRel), "a thread of the pool panicked");
    }

    /// Runs `f(thread, task)` for every task in `0..count`, handed out in order.
    pub fn tasks(&self, count: usize, f: impl Fn(usize, usize) + Sync) {
        let next = AtomicUsize::new(0);
        self.run(|thread, _| {
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= count {
                    break;
                }
                f(thread, task);
            }
        });
    }
}

static GLOBAL: OnceLock<Arc<Pool>> = OnceLock::new();
static THREADS: OnceLock<usize> = OnceLock::new();

impl Shared {
    fn work(&self, thread: usize) {
        INSIDE.set(true);
        let mut seen = 0;
        loop {
            let fresh = || self.round.load(Ordering::SeqCst) != seen;
            if !wait_for(fresh, PATIENCE) {
                self.asleep[thread].store(true, Ordering::SeqCst);
                while !fresh() {
                    std::thread::park();
                }
                self.asleep[thread].store(false, Ordering::SeqCst);
            }
            seen = self.round.load(Ordering::SeqCst);
            if self.quit.load(Ordering::Acquire) {
                return;
            }
            let job = self.job.load(Ordering::Acquire).cast::<Job>();
            // SAFETY: `run` keeps the job alive until `working` is 0, and has written it before the round.
            let work = std::panic::AssertUnwindSafe(|| unsafe { (*job)(thread) });
            if std::panic::catch_unwind(work).is_err() {
                self.failed.store(true, Ordering::Release);
            }
            self.working.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::SeqCst);
        self.shared.round.fetch_add(1, Ordering::SeqCst);
        for handle in self.handles.drain(..) {
            handle.thread().unpark();
            let _ = handle.join();
        }
    }
}

/// Where the threads of one [`Pool::run`] meet.
#[derive(Debug)]
pub struct Barrier {
    threads: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
}

impl Barrier {
    /// A meeting of this many.
    pub fn new(threads: usize) -> Self {
        Self { threads, arrived: AtomicUsize::new(0), round: AtomicUsize::new(0) }
    }

    /// Waits for the others.
    pub fn wait(&self) {
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Release);
            self.round.store(round + 1, Ordering::Release);
        } else {
            while !wait_for(|| self.round.load(Ordering::Acquire) != round, PATIENCE) {}
        }
    }
}

/// Part `part` of `count` things dealt evenly to `parts`.
pub fn share(count: usize, part: usize, parts: usize) -> std::ops::Range<usize> {
    count * part / parts..count * (part + 1) / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 3, 7] {
            let pool = Pool::new(threads);
            for count in [0, 1, 5, 1000] {
                let ran: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                pool.tasks(count, |_, i| {
                    ran[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(ran.iter().all(|n| n.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn work_inside_work_and_beside_it_is_done_alone() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        pool.tasks(4, |_, _| {
                            pool.tasks(3, |_, i| {
                                sum.fetch_add(i, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 3 * 50 * 4 * 3);
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3);
        for bad in 0..6 {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.tasks(6, |_, i| assert_ne!(i, bad));
            }));
            assert!(outcome.is_err());
        }
        pool.run(|_, _| {});
    }

    #[test]
    fn threads_meet_at_a_barrier() {
        let pool = Pool::new(3);
        let count = AtomicUsize::new(0);
        let barriers: OnceLock<Barrier> = OnceLock::new();
        pool.run(|_, threads| {
            let barrier = barriers.get_or_init(|| Barrier::new(threads));
            for round in 1..200 {
                count.fetch_add(1, Ordering::Relaxed);
                barrier.wait();
                assert_eq!(count.load(Ordering::Relaxed), round * threads);
                barrier.wait();
            }
        });
    }
}
