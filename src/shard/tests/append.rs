//! Large batches go into a shard in one pass, checked on their way: the same bytes as rows one by one, and no trace of a
//! batch that is refused.

use std::path::Path;

use super::settings;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::shard::growing::PARALLEL_BYTES;
use crate::shard::{Access, Dataset, DatasetWriter, Marks, NonFinite, Verify, WriterSettings};

/// A batch lies in several blocks of 1 MiB, and begins and ends within one.
const DIM: usize = 513;
const BATCH: usize = 3000;
/// Two batches and a part: the third batch of a shard goes into the next one too.
const SHARD_ROWS: usize = 7000;
const ROWS: usize = 5 * BATCH;

/// Rows as float16 that were float32; `bad` is put where a test wants it.
fn rows() -> (Vec<f32>, Vec<i32>) {
    let values = (0..ROWS * DIM).map(|i| ((i * 7919) % 2048) as f32 * 0.25 - 100.0).collect();
    (values, (0..ROWS as i32).collect())
}

fn plain(tokens: &[i32]) -> Marks<'_> {
    Marks { tokens, contexts: &[] }
}

fn bytes(values: &[f32], dtype: Dtype) -> Vec<u8> {
    let wide: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut out = vec![0; values.len() * dtype.size()];
    crate::stored::convert(crate::cpu::cpu().level, (Dtype::F32, &wide), (dtype, &mut out));
    out
}

fn write(folder: &Path, dtype: Dtype, batch: usize, threads: usize, non_finite: NonFinite, bad: Option<usize>) {
    write_to(folder, dtype, batch, WriterSettings { non_finite, threads, ..settings(DIM, SHARD_ROWS) }, bad);
}

fn write_to(folder: &Path, dtype: Dtype, batch: usize, settings: WriterSettings, bad: Option<usize>) {
    let (values, tokens) = rows();
    let non_finite = settings.non_finite;
    let mut writer = DatasetWriter::open(folder, settings).unwrap();
    for (values, tokens) in values.chunks(batch * DIM).zip(tokens.chunks(batch)) {
        let good = bytes(values, dtype);
        if let Some(bad) = bad.filter(|&bad| (tokens[0]..=tokens[tokens.len() - 1]).contains(&(bad as i32))) {
            let mut values = values.to_vec();
            let first = tokens[0] as usize;
            if non_finite == NonFinite::Drop {
                // One row more, which is dropped.
                values.splice((bad - first) * DIM..(bad - first) * DIM, vec![f32::NAN; DIM]);
                let more: Vec<i32> = [&tokens[..bad - first], &[-1], &tokens[bad - first..]].concat();
                writer.append(&bytes(&values, dtype), dtype, plain(&more)).unwrap();
                continue;
            }
            values[(bad - first) * DIM + DIM / 2] = 1e6;
            let refused = writer.append(&bytes(&values, dtype), dtype, plain(tokens));
            assert!(matches!(refused, Err(Error::NonFiniteActivation { row, .. }) if row == bad as u64), "{refused:?}");
        }
        writer.append(&good, dtype, plain(tokens)).unwrap();
    }
    writer.finish().unwrap();
}

fn shards(folder: &Path) -> Vec<Vec<u8>> {
    (0..ROWS.div_ceil(SHARD_ROWS))
        .map(|i| std::fs::read(folder.join(super::super::commit::shard_name(i))).unwrap())
        .collect()
}

fn manifest(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("manifest.json")).unwrap()
}

#[test]
fn large_batches_of_any_type_and_on_any_threads_give_the_files_of_small_ones() {
    const { assert!(BATCH * DIM * 2 >= PARALLEL_BYTES && 100 * DIM * 4 < PARALLEL_BYTES) };
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    write(&small, Dtype::F16, 100, 1, NonFinite::Error, None);
    for dtype in [Dtype::F16, Dtype::F32] {
        for threads in [1, 2] {
            let folder = dir.path().join(format!("{dtype:?}-{threads}"));
            write(&folder, dtype, BATCH, threads, NonFinite::Error, None);
            assert!(shards(&folder) == shards(&small) && manifest(&folder) == manifest(&small), "{dtype:?} {threads}");
        }
    }
}

#[test]
fn a_refused_batch_leaves_no_trace_wherever_its_bad_row_is() {
    let dir = tempfile::tempdir().unwrap();
    let clean = dir.path().join("clean");
    write(&clean, Dtype::F16, 100, 1, NonFinite::Error, None);
    // The first row of the dataset, the last of a batch, the middle of one that crosses into the next shard, the very last.
    for bad in [0, BATCH - 1, 2 * BATCH + 1500, ROWS - 1] {
        for (dtype, threads) in [(Dtype::F16, 1), (Dtype::F16, 2), (Dtype::F32, 1), (Dtype::F32, 2)] {
            for non_finite in [NonFinite::Error, NonFinite::Drop] {
                let folder = dir.path().join(format!("{bad}-{dtype:?}-{threads}-{non_finite:?}"));
                write(&folder, dtype, BATCH, threads, non_finite, Some(bad));
                assert!(shards(&folder) == shards(&clean), "{bad} {dtype:?} {threads} {non_finite:?}");
                assert_eq!(manifest(&folder) == manifest(&clean), non_finite == NonFinite::Error, "{bad}");
            }
        }
    }
}

#[test]
fn past_the_page_cache_the_files_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let cached = dir.path().join("cached");
    write(&cached, Dtype::F16, 100, 1, NonFinite::Error, None);
    for (i, (dtype, batch, bad)) in
        [(Dtype::F16, 100, None), (Dtype::F16, BATCH, None), (Dtype::F32, BATCH, None), (Dtype::F32, BATCH, Some(4000))]
            .into_iter()
            .enumerate()
    {
        let folder = dir.path().join(format!("direct-{i}"));
        let settings = WriterSettings { threads: 2, direct: true, ..settings(DIM, SHARD_ROWS) };
        write_to(&folder, dtype, batch, settings, bad);
        assert!(shards(&folder) == shards(&cached) && manifest(&folder) == manifest(&cached), "{i}");
    }
}

#[test]
fn rows_dropped_behind_the_end_of_a_shard_are_not_consumed_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, cut] = ["whole", "cut"].map(|name| dir.path().join(name));
    let settings = || WriterSettings { non_finite: NonFinite::Drop, ..settings(1, 8) };
    // Rows 5 and 12 of 20 are dropped: the first shard ends with row 8.
    let value = |row: usize| if [5, 12].contains(&row) { f32::NAN } else { row as f32 };
    let append = |writer: &mut DatasetWriter, from: usize, to: usize| {
        let values: Vec<f32> = (from..to).map(value).collect();
        let tokens: Vec<i32> = (from as i32..to as i32).collect();
        writer.append(&bytes(&values, Dtype::F32), Dtype::F32, plain(&tokens)).unwrap();
    };
    let mut writer = DatasetWriter::open(&whole, settings()).unwrap();
    append(&mut writer, 0, 20);
    assert_eq!((writer.rows(), writer.consumed()), (16, 18));
    writer.finish().unwrap();

    let mut writer = DatasetWriter::open(&cut, settings()).unwrap();
    append(&mut writer, 0, 14);
    drop(writer);
    let mut writer = DatasetWriter::open(&cut, settings()).unwrap();
    assert_eq!((writer.rows(), writer.consumed()), (8, 9));
    let from = writer.consumed() as usize;
    append(&mut writer, from, 20);
    writer.finish().unwrap();
    assert!(manifest(&cut) == manifest(&whole));
}

#[test]
fn contexts_come_back_with_their_rows_and_are_digested_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, cut] = ["whole", "cut"].map(|name| dir.path().join(name));
    let settings = || WriterSettings { contexts: true, non_finite: NonFinite::Drop, ..settings(1, 8) };
    // Shards of 4 to 5 rows, each with a context that goes on in the next; row 5 is dropped.
    let append = |writer: &mut DatasetWriter, from: usize, to: usize| {
        let values: Vec<f32> = (from..to).map(|row| if row == 5 { f32::NAN } else { row as f32 }).collect();
        let (tokens, contexts): (Vec<i32>, Vec<i32>) = (from as i32..to as i32).map(|row| (row, row / 3)).unzip();
        writer.append(&bytes(&values, Dtype::F32), Dtype::F32, Marks { tokens: &tokens, contexts: &contexts }).unwrap();
    };
    let mut writer = DatasetWriter::open(&whole, settings()).unwrap();
    append(&mut writer, 0, 20);
    writer.note_left_out([("padding".to_owned(), 7)].into());
    writer.finish().unwrap();
    let mut writer = DatasetWriter::open(&cut, settings()).unwrap();
    append(&mut writer, 0, 9);
    drop(writer);
    let mut writer = DatasetWriter::open(&cut, settings()).unwrap();
    let from = writer.consumed() as usize;
    assert!(from > 0);
    append(&mut writer, from, 20);
    writer.note_left_out([("padding".to_owned(), 7)].into());
    writer.finish().unwrap();
    assert_eq!(manifest(&whole), manifest(&cut));

    for access in [Access::Mmap, Access::Pread] {
        let dataset = Dataset::open(&cut, access, Verify::Once).unwrap();
        assert_eq!(dataset.manifest().left_out["padding"], 7);
        let expected: Vec<i32> = (0..20).filter(|&row| row != 5).map(|row| row / 3).collect();
        let mut found = vec![0; 19];
        dataset.contexts(&(0..19).collect::<Vec<i64>>(), &mut found).unwrap();
        assert_eq!(found, expected);
        let mut some = [0; 3];
        dataset.contexts(&[18, 0, 7], &mut some).unwrap();
        assert_eq!(some, [expected[18], expected[0], expected[7]]);
        assert!(dataset.contexts(&[19], &mut [0]).is_err() && dataset.contexts(&[-1], &mut [0]).is_err());
    }
    // The last four bytes of a shard are the number of its last row's context.
    let name = cut.join(super::super::commit::shard_name(1));
    let mut shard = std::fs::read(&name).unwrap();
    *shard.last_mut().unwrap() ^= 1;
    std::fs::write(&name, shard).unwrap();
    let dataset = Dataset::open(&cut, Access::Pread, Verify::Once).unwrap();
    assert_eq!(dataset.bad_shards(1, &false.into()).len(), 1);
    let mut all = vec![0; 19];
    let read = dataset.contexts(&(0..19).collect::<Vec<i64>>(), &mut all);
    assert!(matches!(read, Err(Error::ShardCorrupt { .. })));
    assert!(matches!(DatasetWriter::open(&cut, super::settings(1, 8)), Err(Error::SettingsDiffer { .. })));
}
