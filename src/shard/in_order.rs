//! Pieces that become ready in any order and are dealt with in theirs, by whichever thread has time.

use std::sync::{Mutex, OnceLock};

use crate::threads::lock;

/// One thing that is done with every piece, in their order and by one thread at a time.
pub struct InOrder<'r, 'a, F> {
    ready: &'r [OnceLock<&'a [u8]>],
    state: Mutex<(usize, F)>,
}

impl<'r, 'a, F: FnMut(usize, &[u8]) + Send> InOrder<'r, 'a, F> {
    /// `each(i, piece)` is called once piece i is ready and all before it are done.
    pub fn new(ready: &'r [OnceLock<&'a [u8]>], each: F) -> Self {
        Self { ready, state: Mutex::new((0, each)) }
    }

    /// Does what can be done now, unless another thread is at it.
    pub fn go_on(&self) {
        if let Ok(mut state) = self.state.try_lock() {
            self.drain(&mut state);
        }
    }

    /// Waits for a thread that is at it, then does what can be done: of threads that each made their pieces ready before,
    /// the last one here leaves nothing undone.
    pub fn finish(&self) {
        self.drain(&mut lock(&self.state));
    }

    fn drain(&self, (next, each): &mut (usize, F)) {
        while let Some(piece) = self.ready.get(*next).and_then(OnceLock::get) {
            each(*next, piece);
            *next += 1;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_seen_once_and_in_order_whoever_makes_them_ready() {
        let bytes: Vec<u8> = (0..200).collect();
        for threads in 1..4 {
            let ready: Vec<OnceLock<&[u8]>> = bytes.iter().map(|_| OnceLock::new()).collect();
            let mut seen = Vec::new();
            let stage = InOrder::new(&ready, |i, piece: &[u8]| seen.push((i, piece[0])));
            // Handed out backwards: nothing can be done before the last one comes.
            let queue = Mutex::new((0..bytes.len()).rev());
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        loop {
                            let Some(i) = lock(&queue).next() else { break };
                            ready[i].set(&bytes[i..=i]).unwrap();
                            stage.go_on();
                        }
                        stage.finish();
                    });
                }
            });
            let expected: Vec<(usize, u8)> = bytes.iter().map(|&b| (usize::from(b), b)).collect();
            assert_eq!(seen, expected);
        }
    }
}
