"""The store's promises at full size (`make soak`): tries each, prints a table, exits 1 where one is broken.

Fault injection is real: SIGKILL, truncated and flipped files, resource limits, a full tmpfs (where this process may
mount one), system calls traced. With `--write` the table replaces the one in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))

import store_trials as trials  # noqa: E402 (found through the line above)
from sparsecode import machine  # noqa: E402
from sparsecode.errors import ShardTruncated  # noqa: E402
from sparsecode.store import Dataset  # noqa: E402

Trial = Callable[[Path], str]
TRIALS: list[tuple[str, str, Trial]] = []


def trial(number: str, tried: str) -> Callable[[Trial], Trial]:
    """Adds a trial: it gets an empty folder and returns what happened, or fails with AssertionError."""

    def add(function: Trial) -> Trial:
        TRIALS.append((number, tried, function))
        return function

    return add


@trial("1", "a shard of 712 bytes cut at every byte, mapped and read by system calls")
def truncation(folder: Path) -> str:
    trials.write_small(folder / "x")
    shard = folder / "x" / "shard-00001.safetensors"
    whole = shard.read_bytes()
    named = 0
    for cut in range(len(whole)):
        shard.write_bytes(whole[:cut])
        for access in trials.ACCESS:
            try:
                Dataset(folder / "x", access=access)
            except ShardTruncated:
                named += 1
    assert named == 2 * len(whole), named
    return f"{named} of {2 * len(whole)} `ShardTruncated`"


@trial("2", "10,000 seeded bit flips in shards and manifest")
def flips(folder: Path) -> str:
    noticed = trials.flip_bits(trials.write_small(folder / "x").path, 10_000, seed=1)
    assert noticed == 10_000, noticed
    return f"{noticed} of 10,000 `ShardCorrupt` before a row"


@trial("6", "1,000,000 seeded mutations of a header")
def mutations(_: Path) -> str:
    command = ["cargo", "test", "--quiet", "--lib", "mutated_headers", "--", "--nocapture"]
    environment = os.environ | {"SPARSECODE_MUTATIONS": "1000000"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found = re.search(r"1000000 mutations in ([\d.]+) s: (\d+) accepted", done.stdout)
    assert found, done.stdout
    return f"no panic, {found[1]} s; {int(found[2]):,} accepted, all by the safetensors crate too"


@trial("8", "30,000 rows with 1 and 2 threads and 4 batch sizes")
def same_bytes(_: Path) -> str:
    return pytest("tests/store/test_writer.py", "the_same_rows_give_the_same_bytes", "byte-identical files")


@trial("10", "200 SIGKILLs of a writer at random moments, each resumed")
def kills(folder: Path) -> str:
    struck = trials.kill_writers(folder, kills=200, seed=2)
    return f"{struck} kills, every dataset byte-equal to an unbroken one, no file left over"


@trial("11", "abort before and after every step of every commit of a dataset")
def aborts(_: Path) -> str:
    command = ["cargo", "test", "--quiet", "--lib", "after_a_crash_at_any_step"]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return "old state or new, never a mixture; the next writer ends with the same bytes"


@trial("13", "system calls of a writer under strace")
def order(_: Path) -> str:
    if shutil.which("strace") is None:
        return "not tried: no strace here"
    return pytest(
        "tests/store/test_writer_crash.py", "the_file_is_safe", "fsync(tmp) < rename < fsync(dir) < manifest, each time"
    )


@trial("14", "a tmpfs of 48 KB that fills up, then grows; a file size limit")
def full_disk(folder: Path) -> str:
    trials.fill_disk(folder / "limited")
    disk = folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(disk)], capture_output=True).returncode:
        return "file size limit: `OutOfSpace`, nothing left over, resumed (no tmpfs: may not mount here)"
    try:
        before, _ = trials.fill_disk(
            disk / "x",
            limit=lambda: None,
            relieve=lambda: subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True),
        )
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert before > 0
    return f"`OutOfSpace` with {before} rows safe, nothing half-visible, resumed when there was room"


@trial("16", "two writers; the first killed")
def locks(_: Path) -> str:
    return pytest("tests/store/test_writer_crash.py", "killed_writer_frees", "`RunLocked`, then free")


@trial("17", "1, 2, 4 threads x prefetch 0, 1, 8 x mapped and read, both orders")
def orders(_: Path) -> str:
    return pytest("tests/store/test_stream.py", "order_is_pinned", "one order, equal to the pinned digest")


@trial("18", "resume at every row of 1,000, both orders")
def resumes(_: Path) -> str:
    return pytest("tests/store/test_stream.py", "resuming_at_every_row", "the exact rest, across epochs")


@trial("19", "world sizes 1, 2, 3, 4, 6; lists of shards by hypothesis")
def ranks(_: Path) -> str:
    return pytest("tests/store/test_stream.py", "ranks or permuted", "the same global batches; always a permutation")


@trial("20", "eight readers, one killed, 20 times")
def readers(folder: Path) -> str:
    for i in range(20):
        (folder / str(i)).mkdir()
        digests = trials.kill_readers(folder / str(i), readers=8, batches=300)
        assert len(set(digests)) == 1
    return "equal digests for the other seven, each time"


@trial("21", "a file truncated under readers that read and that map")
def under_reader(_: Path) -> str:
    return pytest(
        "tests/store/test_dataset_damage.py",
        "truncated_while or became_shorter",
        "`ShardTruncated`; see below for mmap",
    )


@trial("22", "2 GB streamed, both orders; 1,000 opens; Ctrl-C")
def memory(folder: Path) -> str:
    growth = trials.stream_growth(folder, pieces=128)
    assert max(growth.values()) < 64 << 20, growth
    pytest("tests/store/test_stream.py", "descriptors or ctrl_c", "")
    text = ", ".join(f"{mode} {grown / (1 << 20):.0f} MB" for mode, grown in growth.items())
    return f"anonymous memory grew by: {text}; descriptors flat; stopped within 1 s"


@trial("23", "fork and spawn, DataLoader workers")
def workers(_: Path) -> str:
    return pytest("tests/store/test_stream.py", "workers or forked or spawned", "the same rows, no hang in 25 forks")


@trial("31, 32", "1 to 4 processes train a sweep; 30 SIGKILLs of one at random moments, resumed by others")
def killed_ranks(_: Path) -> str:
    os.environ["SPARSECODE_KILLS"] = "30"
    return pytest("tests/pipeline/test_ranks.py", "", "the bytes of one process, no process left over")


@trial("33, 34", "a harvest in 1, 2, 3 and 7 parts, in any order and at once, one killed 20 times")
def parts(_: Path) -> str:
    os.environ["SPARSECODE_KILLS"] = "20"
    return pytest("tests/pipeline/test_harvest.py tests/store/test_parts.py", "", "the bytes of the sequential harvest")


@trial(
    "3-5, 7, 9, 15, 27, 28", "swapped, stale, zeroed and hostile files, old fixtures, NaN, read-only folders, pickles"
)
def rest(_: Path) -> str:
    return pytest(
        "tests/store/test_dataset_damage.py tests/store/test_writer.py tests/store/test_writer_crash.py",
        "",
        "each named",
    )


def pytest(files: str, chosen: str, outcome: str) -> str:
    """Runs tests whose fast form is the full one."""
    command = [sys.executable, "-m", "pytest", "-q", *files.split(), *(["-k", chosen] if chosen else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    return outcome


def main() -> int:
    """Tries everything; 0 if every promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    parser.add_argument("--only", help="numbers of the promises to try, with commas")
    arguments = parser.parse_args()
    warnings.simplefilter(
        "ignore", DeprecationWarning
    )  # os.fork beside torch's idle threads: these children do not use torch's
    lines = ["| Promise | Tried | Happened | Seconds |", "| -- | -- | -- | -- |"]
    failed = 0
    for number, tried, function in TRIALS:
        if arguments.only and number not in arguments.only.split(","):
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                happened = function(Path(folder))
            except (AssertionError, subprocess.SubprocessError) as error:
                happened, failed = f"FAILED: {str(error)[-300:]}".replace("\n", " "), failed + 1
        lines.append(f"| {number} | {tried} | {happened} | {time.monotonic() - start:.0f} |")
        print(lines[-1], flush=True)
    table = "\n".join(lines)
    if arguments.write:
        page = ROOT / "docs" / "reliability.md"
        begin, end = "<!-- table: make soak -->\n\n", "<!-- end of table -->"
        text = page.read_text()
        where = f"Tried on {machine.processor()}, {machine.cores()} cores, {machine.describe()['system']}.\n\n"
        head, tail = text.split(begin)[0], text.split(end)[1]
        page.write_text(f"{head}{begin}{where}{table}\n\n{end}{tail}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
