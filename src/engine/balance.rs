//! Which dictionaries the threads work on together, and which each alone.
//!
//! Alone, a thread reads only what it wrote itself, and waits for nobody until the end: that is faster as long as no
//! thread is left with nothing to do. A dictionary that would keep one thread busy for longer than the others have work
//! is worked on by all.

/// Part of the time of threads that work together which one alone would need: measured on two threads.
pub(super) const ALONE: f64 = 0.83;

/// Dictionaries by number, those that take longest first.
#[derive(Debug, PartialEq)]
pub(super) struct Shared {
    pub(super) together: Vec<usize>,
    pub(super) alone: Vec<usize>,
}

/// Shares dictionaries out by what each costs one thread; `allowed` tells which may be worked on alone.
pub(super) fn share(costs: &[f64], allowed: &[bool], threads: usize) -> Shared {
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by(|a, b| costs[*b].total_cmp(&costs[*a]));
    if threads == 1 {
        return Shared { together: order, alone: Vec::new() };
    }
    let (order, mut together): (Vec<_>, Vec<_>) = order.into_iter().partition(|k| allowed[*k]);
    let time = |first: usize| {
        let shared = order[..first].iter().map(|k| costs[*k]).sum::<f64>() / (ALONE * threads as f64);
        shared + longest(order[first..].iter().map(|k| costs[*k]), threads)
    };
    // All costs are finite; with equal times the fewest are worked on together.
    let first = (0..=order.len().min(2 * threads)).min_by(|a, b| time(*a).total_cmp(&time(*b))).unwrap_or(0);
    together.extend(&order[..first]);
    Shared { together, alone: order[first..].to_vec() }
}

/// When the last thread is done if each takes the next of `costs` once it is free.
fn longest(costs: impl Iterator<Item = f64>, threads: usize) -> f64 {
    let mut busy = vec![0.0f64; threads];
    for cost in costs {
        if let Some(first) = busy.iter_mut().min_by(|a, b| a.total_cmp(b)) {
            *first += cost;
        }
    }
    busy.into_iter().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_dictionaries_are_worked_on_alone() {
        let Shared { together, alone } = share(&[1.0; 8], &[true; 8], 2);
        assert!(together.is_empty());
        assert_eq!(alone.len(), 8);
    }

    #[test]
    fn one_that_is_longer_than_all_others_is_worked_on_together() {
        let Shared { together, alone } = share(&[1.0, 2.0, 9.0, 1.0], &[true; 4], 2);
        assert_eq!(together, [2]);
        assert_eq!(alone, [1, 0, 3]);
    }

    #[test]
    fn those_that_may_not_and_all_of_a_single_thread_are_worked_on_together() {
        let Shared { together, alone } = share(&[1.0, 1.0, 2.0, 2.0, 1.0], &[true, true, true, true, false], 2);
        assert_eq!(together, [4]);
        assert_eq!(alone, [2, 3, 0, 1]);
        assert_eq!(share(&[1.0, 3.0], &[true; 2], 1), Shared { together: vec![1, 0], alone: Vec::new() });
    }

    #[test]
    fn a_thread_too_many_is_no_thread_alone() {
        assert!(share(&[5.0], &[true], 3).alone.is_empty());
    }
}
