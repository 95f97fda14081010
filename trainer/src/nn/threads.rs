//! How many threads compute.
//!
//! Four pools share the work: the kernels' (a decoder's passes), rayon's (our other ops), and inside candle one for matrix products and one for elementwise
//! operations. candle reads its two numbers from the environment, and its elementwise pool spins without bound at a
//! barrier, which costs a factor of two on a busy machine: it is held to one thread always.

use crate::{Error, Result};

/// Sets every pool of this process: `n` threads (0: one per core) for products and own ops, one for candle's elementwise
/// pool. To be called first thing in `main`, before any tensor exists.
///
/// Fails when other threads run already (Linux), or when rayon's pool was built before.
pub fn set(n: usize) -> Result<()> {
    let n = if n == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { n };
    if running() > 1 {
        return Err(Error::invalid("threads: they are set once, before any other thread starts"));
    }
    // SAFETY: the environment may not change while another thread reads it; `running` has just counted one thread.
    unsafe {
        std::env::set_var("RAYON_NUM_THREADS", n.to_string());
        std::env::set_var("CANDLE_NUM_THREADS", "1");
    }
    rebel_kernels::pool::Pool::set_global(n);
    rayon::ThreadPoolBuilder::new().num_threads(n).build_global().map_err(|e| Error::invalid(format!("threads: {e}")))
}

/// Threads of this process; 1 where the system does not tell.
fn running() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, |tasks| tasks.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_other_threads_is_refused() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        if cfg!(target_os = "linux") {
            assert!(set(1).unwrap_err().to_string().starts_with("threads: "));
        }
        drop(stop);
        assert!(other.join().unwrap().is_err());
    }
}
