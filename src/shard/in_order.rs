//! Pieces that become ready in any order and are dealt with in theirs, by whichever thread has time.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, OnceLock};

/// One thing that is done with every piece, in their order and by one thread at a time.
pub struct InOrder<'r, 'a, F> {
    ready: &'r [OnceLock<&'a [u8]>],
    state: Mutex<(usize, F)>,
}

impl<'r, 'a, F: FnMut(usize, &'a [u8]) + Send> InOrder<'r, 'a, F> {
    /// `each(i, piece)` is called once piece i is ready and all before it are done.
    pub fn new(ready: &'r [OnceLock<&'a [u8]>], each: F) -> Self {
        Self { ready, state: Mutex::new((0, each)) }
    }

    /// Does what can be done now, unless another thread is at it: that one then sees to it. So nobody waits, and nothing
    /// is left undone by the last of threads that call this after each piece that they make ready.
    pub fn go_on(&self) {
        loop {
            // Between these fences: who finds the lock taken has made its piece ready before the holder looks again.
            fence(Ordering::SeqCst);
            let Ok(mut state) = self.state.try_lock() else { return };
            let (next, each) = &mut *state;
            while let Some(piece) = self.ready.get(*next).and_then(OnceLock::get) {
                each(*next, piece);
                *next += 1;
            }
            let next = *next;
            drop(state);
            fence(Ordering::SeqCst);
            if self.ready.get(next).and_then(OnceLock::get).is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::threads::lock;

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
                    });
                }
            });
            let expected: Vec<(usize, u8)> = bytes.iter().map(|&b| (usize::from(b), b)).collect();
            assert_eq!(seen, expected);
        }
    }
}
