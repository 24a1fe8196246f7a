//! Clusters of features of several dictionaries: joined pair by pair, the nearest first, as long as every member stays
//! near to the cluster's centre and no dictionary is in it twice.
//!
//! The rule is that of `docs/consensus.md`. All sums are over f64 in a fixed order, on one thread: the same input gives
//! the same bits on every machine. Letters: N atoms of K dictionaries, d dimensions.
mod forest;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use crate::error::{Error, Result};
use forest::Forest;

/// What is joined.
pub struct Input<'a> {
    /// Unit rows, N x d, dictionary after dictionary.
    pub atoms: &'a [f32],
    /// Dimensions of an atom.
    pub width: usize,
    /// Atoms of each dictionary.
    pub sizes: &'a [usize],
    /// Pairs of atoms that are each other's nearest, at most one for two dictionaries and an atom.
    pub pairs: (&'a [i32], &'a [i32]),
    /// Their cosines.
    pub cosine: &'a [f32],
    /// Other pairs of near atoms, which may be halves of one cluster.
    pub links: (&'a [i32], &'a [i32]),
    /// Which atoms may be in a cluster.
    pub live: &'a [u8],
    /// Cosine with the centre that every member must exceed.
    pub threshold: f64,
    /// Whether the sign of a cosine does not count.
    pub absolute: bool,
}

/// Where the clusters go, one value for each atom.
pub struct Output<'a> {
    /// The number of its cluster, in the order of their first atoms; -1 for an atom that is not live.
    pub label: &'a mut [i32],
    /// 1 for a member, 0 for a duplicate: the farther of two atoms of one dictionary in one cluster.
    pub votes: &'a mut [u8],
    /// 1, or -1 for an atom that points away from its cluster's first one.
    pub sign: &'a mut [i8],
    /// Sum of its cosines with all members of its cluster, itself included; 0 for a duplicate.
    pub closeness: &'a mut [f64],
}

/// Finds the clusters.
///
/// # Errors
/// `InvalidArgument` where arrays do not fit.
pub fn cluster(input: &Input, mut out: Output) -> Result<()> {
    check(input, &out)?;
    let mut forest = Forest::new(input);
    // Numbers of pairs, a third of the memory of the pairs themselves: there are up to N K / 2 of them.
    let mut order: Vec<u32> = (0..input.cosine.len() as u32).collect();
    let ends = |at: u32| {
        let (u, v) = (input.pairs.0[at as usize], input.pairs.1[at as usize]);
        (u.min(v), u.max(v))
    };
    order.sort_unstable_by(|&a, &b| {
        let nearer = input.cosine[b as usize].total_cmp(&input.cosine[a as usize]);
        nearer.then_with(|| ends(a).cmp(&ends(b)))
    });
    for &at in &order {
        let (u, v) = ends(at);
        forest.unite(u as usize, v as usize);
    }
    drop(order);
    let near = || {
        let linked = input.links.0.iter().zip(input.links.1);
        input.pairs.0.iter().zip(input.pairs.1).chain(linked).map(|(&u, &v)| (u, v))
    };
    while forest.unite_twins(near()) {}
    forest.write(input.live, &mut out);
    Ok(())
}

fn check(input: &Input, out: &Output) -> Result<()> {
    let n: usize = input.sizes.iter().sum();
    let wrong = |what: &str| Err(Error::InvalidArgument(format!("clusters: {what}")));
    if input.width == 0 || input.atoms.len() != n * input.width {
        return wrong("atoms must be as many rows as the sizes add up to");
    }
    let lengths = [input.live.len(), out.label.len(), out.votes.len(), out.sign.len(), out.closeness.len()];
    if lengths.iter().any(|&length| length != n) {
        return wrong("live and the results must have a value for each atom");
    }
    let (pairs, links) = (input.pairs, input.links);
    if pairs.0.len() != pairs.1.len() || pairs.0.len() != input.cosine.len() || links.0.len() != links.1.len() {
        return wrong("pairs must have two ends and a cosine, links two ends");
    }
    let ends = [pairs.0, pairs.1, links.0, links.1];
    if ends.iter().any(|end| end.iter().any(|&at| at < 0 || at as usize >= n)) {
        return wrong("a pair names an atom that is not there");
    }
    Ok(())
}
