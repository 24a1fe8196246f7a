//! Memory that Python lends through the buffer protocol, as slices: arguments of a call, tensors that are kept, bytes.
//!
//! A slice is used while the GIL is released: as with every native library, the caller must not change the array from
//! another thread meanwhile.
use std::ops::Range;

use pyo3::buffer::{Element, PyBuffer};
use pyo3::prelude::*;

use crate::error::{Error, Result};

fn wrong(name: &str, why: &str) -> Error {
    Error::InvalidArgument(format!("{name} {why}"))
}

/// Fails unless the numbers of `array` can be a slice; one to be written where `writable`.
fn check<T: Element>(array: &PyBuffer<T>, name: &str, writable: bool) -> Result<()> {
    if !array.is_c_contiguous() {
        return Err(wrong(name, "must be contiguous; pass a contiguous copy"));
    }
    if writable && array.readonly() {
        return Err(wrong(name, "is read-only; pass a writable copy"));
    }
    if !array.buf_ptr().cast::<T>().is_aligned() {
        return Err(wrong(name, "is not aligned; pass a copy"));
    }
    Ok(())
}

/// # Safety
/// The array was checked.
unsafe fn items<T: Element>(array: &PyBuffer<T>) -> &[T] {
    if array.item_count() == 0 {
        return &[];
    }
    // SAFETY: an aligned, contiguous buffer of items of type T (checked when it was taken), held as long as the slice.
    unsafe { std::slice::from_raw_parts(array.buf_ptr().cast(), array.item_count()) }
}

/// # Safety
/// The array was checked to be writable, and nothing else reads or writes it while the slice lives.
#[allow(clippy::mut_from_ref)]
unsafe fn items_mut<T: Element>(array: &PyBuffer<T>) -> &mut [T] {
    if array.item_count() == 0 {
        return &mut [];
    }
    // SAFETY: as in `items`, and the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(array.buf_ptr().cast(), array.item_count()) }
}

/// The numbers of an array.
///
/// # Errors
/// `InvalidArgument` where they are not side by side.
pub fn slice<'a, T: Element>(array: &'a PyBuffer<T>, name: &str) -> Result<&'a [T]> {
    check(array, name, false)?;
    // SAFETY: just checked.
    Ok(unsafe { items(array) })
}

/// The numbers of an array, to be written.
///
/// # Errors
/// `InvalidArgument` where they are not side by side, or read-only.
pub fn slice_mut<'a, T: Element>(array: &'a mut PyBuffer<T>, name: &str) -> Result<&'a mut [T]> {
    check(array, name, true)?;
    // SAFETY: just checked, and borrowed exclusively on this side.
    Ok(unsafe { items_mut(array) })
}

/// A tensor that is kept from call to call, checked once.
pub struct Tensor<T: Element>(PyBuffer<T>);

impl<T: Element> Tensor<T> {
    /// # Errors
    /// `InvalidArgument` where it has other numbers, or they are not side by side, or read-only where `writable`.
    pub fn open(name: &str, from: &Bound<'_, PyAny>, writable: bool) -> Result<Self> {
        let array = PyBuffer::get(from).map_err(|e| wrong(name, &format!("is not a buffer of its type ({e})")))?;
        check(&array, name, writable)?;
        Ok(Self(array))
    }

    /// Its addresses.
    pub fn range(&self) -> Range<usize> {
        let start = self.0.buf_ptr() as usize;
        start..start + self.0.len_bytes()
    }

    /// How many numbers it has.
    pub fn len(&self) -> usize {
        self.0.item_count()
    }

    /// # Safety
    /// Nothing else writes to the memory while the slice lives.
    pub unsafe fn read(&self) -> &[T] {
        // SAFETY: checked when it was opened.
        unsafe { items(&self.0) }
    }

    /// # Safety
    /// It was opened to be written, and nothing else reads or writes the memory while the slice lives.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn write(&self) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { items_mut(&self.0) }
    }
}

/// Fails where two ranges of addresses overlap: each is borrowed alone.
///
/// # Errors
/// `InvalidArgument`.
pub fn check_apart(mut ranges: Vec<Range<usize>>) -> Result<()> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    if ranges.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Err(wrong("engine:", "two of the tensors share memory; pass copies"));
    }
    Ok(())
}

/// Bytes of numbers whose type another argument tells: numpy arrays and memoryviews of uint8.
pub struct Bytes(PyBuffer<u8>);

// SAFETY: the address and length are plain values; the buffer is released with the GIL held, as PyBuffer does.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// # Errors
    /// `InvalidArgument` where they are not side by side.
    pub fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let bytes = PyBuffer::get(object)?;
        check(&bytes, "the array", false)?;
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn get(&self) -> &[u8] {
        // SAFETY: checked when they were taken.
        unsafe { items(&self.0) }
    }

    /// The bytes, to be written.
    ///
    /// # Errors
    /// `InvalidArgument` where they are read-only.
    pub fn get_mut(&mut self) -> Result<&mut [u8]> {
        slice_mut(&mut self.0, "the array to write to")
    }

    /// The bytes as little-endian values of `T`.
    ///
    /// # Errors
    /// `InvalidArgument` where they are not aligned.
    pub fn values<T: Plain>(&self) -> Result<&[T]> {
        // SAFETY: any bytes are a value of a `Plain` type; `align_to` finds the aligned part, which must be all.
        match unsafe { self.get().align_to() } {
            ([], values, []) => Ok(values),
            _ => Err(wrong("the array", "is not aligned; pass a copy")),
        }
    }

    /// The bytes as little-endian values of `T`, to be written.
    ///
    /// # Errors
    /// `InvalidArgument` where they are read-only or not aligned.
    pub fn values_mut<T: Plain>(&mut self) -> Result<&mut [T]> {
        // SAFETY: as in `values`.
        match unsafe { self.get_mut()?.align_to_mut() } {
            ([], values, []) => Ok(values),
            _ => Err(wrong("the array", "is not aligned; pass a copy")),
        }
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
