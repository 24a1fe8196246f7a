//! The one-to-one matching of two dictionaries with the largest sum of cosines, without their matrix of cosines.
//!
//! Few pairs have a cosine near a match's. The assignment is solved on the nearest K atoms both ways; its dual variables
//! then prove it optimal among all pairs in one more pass, or that pass finds pairs to add, and it is solved again.
use std::time::Instant;

use super::assign::{Assignment, Edges, FREE, assign};
use super::nearest::{Nearest, nearest_of, pack};
use super::packed::Packed;
use super::proof::violations;
use super::scan::cosine;
use super::tops::Tops;
use super::weight::{ONE, weight};
use super::work::Watch;
use crate::error::{Error, Result};
use crate::vector::dot::dot;
use crate::vector::isa::Isa;
use crate::vector::simd::{Kernel, Simd};

/// How to match.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Nearest atoms of each atom that are candidates at first.
    pub candidates: usize,
    /// Whether the sign of a cosine does not count.
    pub absolute: bool,
    /// Threads.
    pub threads: usize,
}

/// A matching that is proved optimal.
#[derive(Debug, Clone)]
pub struct Matching {
    /// [n] the atom of b that each of a is matched with, or -1.
    pub partner: Vec<i32>,
    /// [n] its cosine; NaN where there is none.
    pub cosine: Vec<f32>,
    /// How often the assignment was solved.
    pub rounds: usize,
    /// Candidate pairs of the last.
    pub edges: usize,
    /// The bound on every matching's sum of cosines, by the dual variables: equal to the sum reached.
    pub bound: f64,
    /// Seconds spent on candidates, on the assignment, and on the proof.
    pub seconds: [f64; 3],
}

/// The matching of `a` [n, d] with `b` [m, d] whose sum of cosines is largest: min(n, m) pairs. None where `watch`
/// stopped it.
///
/// # Errors
/// [`Error::InvalidArgument`]: rows that are not of norm 1, or no candidates.
pub fn match_one_to_one(
    isa: &Isa,
    (a, b, d): (&[f32], &[f32], usize),
    settings: Settings,
    watch: &mut Watch<'_>,
) -> Result<Option<Matching>> {
    if settings.candidates == 0 {
        return Err(Error::InvalidArgument("match_one_to_one: candidates must be at least 1".to_owned()));
    }
    let swapped = a.len() > b.len();
    let (rows, columns) = if swapped { (b, a) } else { (a, b) };
    let packed = pack(isa, settings.threads, rows, columns, d)?;
    Ok(solve(isa, &packed, settings, watch).map(|found| found.of(isa, &packed, settings.absolute, swapped)))
}

impl Matching {
    /// Writes partners and cosines to arrays [n].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: they have another length.
    pub fn write(&self, partner: &mut [i32], cosine: &mut [f32]) -> Result<()> {
        if partner.len() != self.partner.len() || cosine.len() != self.cosine.len() {
            let wanted = self.partner.len();
            return Err(Error::InvalidArgument(format!("partners of {} atoms for {wanted}", partner.len())));
        }
        partner.copy_from_slice(&self.partner);
        cosine.copy_from_slice(&self.cosine);
        Ok(())
    }
}

struct Solved {
    assignment: Assignment,
    rounds: usize,
    edges: usize,
    seconds: [f64; 3],
}

fn solve(isa: &Isa, packed: &Packed, settings: Settings, watch: &mut Watch<'_>) -> Option<Solved> {
    let Settings { candidates, absolute, threads } = settings;
    let columns = packed.segments[1].len();
    let mut seconds = [0.0; 3];
    let start = Instant::now();
    let near = nearest_of(isa, threads, packed, candidates, absolute, watch)?;
    let mut edges = candidate_edges(&near);
    drop(near);
    seconds[0] = start.elapsed().as_secs_f64();
    let mut more = candidates.div_ceil(2).min(columns);
    for rounds in 1.. {
        let start = Instant::now();
        let assignment = assign(&edges, columns, watch)?;
        seconds[1] += start.elapsed().as_secs_f64();
        let start = Instant::now();
        let against = violations(isa, threads, packed, absolute, (&assignment.u, &assignment.v), more, watch)?;
        let done = !widen(&mut edges, isa, packed, &against, absolute);
        seconds[2] += start.elapsed().as_secs_f64();
        if done {
            return Some(Solved { assignment, rounds, edges: edges.columns.len(), seconds });
        }
        more = (2 * more).min(columns);
    }
    None
}

/// The nearest both ways as edges, each once.
fn candidate_edges(near: &Nearest) -> Edges {
    let (of_a, of_b) = (&near.of_a, &near.of_b);
    let (n, m) = (of_a.slots(), of_b.slots());
    // An atom of a is listed with its own nearest; its column's list adds it where it is not among these.
    let last: Vec<Option<(f32, u32)>> = (0..n).map(|i| of_a.last(i)).collect();
    let beyond = |i: u32, j: u32, value: f32| {
        last[i as usize].is_some_and(|(floor, index)| value < floor || (value == floor && j > index))
    };
    let mut more: Vec<(u32, u32, f32)> = Vec::new();
    for j in 0..m {
        more.extend(
            of_b.of(j).filter(|(value, i)| beyond(*i, j as u32, *value)).map(|(value, i)| (i, j as u32, value)),
        );
    }
    merged(n, |i| of_a.of(i), &more)
}

/// The edges of each row, and `more` of them.
fn merged<R: Iterator<Item = (f32, u32)>>(n: usize, own: impl Fn(usize) -> R, more: &[(u32, u32, f32)]) -> Edges {
    let mut starts = vec![0usize; n + 1];
    for i in 0..n {
        starts[i + 1] = own(i).count();
    }
    for (i, _, _) in more {
        starts[*i as usize + 1] += 1;
    }
    for i in 0..n {
        starts[i + 1] += starts[i];
    }
    let (mut columns, mut weights) = (vec![0; starts[n]], vec![0; starts[n]]);
    let mut next = starts.clone();
    let mut put = |i: usize, j: u32, value: f32| {
        (columns[next[i]], weights[next[i]]) = (j, weight(value));
        next[i] += 1;
    };
    for i in 0..n {
        for (value, j) in own(i) {
            put(i, j, value);
        }
    }
    for (i, j, value) in more {
        put(*i as usize, *j, *value);
    }
    Edges { starts, columns, weights }
}

/// Adds the pairs that speak against a matching; false where there are none.
fn widen(edges: &mut Edges, isa: &Isa, packed: &Packed, against: &Tops, absolute: bool) -> bool {
    let pairs: Vec<_> = (0..against.slots()).flat_map(|i| against.of(i).map(move |(_, j)| (i as u32, j))).collect();
    if pairs.is_empty() {
        return false;
    }
    let values = exact(isa, packed, &pairs, absolute);
    let n = against.slots();
    let mut wider = Edges { starts: vec![0], ..Edges::default() };
    let mut place = 0;
    for i in 0..n {
        let old = edges.starts[i]..edges.starts[i + 1];
        wider.columns.extend(&edges.columns[old.clone()]);
        wider.weights.extend(&edges.weights[old]);
        while place < pairs.len() && pairs[place].0 as usize == i {
            wider.columns.push(pairs[place].1);
            wider.weights.push(weight(values[place]));
            place += 1;
        }
        wider.starts.push(wider.columns.len());
    }
    *edges = wider;
    true
}

/// Exact cosines of pairs of rows of the two segments.
fn exact(isa: &Isa, packed: &Packed, pairs: &[(u32, u32)], absolute: bool) -> Vec<f32> {
    struct Dots<'a>(&'a Packed, &'a [(u32, u32)], bool);
    impl Kernel for Dots<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn call<S: Simd>(self, s: S) -> Vec<f32> {
            let Self(packed, pairs, absolute) = self;
            let (a, b) = (packed.segments[0].start, packed.segments[1].start);
            let mut values = Vec::with_capacity(pairs.len());
            for (i, j) in pairs {
                values.push(cosine(dot(s, packed.atom(a + *i as usize), packed.atom(b + *j as usize)), absolute));
            }
            values
        }
    }
    isa.run(Dots(packed, pairs, absolute))
}

impl Solved {
    fn of(self, isa: &Isa, packed: &Packed, absolute: bool, swapped: bool) -> Matching {
        let Assignment { column_of, row_of, u, v } = self.assignment;
        let pairs: Vec<_> =
            column_of.iter().enumerate().filter(|(_, j)| **j != FREE).map(|(i, j)| (i as u32, *j)).collect();
        let values = exact(isa, packed, &pairs, absolute);
        let count = if swapped { row_of.len() } else { column_of.len() };
        let (mut partner, mut cosine) = (vec![-1; count], vec![f32::NAN; count]);
        for ((i, j), value) in pairs.iter().zip(values) {
            let (from, to) = if swapped { (*j, *i) } else { (*i, *j) };
            (partner[from as usize], cosine[from as usize]) = (to as i32, value);
        }
        let total = u.iter().chain(&v).map(|price| i128::from(*price)).sum::<i128>();
        let bound = (total - 2 * i128::from(ONE) * pairs.len() as i128) as f64 / ONE as f64;
        Matching { partner, cosine, rounds: self.rounds, edges: self.edges, bound, seconds: self.seconds }
    }
}
