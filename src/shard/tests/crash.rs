//! A process that dies after any step of a commit leaves the old state or the new one, and the next one goes on.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::{append, settings, write};
use crate::shard::commit::faults::DIE_AT;
use crate::shard::{Access, Dataset, DatasetWriter, Verify};

const FOLDER: &str = "SPARSECODE_TEST_FOLDER";
const ROWS: u64 = 20;
const SHARD_ROWS: usize = 8;

/// Not a test of its own: the child that the test below starts, and that dies at a step.
#[test]
fn child_that_writes() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let mut writer = DatasetWriter::open(Path::new(&folder), settings(3, SHARD_ROWS)).unwrap();
    let from = writer.rows();
    append(&mut writer, 3, from, ROWS).unwrap();
    writer.finish().unwrap();
}

fn run_child(folder: &Path, die_at: u64) -> bool {
    let name = "shard::tests::crash::child_that_writes";
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--test-threads=1"]).env(FOLDER, folder).env(DIE_AT, die_at.to_string());
    child.output().unwrap().status.success()
}

fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn after_a_crash_at_any_step_a_reader_sees_a_whole_state_and_a_writer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    write(&whole, 3, ROWS, SHARD_ROWS);
    let mut states = BTreeSet::new();
    let mut step = 0;
    loop {
        let folder = dir.path().join(step.to_string());
        let finished = run_child(&folder, step);
        // What a reader sees now: no dataset yet, or one of whole shards.
        if let Ok(dataset) = Dataset::open(&folder, Access::Mmap, Verify::Once) {
            let rows = dataset.rows();
            assert!(rows == ROWS || rows.is_multiple_of(SHARD_ROWS as u64), "step {step}: {rows}");
            assert!(dataset.bad_shards(1, &false.into()).is_empty());
            assert!(rows == ROWS || !dataset.manifest().complete, "step {step}");
            states.insert((rows, dataset.manifest().complete));
        } else {
            assert!(!folder.join("manifest.json").exists(), "step {step}");
        }
        // A writer that goes on ends with the same bytes and leaves nothing else.
        if !finished {
            assert!(run_child(&folder, u64::MAX), "step {step}");
        }
        assert_eq!(names(&folder), names(&whole), "step {step}");
        for name in names(&whole) {
            assert_eq!(std::fs::read(folder.join(&name)).unwrap(), std::fs::read(whole.join(&name)).unwrap());
        }
        if finished {
            break;
        }
        step += 1;
    }
    assert!(step >= 30, "only {step} steps");
    let expected = [(0, false), (8, false), (16, false), (20, true)];
    assert_eq!(states, expected.into_iter().collect());
}
