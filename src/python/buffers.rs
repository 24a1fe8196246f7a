//! Memory that Python lends for a call: any contiguous object with the buffer protocol, seen as bytes.

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;

use crate::error::{Error, Result};

/// Bytes that Python owns; it keeps them alive and in place while this value lives.
pub struct Bytes(PyBuffer<u8>);

// SAFETY: the address and length are plain values; the buffer is released with the GIL held, as PyBuffer does.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// Borrows `object`: numpy arrays and memoryviews of uint8.
    ///
    /// # Errors
    /// `InvalidArgument` where it is not contiguous bytes.
    pub fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyBuffer::<u8>::get(object)?;
        if !buffer.is_c_contiguous() {
            return Err(Error::InvalidArgument("the array must be contiguous".to_owned()).into());
        }
        Ok(Self(buffer))
    }

    /// The bytes, to be read while nobody writes to them.
    pub fn get(&self) -> &[u8] {
        if self.0.len_bytes() == 0 {
            return &[];
        }
        // SAFETY: contiguous and alive as long as the buffer is held. That no other Python thread writes to a tensor
        // that was handed to us is the caller's side, as for every function of torch and numpy.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast(), self.0.len_bytes()) }
    }

    /// The bytes, to be written.
    ///
    /// # Errors
    /// `InvalidArgument` where they are read-only.
    pub fn get_mut(&mut self) -> Result<&mut [u8]> {
        if self.0.readonly() {
            return Err(Error::InvalidArgument("the array to write to is read-only".to_owned()));
        }
        if self.0.len_bytes() == 0 {
            return Ok(&mut []);
        }
        // SAFETY: as above, and writable.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.0.buf_ptr().cast(), self.0.len_bytes()) })
    }

    /// The bytes as little-endian values of `T`, to be written.
    ///
    /// # Errors
    /// `InvalidArgument` where they are read-only or not aligned.
    pub fn values_mut<T: Plain>(&mut self) -> Result<&mut [T]> {
        // SAFETY: any bytes are a value of a `Plain` type; `align_to_mut` finds the aligned part, which must be all.
        let (before, values, after) = unsafe { self.get_mut()?.align_to_mut::<T>() };
        if before.is_empty() && after.is_empty() {
            return Ok(values);
        }
        Err(Error::InvalidArgument("the array is not aligned".to_owned()))
    }

    /// The bytes as little-endian values of `T`.
    ///
    /// # Errors
    /// `InvalidArgument` where they are not aligned.
    pub fn values<T: Plain>(&self) -> Result<&[T]> {
        // SAFETY: as above.
        let (before, values, after) = unsafe { self.get().align_to::<T>() };
        if before.is_empty() && after.is_empty() {
            return Ok(values);
        }
        Err(Error::InvalidArgument("the array is not aligned".to_owned()))
    }
}

/// Types of which any bytes are a value.
///
/// # Safety
/// No padding, no invalid bit patterns.
pub unsafe trait Plain: Copy {}
// SAFETY: all bit patterns are values.
unsafe impl Plain for f32 {}
// SAFETY: all bit patterns are values.
unsafe impl Plain for i32 {}
// SAFETY: all bit patterns are values.
unsafe impl Plain for i64 {}
