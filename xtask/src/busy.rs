//! Keeping all CPUs of the host busy.

use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// One thread for each CPU, which does nothing but run. Dropping it ends them.
pub struct BusyHost(Arc<AtomicBool>);

impl BusyHost {
    /// Begins.
    pub fn new() -> BusyHost {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let over = over.clone();
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        BusyHost(over)
    }
}

impl Drop for BusyHost {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
