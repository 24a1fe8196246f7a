//! Contiguous arrays that Python lends through the buffer protocol, as slices.

use pyo3::buffer::{Element, PyBuffer};

use crate::error::{Error, Result};

/// The numbers of a C-contiguous array.
///
/// The slice is read while the GIL is released: as with every native library, the caller must not change the array
/// from another thread meanwhile.
pub fn slice<'a, T: Element>(array: &'a PyBuffer<T>, name: &str) -> Result<&'a [T]> {
    if !array.is_c_contiguous() {
        return Err(Error::InvalidArgument(format!("{name} must be contiguous; pass a contiguous copy")));
    }
    if array.item_count() == 0 {
        return Ok(&[]);
    }
    // SAFETY: the buffer is held for 'a, contiguous, aligned and of type T (checked when it was taken).
    Ok(unsafe { std::slice::from_raw_parts(array.buf_ptr().cast(), array.item_count()) })
}

/// The numbers of a C-contiguous array that may be written.
pub fn slice_mut<'a, T: Element>(array: &'a mut PyBuffer<T>, name: &str) -> Result<&'a mut [T]> {
    if array.readonly() {
        return Err(Error::InvalidArgument(format!("{name} must be writable")));
    }
    slice(array, name)?;
    if array.item_count() == 0 {
        return Ok(&mut []);
    }
    // SAFETY: as in `slice`; writable, and borrowed exclusively on this side.
    Ok(unsafe { std::slice::from_raw_parts_mut(array.buf_ptr().cast(), array.item_count()) })
}
