//! The types on disk, and what is done to their values once they are float32.

use crate::dtype::Dtype;
use crate::vector::simd::Vectors;

/// What is done to a row after it is widened: nothing, `x * factor`, or `(x - mean) * factor`.
#[derive(Debug, Clone, Copy)]
pub enum Normalize<'a> {
    /// `x`.
    No,
    /// `x * factor`.
    Scale(f32),
    /// `(x - mean) * factor`, `mean` of the length of a row.
    Center(&'a [f32], f32),
}

/// A type on disk.
pub trait Stored {
    const DTYPE: Dtype;
    /// Bytes of a value.
    const SIZE: usize;

    /// # Safety
    /// `from` is readable for as many values as a vector has lanes.
    unsafe fn load<S: Vectors>(s: S, from: *const u8) -> S::V;
}

macro_rules! stored {
    ($($doc:literal $name:ident: $size:literal bytes, $load:ident;)+) => {$(
        #[doc = $doc]
        pub struct $name;

        impl Stored for $name {
            const DTYPE: Dtype = Dtype::$name;
            const SIZE: usize = $size;

            #[inline(always)]
            unsafe fn load<S: Vectors>(s: S, from: *const u8) -> S::V {
                // SAFETY: the caller's promise.
                unsafe { s.$load(from.cast()) }
            }
        }
    )+};
}

stored! {
    "IEEE binary16." F16: 2 bytes, read_f16;
    "The upper half of binary32." Bf16: 2 bytes, read_bf16;
    "IEEE binary32." F32: 4 bytes, read;
}
