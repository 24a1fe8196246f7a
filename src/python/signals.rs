//! Ctrl-C while the core works without the GIL.
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pyo3::prelude::*;

/// What somebody pressed meanwhile, asked now and then by work that may be stopped.
#[derive(Default)]
pub struct Interrupt(Option<PyErr>);

impl Interrupt {
    /// Whether there was one; asked of Python, on the thread that Python interrupts.
    pub fn came(&mut self) -> bool {
        if self.0.is_none() {
            #[allow(clippy::redundant_closure_for_method_calls)] // the method alone has too narrow a lifetime
            let signals = Python::attach(|py| py.check_signals());
            self.0 = signals.err();
        }
        self.0.is_some()
    }

    /// The exception, if there was one.
    pub fn raised(self) -> Option<PyErr> {
        self.0
    }
}

/// Runs `work` without the GIL; an interrupt sets the flag that it is given, and is raised once it has ended.
pub fn interruptible<T: Send>(py: Python<'_>, work: impl FnOnce(&AtomicBool) -> T + Send) -> PyResult<T> {
    let stop = AtomicBool::new(false);
    let mut interrupt = Interrupt::default();
    let done = py.detach(|| {
        std::thread::scope(|scope| {
            let working = scope.spawn(|| work(&stop));
            while !working.is_finished() && !interrupt.came() {
                std::thread::sleep(Duration::from_millis(5));
            }
            stop.store(interrupt.0.is_some(), Ordering::Relaxed);
            working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    });
    interrupt.raised().map_or(Ok(done), Err)
}
