//! The stream as a whole: the same rows whatever the threads, ranks, access and mode; errors where they belong.

#![allow(clippy::float_cmp)] // small whole numbers, exact

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::shard::commit::Durability;
use crate::shard::manifest::Provenance;
use crate::shard::{Access, Dataset, DatasetWriter, Marks, NonFinite, Verify, WriterSettings};

/// A dataset whose row r holds r in every dimension (as float32), in shards of `shard_rows`.
fn dataset(folder: &Path, rows: usize, dim: usize, shard_rows: usize) {
    let settings = WriterSettings {
        dim,
        dtype: Dtype::F32,
        contexts: false,
        provenance: Provenance::new(),
        shard_bytes: (shard_rows * (dim * 4 + 4)) as u64,
        non_finite: NonFinite::Error,
        durability: Durability::Process,
        threads: 1,
        direct: false,
    };
    let mut writer = DatasetWriter::open(folder, settings).unwrap();
    let data: Vec<u8> = (0..rows).flat_map(|r| (r as f32).to_le_bytes().repeat(dim)).collect();
    let tokens: Vec<i32> = (0..rows as i32).collect();
    writer.append(&data, Dtype::F32, Marks { tokens: &tokens, contexts: &[] }).unwrap();
    writer.finish().unwrap();
}

fn settings(rows: u64) -> Settings {
    Settings {
        batch_size: 16,
        seed: 3,
        rows: 0..rows,
        position: 0,
        mode: Mode::Exact,
        raw: false,
        mean: None,
        scale: 1.0,
        threads: 2,
        prefetch: 3,
        rank: 0,
        world_size: 1,
    }
}

fn open(dir: &TempDir, access: Access) -> Arc<Dataset> {
    Arc::new(Dataset::open(dir.path(), access, Verify::Once).unwrap())
}

fn take(stream: &mut Stream, batches: usize) -> Vec<u64> {
    let dim = stream.dim();
    (0..batches)
        .flat_map(|_| {
            let batch = stream.next_batch().unwrap();
            batch.values().chunks_exact(dim).map(|row| row[0] as u64).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn order_does_not_depend_on_threads_prefetch_or_access() {
    let dir = TempDir::new().unwrap();
    dataset(dir.path(), 1000, 3, 90);
    for mode in [Mode::Exact, Mode::Windowed { bytes: 3000 }] {
        let mut expected = None;
        for access in [Access::Mmap, Access::Pread] {
            for (threads, prefetch) in [(1, 0), (1, 1), (2, 1), (4, 8), (2, 8)] {
                let s = Settings { mode, threads, prefetch, ..settings(1000) };
                let rows = take(&mut Stream::new(open(&dir, access), s).unwrap(), 150);
                assert_eq!(
                    &rows,
                    expected.get_or_insert_with(|| rows.clone()),
                    "{mode:?} {access:?} {threads} {prefetch}"
                );
            }
        }
        let mut first = expected.unwrap()[..1000].to_vec();
        assert_ne!(first, (0..1000).collect::<Vec<_>>());
        first.sort_unstable();
        assert_eq!(first, (0..1000).collect::<Vec<_>>());
    }
}

#[test]
fn resuming_at_every_position_gives_the_rest() {
    let dir = TempDir::new().unwrap();
    dataset(dir.path(), 100, 2, 30);
    let data = open(&dir, Access::Mmap);
    for mode in [Mode::Exact, Mode::Windowed { bytes: 300 }] {
        let s = Settings { batch_size: 1, prefetch: 0, mode, ..settings(100) };
        let all = take(&mut Stream::new(Arc::clone(&data), s.clone()).unwrap(), 260);
        for position in 0..250 {
            let batch_size = 1 + position % 7;
            let resumed = Settings { position: position as u64, batch_size, ..s.clone() };
            let rows = take(&mut Stream::new(Arc::clone(&data), resumed).unwrap(), 1);
            assert_eq!(rows, all[position..position + batch_size]);
        }
    }
}

#[test]
fn ranks_take_turns_in_one_order() {
    let dir = TempDir::new().unwrap();
    dataset(dir.path(), 500, 2, 100);
    let data = open(&dir, Access::Mmap);
    let all = take(&mut Stream::new(Arc::clone(&data), settings(500)).unwrap(), 48);
    for world_size in [2, 3, 4, 6] {
        let mut ranks: Vec<_> = (0..world_size)
            .map(|rank| Stream::new(Arc::clone(&data), Settings { rank, world_size, ..settings(500) }).unwrap())
            .collect();
        let rows: Vec<u64> = (0..48).flat_map(|i| take(&mut ranks[i % world_size as usize], 1)).collect();
        assert_eq!(rows, all);
        assert!(ranks.iter().all(|rank| rank.position() == 48 * 16));
    }
}

#[test]
fn batches_that_span_many_windows_and_epochs_come_through() {
    let dir = TempDir::new().unwrap();
    dataset(dir.path(), 60, 2, 7);
    let data = open(&dir, Access::Mmap);
    let mut expected = None;
    for (threads, prefetch) in [(1, 0), (1, 1), (3, 2), (4, 9)] {
        for world_size in [1, 5] {
            let s = Settings { batch_size: 150, mode: Mode::Windowed { bytes: 1 }, threads, prefetch, ..settings(60) };
            let s = Settings { world_size, rank: world_size - 1, position: 150 * (5 - world_size), ..s };
            let rows = take(&mut Stream::new(Arc::clone(&data), s).unwrap(), 1);
            assert_eq!(&rows, expected.get_or_insert_with(|| rows.clone()), "{threads} {prefetch} {world_size}");
        }
    }
}

#[test]
fn a_range_is_streamed_alone_and_normalised() {
    let dir = TempDir::new().unwrap();
    dataset(dir.path(), 300, 2, 77);
    let mean = Some(vec![10.0, 20.0]);
    let s = Settings { rows: 50..210, batch_size: 160, mean, scale: 4.0, ..settings(0) };
    let mut stream = Stream::new(open(&dir, Access::Mmap), s).unwrap();
    let mut out = vec![0.0; 320];
    stream.next_into(&mut out).unwrap();
    let mut seen: Vec<f32> = out.chunks_exact(2).map(|row| row[0] * 4.0 + 10.0).collect();
    assert!(out.chunks_exact(2).all(|row| row[0] - row[1] == 2.5));
    seen.sort_by(f32::total_cmp);
    assert_eq!(seen, (50..210).map(|r| r as f32).collect::<Vec<_>>());
}

#[test]
fn a_corrupt_shard_stops_the_stream_before_its_first_row() {
    let dir = TempDir::new().unwrap();
    dataset(dir.path(), 1000, 4, 100);
    let path = dir.path().join("shard-00009.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    for (access, prefetch) in [(Access::Mmap, 3), (Access::Pread, 3), (Access::Mmap, 0)] {
        let mut stream = Stream::new(open(&dir, access), Settings { prefetch, ..settings(1000) }).unwrap();
        for _ in 0..3 {
            assert!(matches!(stream.next_batch(), Err(Error::ShardCorrupt { .. })));
        }
        assert_eq!(stream.position(), 0);
    }
}

#[test]
fn windows_before_a_corrupt_block_are_still_given_out() {
    let dir = TempDir::new().unwrap();
    dataset(dir.path(), 1000, 4, 100);
    let path = dir.path().join("shard-00004.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut counts = Vec::new();
    for (threads, prefetch) in [(1, 0), (1, 2), (4, 8)] {
        let mode = Mode::Windowed { bytes: 1600 };
        let s = Settings { batch_size: 10, mode, threads, prefetch, ..settings(1000) };
        let mut stream = Stream::new(open(&dir, Access::Mmap), s).unwrap();
        let mut rows = Vec::new();
        let error = loop {
            match stream.next_batch() {
                Ok(batch) => rows.extend(batch.values().chunks_exact(4).map(|row| row[0] as u64)),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::ShardCorrupt { .. }));
        assert!(rows.iter().all(|row| !(400..500).contains(row)));
        counts.push(rows);
    }
    assert!(counts.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn batches_outlive_their_stream_and_memory_is_used_again() {
    let dir = TempDir::new().unwrap();
    dataset(dir.path(), 100, 2, 100);
    let mut stream = Stream::new(open(&dir, Access::Mmap), Settings { prefetch: 0, ..settings(100) }).unwrap();
    let first = stream.next_batch().unwrap();
    let copy = first.values().to_vec();
    let second = stream.next_batch().unwrap();
    assert_ne!(first.values().as_ptr(), second.values().as_ptr());
    let address = second.values().as_ptr();
    drop(second);
    assert_eq!(stream.next_batch().unwrap().values().as_ptr(), address);
    drop(stream);
    assert_eq!(first.values(), copy);
}

#[test]
fn settings_that_cannot_work_are_named() {
    let dir = TempDir::new().unwrap();
    dataset(dir.path(), 100, 2, 100);
    let bad = [
        Settings { batch_size: 0, ..settings(100) },
        Settings { rows: 5..5, ..settings(100) },
        Settings { rows: 0..101, ..settings(100) },
        Settings { scale: 0.0, ..settings(100) },
        Settings { scale: f32::NAN, ..settings(100) },
        Settings { scale: 1e-42, ..settings(100) },
        Settings { mean: Some(vec![1.0]), ..settings(100) },
        Settings { raw: true, scale: 2.0, ..settings(100) },
        Settings { rank: 1, ..settings(100) },
        Settings { world_size: 0, ..settings(100) },
        Settings { position: u64::MAX, ..settings(100) },
        Settings { batch_size: usize::MAX, ..settings(100) },
        Settings { batch_size: 1 << 58, ..settings(100) },
    ];
    for s in bad {
        let result = Stream::new(open(&dir, Access::Mmap), s.clone());
        assert!(matches!(result, Err(Error::InvalidArgument(_))), "{s:?}");
    }
}

/// How far the windowed order is from uniform: the share of pairs of neighbours that come from one block is 1/W, not
/// 1/(number of blocks), and apart from that blocks and places are uniform.
#[test]
fn windowed_order_is_uniform_up_to_the_share_of_pairs_from_one_block() {
    let dir = TempDir::new().unwrap();
    let (rows, blocks, per_window) = (6400_u64, 64_u64, 8_u64);
    dataset(dir.path(), rows as usize, 2, 100);
    let data = open(&dir, Access::Mmap);
    assert_eq!(data.blocks() as u64, blocks);
    let order = Order::new(&data, 0..rows, 0, Mode::Windowed { bytes: per_window * 800 }).unwrap();
    let epochs = 100;
    let (mut same, mut first_blocks) = (0, vec![0_u64; blocks as usize]);
    for epoch in 0..epochs {
        let mut all = vec![0; rows as usize];
        order.rows(epoch * rows, &mut all);
        same += all.windows(2).filter(|pair| pair[0] / 100 == pair[1] / 100).count();
        all[..100].iter().for_each(|row| first_blocks[(row / 100) as usize] += 1);
    }
    let share = same as f64 / (epochs * (rows - 1)) as f64;
    let expected = 99.0 / 799.0;
    let deviation = (expected * (1.0 - expected) / (epochs * rows) as f64).sqrt();
    assert!((share - expected).abs() < 6.0 * deviation + 1.0 / rows as f64, "{share} {expected}");
    assert!(first_blocks.iter().all(|&count| count > 0), "a block is never early");
}
