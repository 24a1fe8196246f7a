//! The nearest K atoms both ways of one pair of dictionaries.
use super::packed::{Packed, Segment};
use super::scan::{Scan, Scratch, columns};
use super::tops::Tops;
use super::unit_rows::check_unit_rows;
use super::work::{Watch, by_rows, join};
use crate::error::{Error, Result};
use crate::vector::isa::Isa;

/// For each atom of a the best of b, and for each of b the best of a.
pub struct Nearest {
    /// [n] lists.
    pub of_a: Tops,
    /// [m] lists.
    pub of_b: Tops,
}

/// Two dictionaries, packed: segments 0 and 1.
pub(super) fn pack(isa: &Isa, threads: usize, a: &[f32], b: &[f32], d: usize) -> Result<Packed> {
    check_unit_rows("a", a, d)?;
    check_unit_rows("b", b, d)?;
    let all = |of: &[f32]| (0..(of.len() / d) as u32).collect::<Vec<_>>();
    let segments = vec![Segment::new(0, true, all(a)), Segment::new(1, true, all(b))];
    Ok(Packed::new(isa, threads, d, segments, |segment, index| {
        &[a, b][segment.dictionary][index as usize * d..(index as usize + 1) * d]
    }))
}

/// The `k` largest cosines of each atom of `a` [n, d] with atoms of `b` [m, d], and the other way round. None where
/// `watch` stopped it.
///
/// # Errors
/// [`Error::InvalidArgument`]: rows that are not of norm 1, or `k` = 0.
pub fn nearest(
    isa: &Isa,
    threads: usize,
    (a, b, d): (&[f32], &[f32], usize),
    k: usize,
    absolute: bool,
    watch: &mut Watch<'_>,
) -> Result<Option<Nearest>> {
    if k == 0 {
        return Err(Error::InvalidArgument("nearest: k must be at least 1".to_owned()));
    }
    let packed = pack(isa, threads, a, b, d)?;
    Ok(nearest_of(isa, threads, &packed, k, absolute, watch))
}

/// The same of packed atoms.
pub(super) fn nearest_of(
    isa: &Isa,
    threads: usize,
    packed: &Packed,
    k: usize,
    absolute: bool,
    watch: &mut Watch<'_>,
) -> Option<Nearest> {
    let (a, b) = (&packed.segments[0], &packed.segments[1]);
    let multiply = isa.multiply();
    let of_b = columns(b.len(), k.min(a.len()));
    let of_a = by_rows(isa, threads, packed, k.min(b.len()), watch, Scratch::new, |scratch, tiles, rows| {
        isa.run(Scan { packed, multiply, absolute, a, tiles, b, rows, columns: &of_b, scratch });
    })?;
    Some(Nearest { of_a, of_b: join(k.min(a.len()), of_b) })
}
