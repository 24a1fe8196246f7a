//! A file that is written in whole blocks: each with one call, at an offset that its size divides.
//!
//! Where the system keeps files in pages as large as what was written at once (Linux 6.16 and later on ext4, earlier on
//! XFS), a block becomes one huge page, and a mapping of the file needs one entry of the processor's address cache for
//! what otherwise takes 512. Random rows are then read at 1.3 times the rate (docs/store.md). Elsewhere nothing changes.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Result, Seek, SeekFrom, Write};

/// Bytes of a block: a huge page of x86-64, and of Arm with pages of 4 KiB. Small in unit tests, whose shards are small.
pub const BLOCK_BYTES: usize = if cfg!(test) { 64 << 10 } else { 2 << 20 };

/// The file, and the bytes at its end that do not fill a block yet.
pub struct BlockFile<F = File> {
    file: F,
    /// Bytes in the file: whole blocks.
    written: u64,
    tail: Vec<u8>,
    /// Memory for the next tail.
    spare: Vec<u8>,
}

/// Bytes on their way to a file: whole blocks are written as soon as they are there.
pub struct BlockBatch<'a, F = File> {
    file: &'a F,
    /// Blocks that will be full, and those that were written.
    blocks: usize,
    done: usize,
    /// What waits for the end of its block, and its length, the tail's at first included.
    waiting: Vec<&'a [u8]>,
    bytes: usize,
    end: End,
}

/// What is left when a batch has ended.
pub struct End {
    blocks: usize,
    /// The bytes before the batch and how many there were; those of the batch follow, where they filled no block.
    tail: Vec<u8>,
    before: usize,
    /// The bytes behind the last block.
    rest: Vec<u8>,
}

impl<F> BlockFile<F> {
    /// An empty file that will begin with `head`.
    pub fn new(file: F, head: Vec<u8>) -> Self {
        Self { file, written: 0, tail: head, spare: Vec::new() }
    }

    /// Bytes that are in the file already, not waiting for their block.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Begins to append `bytes` bytes. After a failure, or without `keep` or `refuse`, the file is of no use.
    pub fn batch(&mut self, bytes: usize) -> BlockBatch<'_, F> {
        let mut rest = std::mem::take(&mut self.spare);
        rest.clear();
        let tail = std::mem::take(&mut self.tail);
        let before = tail.len();
        let blocks = (before + bytes) / BLOCK_BYTES;
        let end = End { blocks, tail, before, rest };
        BlockBatch { file: &self.file, blocks, done: 0, waiting: Vec::new(), bytes: before, end }
    }

    /// Makes what was appended part of the file.
    pub fn keep(&mut self, end: End) {
        self.written += (end.blocks * BLOCK_BYTES) as u64;
        (self.tail, self.spare) = if end.blocks == 0 { (end.tail, end.rest) } else { (end.rest, end.tail) };
    }
}

impl BlockFile {
    /// Takes back what was appended.
    pub fn refuse(&mut self, mut end: End) -> Result<()> {
        end.tail.truncate(end.before);
        (self.tail, self.spare) = (end.tail, end.rest);
        if end.blocks == 0 {
            return Ok(());
        }
        self.file.set_len(self.written)?;
        self.file.seek(SeekFrom::Start(self.written)).map(|_| ())
    }

    /// Writes everything, `last` behind what there is and `head` over the bytes that the file began with.
    pub fn finish(mut self, last: &[u8], head: &[u8]) -> Result<File> {
        let mut batch = self.batch(last.len());
        batch.push(last)?;
        let end = batch.end();
        self.keep(end);
        self.file.write_all(&self.tail)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(head)?;
        Ok(self.file)
    }
}

impl<'a, F> BlockBatch<'a, F>
where
    &'a F: Write,
{
    /// The file.
    pub fn file(&self) -> &'a F {
        self.file
    }

    /// Appends `piece`, which is written with the last byte of its block, or copied where the batch has none.
    pub fn push(&mut self, mut piece: &'a [u8]) -> Result<()> {
        while self.done < self.blocks && self.bytes + piece.len() >= BLOCK_BYTES {
            let (head, rest) = piece.split_at(BLOCK_BYTES - self.bytes);
            self.waiting.push(head);
            let tail = if self.done == 0 { &self.end.tail[..] } else { &[] };
            write_all(self.file, tail, &self.waiting)?;
            self.done += 1;
            self.waiting.clear();
            self.bytes = 0;
            piece = rest;
        }
        match (self.done == self.blocks, self.blocks) {
            (false, _) => self.waiting.push(piece),
            (true, 0) => self.end.tail.extend_from_slice(piece),
            (true, _) => self.end.rest.extend_from_slice(piece),
        }
        self.bytes += piece.len();
        Ok(())
    }

    /// Ends the batch, once everything was pushed.
    pub fn end(self) -> End {
        debug_assert_eq!(self.done, self.blocks, "blocks written of those that were announced");
        self.end
    }
}

/// Writes the slices, one after another, with as few calls as the system allows.
fn write_all(mut to: impl Write, first: &[u8], others: &[&[u8]]) -> Result<()> {
    let mut slices: Vec<IoSlice> = std::iter::once(&first).chain(others).map(|slice| IoSlice::new(slice)).collect();
    let mut left = &mut slices[..];
    // Empty slices at the front would make an empty write look like a full disk.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match to.write_vectored(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut left, n),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Keeps what was written and the lengths of the writes, of which none takes more than `most` bytes.
    struct Record {
        most: usize,
        seen: RefCell<(Vec<u8>, Vec<usize>)>,
    }

    impl Write for &Record {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }
        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Result<usize> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(self.most).collect();
            let mut seen = self.seen.borrow_mut();
            seen.0.extend(&all);
            seen.1.push(all.len());
            Ok(all.len())
        }
        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    fn record(most: usize) -> BlockFile<Record> {
        BlockFile::new(Record { most, seen: RefCell::default() }, vec![7; 512])
    }

    fn bytes(n: usize, seed: usize) -> Vec<u8> {
        (0..n).map(|i| (((i + seed) * 2_654_435_761) >> 7) as u8).collect()
    }

    #[test]
    fn every_write_is_a_whole_block_at_a_multiple_of_its_size_whatever_is_appended() {
        let mut file = record(usize::MAX);
        let mut expected = vec![7; 512];
        for (i, n) in [0, 1, 100, BLOCK_BYTES - 613, 5, BLOCK_BYTES, 3 * BLOCK_BYTES + 17, 0, 2].into_iter().enumerate()
        {
            let data = bytes(n, i);
            let mut batch = file.batch(n);
            data.chunks(1 + n / 3).for_each(|piece| batch.push(piece).unwrap());
            let end = batch.end();
            file.keep(end);
            expected.extend(&data);
            let (written, lengths) = &*file.file.seen.borrow();
            assert!(lengths.iter().all(|&n| n == BLOCK_BYTES), "{lengths:?}");
            assert_eq!(written.len(), expected.len() / BLOCK_BYTES * BLOCK_BYTES);
            assert_eq!(written.len() as u64, file.written());
            assert!(expected.starts_with(written) && expected[written.len()..] == file.tail);
        }
    }

    #[test]
    fn writes_that_are_cut_short_go_on_where_they_stopped() {
        let mut file = record(1000);
        let data = bytes(2 * BLOCK_BYTES + 3, 0);
        let mut batch = file.batch(data.len());
        data.chunks(777).for_each(|piece| batch.push(piece).unwrap());
        let end = batch.end();
        file.keep(end);
        let expected = [vec![7; 512], data].concat();
        assert!(file.file.seen.borrow().0 == expected[..2 * BLOCK_BYTES]);
        assert!(file.tail == expected[2 * BLOCK_BYTES..]);
    }

    #[test]
    fn a_refused_batch_is_cut_off_and_the_head_comes_last() {
        for refused in [10, BLOCK_BYTES, 5 * BLOCK_BYTES] {
            let mut file = BlockFile::new(tempfile::tempfile().unwrap(), vec![0; 512]);
            let mut expected = b"head".repeat(128);
            for i in 0..4 {
                let (data, bad) = (bytes(BLOCK_BYTES * i / 2 + 1, i), bytes(refused, 9));
                let mut batch = file.batch(bad.len());
                batch.push(&bad).unwrap();
                let end = batch.end();
                file.refuse(end).unwrap();
                let mut batch = file.batch(data.len());
                batch.push(&data).unwrap();
                let end = batch.end();
                file.keep(end);
                expected.extend(data);
            }
            let last = bytes(2 * BLOCK_BYTES, 5);
            let mut done = file.finish(&last, &expected[..512]).unwrap();
            expected.extend(last);
            let mut found = Vec::new();
            done.seek(SeekFrom::Start(0)).unwrap();
            std::io::Read::read_to_end(&mut done, &mut found).unwrap();
            assert!(found == expected, "{refused}");
        }
    }
}
