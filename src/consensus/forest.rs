//! Clusters while they grow: rings of members, and for each member the sum of its cosines with all of them.
use super::{Input, Output};

const LANES: usize = 8;

pub struct Forest<'a> {
    input: &'a Input<'a>,
    owner: Vec<u32>,     // dictionary of an atom
    root: Vec<u32>,      // an atom's cluster, by one of its members
    next: Vec<u32>,      // the next member, round a ring
    sign: Vec<i8>,       // beside the cluster's root
    closeness: Vec<f64>, // sum of cosines with the members
    anchor: Vec<u32>,    // of a duplicate: the member it is a copy of; of all others: itself
}

/// Two clusters as one, before it is decided whether they are to be.
struct Union {
    members: Vec<u32>,
    signs: Vec<i8>,
    closeness: Vec<f64>,
}

impl Union {
    /// Length of the sum of the members.
    fn length(&self) -> f64 {
        self.closeness.iter().sum::<f64>().max(0.0).sqrt()
    }

    fn least(&self) -> f64 {
        self.closeness.iter().copied().fold(f64::INFINITY, f64::min) / self.length()
    }
}

impl<'a> Forest<'a> {
    pub fn new(input: &'a Input<'a>) -> Self {
        let n = input.live.len() as u32;
        let sizes = input.sizes.iter().enumerate();
        Self {
            input,
            owner: sizes.flat_map(|(k, &size)| std::iter::repeat_n(k as u32, size)).collect(),
            root: (0..n).collect(),
            next: (0..n).collect(),
            sign: vec![1; n as usize],
            closeness: vec![1.0; n as usize],
            anchor: (0..n).collect(),
        }
    }

    /// Joins the clusters of two atoms unless a dictionary would be in it twice, or a member too far from the centre.
    pub fn unite(&mut self, u: usize, v: usize) {
        let (a, b) = (self.root[u], self.root[v]);
        if a == b || !self.shared(a, b).is_empty() {
            return;
        }
        let union = self.union(a, b, u, v);
        if union.least() > self.input.threshold {
            self.commit(&union, a.min(b));
        }
    }

    /// Joins clusters with near centres that hardly ever occur in the same dictionaries; whether any were.
    ///
    /// Such halves come from a dictionary with two copies of an atom, between which the others' partners divide.
    pub fn unite_twins(&mut self, near: impl Iterator<Item = (i32, i32)>) -> bool {
        let mut candidates: Vec<(u32, u32, u32, u32)> = near
            .filter(|&(u, v)| self.is_member(u as u32) && self.is_member(v as u32))
            .map(|(u, v)| (self.root[u as usize], self.root[v as usize], u as u32, v as u32))
            .filter(|&(a, b, _, _)| a != b)
            .map(|(a, b, u, v)| if a < b { (a, b, u, v) } else { (b, a, v, u) })
            .collect();
        candidates.sort_unstable();
        candidates.dedup_by_key(|one| (one.0, one.1));
        let mut scored: Vec<(f64, u32, u32, u32, u32)> = candidates
            .into_iter()
            .filter(|&(a, b, _, _)| {
                let least = self.members(a).len().min(self.members(b).len());
                2 * self.shared(a, b).len() <= least
            })
            .map(|(a, b, u, v)| (self.between(a, b, u, v), a, b, u, v))
            .filter(|one| one.0 > self.input.threshold)
            .collect();
        scored.sort_unstable_by(|x, y| y.0.total_cmp(&x.0).then((x.1, x.2).cmp(&(y.1, y.2))));
        let mut touched = std::collections::HashSet::new();
        let mut any = false;
        for (_, a, b, u, v) in scored {
            if touched.contains(&a) || touched.contains(&b) {
                continue; // the next pass looks at what has become of it
            }
            if self.unite_pair(a, b, u as usize, v as usize) {
                touched.extend([a, b]);
                any = true;
            }
        }
        any
    }

    /// Joins two clusters; of two atoms of one dictionary the farther becomes a duplicate of the nearer.
    fn unite_pair(&mut self, a: u32, b: u32, u: usize, v: usize) -> bool {
        let mut union = self.union(a, b, u, v);
        let mut losers = Vec::new();
        for k in self.shared(a, b) {
            let of = |at: &usize| self.owner[union.members[*at] as usize] == k;
            let two: Vec<usize> = (0..union.members.len()).filter(of).collect();
            let first = union.closeness[two[0]] >= union.closeness[two[1]];
            losers.push(if first { (two[1], two[0]) } else { (two[0], two[1]) });
        }
        let pairs: Vec<(u32, u32)> = losers.iter().map(|&(x, y)| (union.members[x], union.members[y])).collect();
        losers.sort_unstable_by_key(|one| std::cmp::Reverse(one.0));
        for (at, _) in losers {
            let (member, sign) = (union.members.remove(at), union.signs.remove(at));
            union.closeness.remove(at);
            for (i, &other) in union.members.iter().enumerate() {
                union.closeness[i] -= self.dot(member, other) * f64::from(sign * union.signs[i]);
            }
        }
        if union.least() <= self.input.threshold {
            return false;
        }
        for (loser, keeper) in pairs {
            self.anchor[loser as usize] = keeper;
            self.closeness[loser as usize] = 0.0;
        }
        let root = *union.members.iter().min().unwrap_or(&a);
        self.commit(&union, root);
        true
    }

    pub fn write(&self, live: &[u8], out: &mut Output) {
        let n = live.len();
        let mut numbers = vec![-1; n];
        let mut clusters = 0;
        for at in 0..n {
            let member = self.member(at as u32);
            let root = self.root[member as usize] as usize;
            if live[at] == 0 {
                (out.label[at], out.votes[at], out.sign[at], out.closeness[at]) = (-1, 0, 1, 0.0);
                continue;
            }
            if numbers[root] < 0 {
                numbers[root] = clusters;
                clusters += 1;
            }
            out.label[at] = numbers[root];
            out.votes[at] = u8::from(self.is_member(at as u32));
            let against = if self.is_member(at as u32) { 1 } else { self.turn(at as u32, member) };
            out.sign[at] = self.sign[member as usize] * self.sign[root] * against;
            out.closeness[at] = self.closeness[at];
        }
    }

    fn is_member(&self, at: u32) -> bool {
        self.anchor[at as usize] == at
    }

    fn member(&self, mut at: u32) -> u32 {
        while !self.is_member(at) {
            at = self.anchor[at as usize];
        }
        at
    }

    fn members(&self, root: u32) -> Vec<u32> {
        let mut found = vec![root];
        let mut at = self.next[root as usize];
        while at != root {
            found.push(at);
            at = self.next[at as usize];
        }
        found
    }

    /// Dictionaries that are in both clusters.
    fn shared(&self, a: u32, b: u32) -> Vec<u32> {
        let others: Vec<u32> = self.members(b).iter().map(|&at| self.owner[at as usize]).collect();
        let own = self.members(a).into_iter().map(|at| self.owner[at as usize]);
        own.filter(|k| others.contains(k)).collect()
    }

    /// Two clusters as one, turned so that u and v, a member of each, point the same way.
    fn union(&self, a: u32, b: u32, u: usize, v: usize) -> Union {
        let (first, second) = (self.members(a), self.members(b));
        let turn = self.turn(u as u32, v as u32) * self.sign[u] * self.sign[v];
        let mut signs: Vec<i8> = first.iter().map(|&at| self.sign[at as usize]).collect();
        signs.extend(second.iter().map(|&at| self.sign[at as usize] * turn));
        let members = [first.as_slice(), second.as_slice()].concat();
        let mut closeness: Vec<f64> = members.iter().map(|&at| self.closeness[at as usize]).collect();
        for i in 0..first.len() {
            for j in first.len()..members.len() {
                let cosine = self.dot(members[i], members[j]) * f64::from(signs[i] * signs[j]);
                closeness[i] += cosine;
                closeness[j] += cosine;
            }
        }
        Union { members, signs, closeness }
    }

    /// Cosine of the centres of two clusters.
    fn between(&self, a: u32, b: u32, u: u32, v: u32) -> f64 {
        let union = self.union(a, b, u as usize, v as usize);
        let square = |root: u32| self.members(root).iter().map(|&at| self.closeness[at as usize]).sum::<f64>();
        let (one, other) = (square(a), square(b));
        (union.closeness.iter().sum::<f64>() - one - other) / (2.0 * (one * other).sqrt())
    }

    fn commit(&mut self, union: &Union, root: u32) {
        let following = union.members.iter().cycle().skip(1);
        for (((&at, &next), &sign), &closeness) in
            union.members.iter().zip(following).zip(&union.signs).zip(&union.closeness)
        {
            let at = at as usize;
            (self.root[at], self.next[at], self.sign[at], self.closeness[at]) = (root, next, sign, closeness);
        }
    }

    /// -1 where two atoms point away from each other and that does not count.
    fn turn(&self, u: u32, v: u32) -> i8 {
        if self.input.absolute && self.dot(u, v) < 0.0 { -1 } else { 1 }
    }

    fn dot(&self, u: u32, v: u32) -> f64 {
        let row = |at: u32| &self.input.atoms[at as usize * self.input.width..][..self.input.width];
        let (a, b) = (row(u), row(v));
        let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let rest = left.remainder().iter().zip(right.remainder());
        let rest: f64 = rest.map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
        let mut lanes = [0.0; LANES];
        for (x, y) in left.zip(right) {
            for lane in 0..LANES {
                lanes[lane] += f64::from(x[lane]) * f64::from(y[lane]);
            }
        }
        lanes.iter().sum::<f64>() + rest
    }
}
