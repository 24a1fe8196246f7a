//! The heaviest matching of a sparse bipartite graph, with its dual variables.
//!
//! First rows bid for columns as in an auction without increments (the augmenting row reduction of Jonker and Volgenant,
//! 1987), then each row that is left looks for a shortest augmenting path by Dijkstra's algorithm on reduced weights.
//! All arithmetic is in integers, so that optimality is exact.
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::work::Watch;
use crate::error::{Error, Result};

/// No row, or no column.
pub const FREE: u32 = u32::MAX;

/// Rounds of bidding, and bids in one round per row: what is left then is left to augmenting paths.
const ROUNDS: usize = 4;
const BIDS: usize = 16;
/// Augmentations between two looks at the watch.
const LOOK: usize = 64;

/// Weighted edges of n rows: those of row i are `starts[i]..starts[i + 1]`.
#[derive(Debug, Clone, Default)]
pub struct Edges {
    /// [n + 1].
    pub starts: Vec<usize>,
    /// Column of each edge.
    pub columns: Vec<u32>,
    /// Weight of each edge, above 0 and below 2^43.
    pub weights: Vec<i64>,
}

impl Edges {
    /// The edges, if they are a graph with `m` columns.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: lengths or columns that do not fit, or weights out of range.
    pub fn checked(self, m: usize) -> Result<Self> {
        let fits = self.starts.first() == Some(&0)
            && self.starts.last() == Some(&self.columns.len())
            && self.starts.is_sorted()
            && self.columns.len() == self.weights.len()
            && self.columns.iter().all(|column| (*column as usize) < m)
            && self.weights.iter().all(|weight| (1..1 << 43).contains(weight));
        if fits {
            return Ok(self);
        }
        Err(Error::InvalidArgument(format!("assign: not a graph with {m} columns and weights from 1 to 2^43 - 1")))
    }

    fn of(&self, row: usize) -> impl Iterator<Item = (usize, i64)> + '_ {
        let range = self.starts[row]..self.starts[row + 1];
        self.columns[range.clone()].iter().map(|column| *column as usize).zip(self.weights[range].iter().copied())
    }
}

/// A matching and the proof that none is heavier: `u[i] + v[j] >= w` for every edge, with equality on matched ones;
/// both are never below 0, and 0 for what is not matched. So the sum of u and v is the weight.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// [n] the column of each row, or [`FREE`].
    pub column_of: Vec<u32>,
    /// [m] the row of each column, or [`FREE`].
    pub row_of: Vec<u32>,
    /// [n].
    pub u: Vec<i64>,
    /// [m].
    pub v: Vec<i64>,
}

/// The heaviest matching of `edges` with `m` columns. None where `watch` stopped it.
pub fn assign(edges: &Edges, m: usize, watch: &mut Watch<'_>) -> Option<Assignment> {
    let n = edges.starts.len().saturating_sub(1);
    let mut found = Assignment { column_of: vec![FREE; n], row_of: vec![FREE; m], u: vec![0; n], v: vec![0; m] };
    let mut left: Vec<u32> = (0..n as u32).rev().collect();
    for _ in 0..ROUNDS {
        left = found.bid(edges, left);
    }
    let mut search = Search::new(m);
    for (count, row) in left.iter().rev().enumerate() {
        if count % LOOK == 0 && watch(0) {
            return None;
        }
        found.augment(edges, *row, &mut search);
    }
    Some(found)
}

impl Assignment {
    /// [n] the column of each row, or -1.
    #[must_use]
    pub fn columns(&self) -> Vec<i64> {
        self.column_of.iter().map(|column| if *column == FREE { -1 } else { i64::from(*column) }).collect()
    }

    /// Every row of `left`, last first, takes the column where it gains most, at a price that leaves it as well off as
    /// its second choice; gives the rows that lost theirs to a tie or when bids ran out.
    fn bid(&mut self, edges: &Edges, mut left: Vec<u32>) -> Vec<u32> {
        let mut lost = Vec::new();
        let mut bids = BIDS * left.len();
        while let Some(row) = left.pop() {
            let i = row as usize;
            // Staying free gains 0.
            let (mut best, mut second) = ((0, FREE), (0, FREE));
            for (j, weight) in edges.of(i) {
                let gain = weight - self.v[j];
                if gain > best.0 {
                    second = best;
                    best = (gain, j as u32);
                } else if gain > second.0 {
                    second = (gain, j as u32);
                }
            }
            self.u[i] = second.0;
            if best.1 == FREE {
                continue;
            }
            let tie = best.0 == second.0;
            let taken = |j: u32| self.row_of[j as usize] != FREE;
            let j =
                if tie && second.1 != FREE && taken(best.1) && !taken(second.1) { second.1 } else { best.1 } as usize;
            self.v[j] += best.0 - second.0;
            let before = std::mem::replace(&mut self.row_of[j], row);
            self.column_of[i] = j as u32;
            if before != FREE {
                self.column_of[before as usize] = FREE;
                if tie || bids == 0 {
                    lost.push(before);
                } else {
                    bids -= 1;
                    left.push(before);
                }
            }
        }
        lost.reverse();
        lost
    }

    /// Matches one more row, or finds it better to leave one free.
    fn augment(&mut self, edges: &Edges, row: u32, search: &mut Search) {
        let start = row as usize;
        let gain = edges.of(start).map(|(j, weight)| weight - self.v[j]).max().unwrap_or(0).max(0);
        self.u[start] = gain;
        search.begin();
        let mut end = End { distance: gain, place: Place::Row(row) };
        self.reach(edges, row, 0, search, &mut end);
        while let Some(Reverse((distance, column))) = search.heap.pop() {
            if distance >= end.distance {
                break;
            }
            if search.settle(column, distance) {
                self.reach(edges, self.row_of[column as usize], distance, search, &mut end);
            }
        }
        self.u[start] -= end.distance;
        for (column, distance) in &search.settled {
            let slack = end.distance - distance;
            self.v[*column as usize] += slack;
            self.u[self.row_of[*column as usize] as usize] -= slack;
        }
        // Along the path back to the start every row takes the next column.
        let mut column = match end.place {
            Place::Column(column) => column,
            Place::Row(last) => std::mem::replace(&mut self.column_of[last as usize], FREE),
        };
        while column != FREE {
            let taker = search.from[column as usize];
            self.row_of[column as usize] = taker;
            column = std::mem::replace(&mut self.column_of[taker as usize], column);
            if taker == row {
                break;
            }
        }
    }

    /// Goes on from `row`, `distance` away from the start, to all its columns.
    fn reach(&self, edges: &Edges, row: u32, distance: i64, search: &mut Search, end: &mut End) {
        let base = distance + self.u[row as usize];
        if base < end.distance {
            *end = End { distance: base, place: Place::Row(row) };
        }
        for (j, weight) in edges.of(row as usize) {
            let there = base + self.v[j] - weight;
            if there < end.distance && search.nearer(j, there, row) {
                if self.row_of[j] == FREE {
                    *end = End { distance: there, place: Place::Column(j as u32) };
                } else {
                    search.heap.push(Reverse((there, j as u32)));
                }
            }
        }
    }
}

/// Where a path may end: at a row that becomes free, or at a column that was.
enum Place {
    Row(u32),
    Column(u32),
}

/// The nearest end so far.
struct End {
    distance: i64,
    place: Place,
}

/// The state of one search; columns that a search has not seen are those with an older mark.
struct Search {
    heap: BinaryHeap<Reverse<(i64, u32)>>,
    distance: Vec<i64>,
    from: Vec<u32>,
    mark: Vec<u32>,
    now: u32,
    settled: Vec<(u32, i64)>,
}

impl Search {
    fn new(m: usize) -> Self {
        let (distance, from, mark) = (vec![0; m], vec![FREE; m], vec![0; m]);
        Self { heap: BinaryHeap::new(), distance, from, mark, now: 0, settled: Vec::new() }
    }

    fn begin(&mut self) {
        self.now += 2;
        self.heap.clear();
        self.settled.clear();
    }

    /// Notes a way to a column, unless one as short is known. Marks: `now` seen, `now + 1` settled.
    fn nearer(&mut self, column: usize, distance: i64, row: u32) -> bool {
        let seen = self.mark[column];
        if seen >= self.now && (seen > self.now || self.distance[column] <= distance) {
            return false;
        }
        (self.mark[column], self.distance[column], self.from[column]) = (self.now, distance, row);
        true
    }

    /// False where the column was settled before.
    fn settle(&mut self, column: u32, distance: i64) -> bool {
        let mark = &mut self.mark[column as usize];
        if *mark > self.now {
            return false;
        }
        *mark = self.now + 1;
        self.settled.push((column, distance));
        true
    }
}
