//! Float32 buffers that begin on a cache line, so that rows of sixteen lanes never straddle two.

use std::ops::{Deref, DerefMut};

const LINE: usize = 64;

/// A buffer of zeros at first; its contents are lost when it grows.
#[derive(Debug, Default)]
pub struct Aligned {
    memory: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut zeros = Self::default();
        zeros.resize(len);
        zeros
    }

    /// Sets the length; memory is kept for the next time, and new memory is zero.
    pub fn resize(&mut self, len: usize) {
        let room = len + LINE / size_of::<f32>();
        if self.memory.len() < room {
            self.memory = Vec::new();
            self.memory = vec![0.0; room];
            self.start = self.memory.as_ptr().align_offset(LINE).min(room - len);
        }
        self.len = len;
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.memory.len() * size_of::<f32>()
    }
}

impl Deref for Aligned {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.start..self.start + self.len]
    }
}
