use super::{Input, Output, cluster};

/// Labels, votes and signs of atoms in a plane, given by their angles in degrees, dictionary after dictionary.
fn found(
    angles: &[&[f64]],
    pairs: &[(i32, i32)],
    links: &[(i32, i32)],
    threshold: f64,
    absolute: bool,
) -> Vec<(i32, u8, i8)> {
    let sizes: Vec<usize> = angles.iter().map(|own| own.len()).collect();
    let degrees: Vec<f64> = angles.concat();
    let atoms: Vec<f32> =
        degrees.iter().flat_map(|a| [a.to_radians().cos() as f32, a.to_radians().sin() as f32]).collect();
    let n = degrees.len();
    let ends = |pairs: &[(i32, i32)]| pairs.iter().copied().unzip::<i32, i32, Vec<_>, Vec<_>>();
    let ((u, v), (from, to)) = (ends(pairs), ends(links));
    let cosine: Vec<f32> = pairs
        .iter()
        .map(|&(u, v)| (degrees[u as usize] - degrees[v as usize]).to_radians().cos().abs() as f32)
        .collect();
    let (mut label, mut votes, mut sign, mut closeness) = (vec![0; n], vec![0; n], vec![0; n], vec![0.0; n]);
    let input = Input {
        atoms: &atoms,
        width: 2,
        sizes: &sizes,
        pairs: (&u, &v),
        cosine: &cosine,
        links: (&from, &to),
        live: &vec![1; n],
        threshold,
        absolute,
    };
    let out = Output { label: &mut label, votes: &mut votes, sign: &mut sign, closeness: &mut closeness };
    cluster(&input, out).unwrap();
    label.into_iter().zip(votes).zip(sign).map(|((label, votes), sign)| (label, votes, sign)).collect()
}

#[test]
fn the_nearest_pair_comes_first_and_a_dictionary_is_in_a_cluster_once() {
    let labels = found(&[&[0.0, 90.0], &[2.0], &[91.0]], &[(0, 2), (1, 3)], &[], 0.9, false);
    assert_eq!(labels, [(0, 1, 1), (1, 1, 1), (0, 1, 1), (1, 1, 1)]);
}

#[test]
fn a_drift_is_cut_where_a_member_would_be_too_far_from_the_centre() {
    let labels = found(&[&[0.0], &[20.0], &[40.0], &[60.0]], &[(0, 1), (1, 2), (2, 3)], &[], 0.9, false);
    let clusters: std::collections::HashSet<i32> = labels.iter().map(|one| one.0).collect();
    assert!(clusters.len() > 1 && labels[0].0 != labels[3].0);
}

#[test]
fn of_two_copies_one_votes() {
    // The first dictionary has two copies; the partners of the others divide between them.
    let labels = found(&[&[0.0, 3.0], &[0.5], &[3.5]], &[(0, 2), (1, 3)], &[(1, 2), (0, 3)], 0.8, false);
    assert!(labels.iter().all(|one| one.0 == 0));
    assert_eq!(labels.iter().map(|one| one.1).sum::<u8>(), 3);
}

#[test]
fn signs_do_not_count_where_they_are_not_to() {
    let apart = found(&[&[0.0], &[181.0]], &[(0, 1)], &[], 0.9, false);
    assert_ne!(apart[0].0, apart[1].0);
    assert_eq!(found(&[&[0.0], &[181.0]], &[(0, 1)], &[], 0.9, true), [(0, 1, 1), (0, 1, -1)]);
}
