//! Shards made apart, in any order, become the very files that one writer writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{append, settings, write};
use crate::error::Error;
use crate::shard::{Access, Dataset, DatasetWriter, Parts, Verify};

const ROWS: u64 = 22;
const SHARDS: usize = 5; // of 5 rows, the last of 2

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    fs::read_dir(folder).unwrap().map(entry).collect()
}

fn make(parts: &Parts, place: usize) {
    let (from, to) = (place as u64 * 5, ROWS.min(place as u64 * 5 + 5));
    let mut writer = parts.writer(place).unwrap();
    append(&mut writer, 3, from, to).unwrap();
    if to - from < 5 {
        writer.finish().unwrap();
    }
}

#[test]
fn shards_in_any_order_are_the_files_of_one_writer() {
    let whole = tempfile::tempdir().unwrap();
    write(whole.path(), 3, ROWS, 5);
    for order in [[0, 1, 2, 3, 4], [4, 2, 0, 3, 1], [1, 2, 3, 4, 0]] {
        let dir = tempfile::tempdir().unwrap();
        for (done, place) in order.into_iter().enumerate() {
            let parts = Parts::open(dir.path(), settings(3, 5), None).unwrap();
            assert_eq!(
                parts.there().unwrap(),
                (order[..done].iter().map(|&p| (p, if p == 4 { 2 } else { 5 })).collect(), false)
            );
            assert!(!parts.gather(SHARDS, &BTreeMap::new()).unwrap());
            make(&parts, place);
        }
        fs::write(dir.path().join(".shard-00001.safetensors.tmp"), "left by a kill").unwrap();
        let parts = Parts::open(dir.path(), settings(3, 5), None).unwrap();
        assert!(parts.gather(SHARDS, &BTreeMap::new()).unwrap());
        assert!(parts.gather(SHARDS, &BTreeMap::new()).unwrap());
        assert_eq!(files(dir.path()), files(whole.path()));
    }
}

#[test]
fn parts_go_on_from_a_writer() {
    let (whole, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(whole.path(), 3, ROWS, 5);
    let mut writer = DatasetWriter::open(dir.path(), settings(3, 5)).unwrap();
    append(&mut writer, 3, 0, 12).unwrap();
    drop(writer);
    let parts = Parts::open(dir.path(), settings(3, 5), None).unwrap();
    for place in [4, 3, 2] {
        make(&parts, place);
    }
    // One that opens the folder meanwhile deletes nothing.
    drop(DatasetWriter::open(dir.path(), settings(3, 5)).unwrap());
    assert!(parts.gather(SHARDS, &BTreeMap::new()).unwrap());
    assert_eq!(files(dir.path()), files(whole.path()));
}

#[test]
fn other_settings_are_refused_and_nothing_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    make(&Parts::open(dir.path(), settings(3, 5), None).unwrap(), 2);
    let before = files(dir.path());
    for (other, rows) in [(settings(3, 4), None), (settings(4, 5), None), (settings(3, 5), Some(6))] {
        assert!(matches!(Parts::open(dir.path(), other, rows), Err(Error::SettingsDiffer { .. })));
    }
    assert_eq!(files(dir.path()), before);
}

#[test]
fn a_shard_has_one_maker_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::open(dir.path(), settings(3, 5), None).unwrap();
    let first = parts.writer(1).unwrap();
    assert!(matches!(parts.writer(1), Err(Error::RunLocked(_))));
    drop(first);
    make(&parts, 1);
}

#[test]
fn a_short_shard_is_listed_as_the_last_alone() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::open(dir.path(), settings(3, 5), None).unwrap();
    make(&parts, 0);
    let mut writer = parts.writer(1).unwrap();
    append(&mut writer, 3, 5, 7).unwrap();
    writer.finish().unwrap();
    assert!(!parts.gather(SHARDS, &BTreeMap::new()).unwrap());
    assert_eq!(Dataset::open(dir.path(), Access::Pread, Verify::Once).unwrap().rows(), 5);
    assert!(parts.gather(2, &BTreeMap::new()).unwrap());
    assert_eq!(Dataset::open(dir.path(), Access::Pread, Verify::Once).unwrap().rows(), 7);
}

#[test]
fn blocks_divide_shards_of_so_many_rows() {
    for rows in [1, 7, 96, 4096, 65_537] {
        let manifest = settings(3, 100).empty().unwrap().with_shard_rows(rows);
        assert_eq!((manifest.shard_rows, rows % manifest.block_rows), (rows, 0));
    }
}
