//! Looks over the database's journals before the database does. fjall 3.1 cuts a journal at the first
//! byte it cannot parse and says nothing, refuses to open where a checksum is wrong, and believes
//! what the page cache shows of a file whose fsync has failed.
//!
//! So: the last journal is written anew up to the end of its last whole commit and fsynced, and what
//! was cut off is kept beside it and reported. A torn commit was never confirmed: a confirmed one is
//! whole before its fsync returns. Damage in an earlier journal is damage to confirmed data; that is
//! the operator's decision.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";
const KIND_MAX: u8 = 4;
/// Names of what was cut off begin so; the newest few are kept.
const CUT: &str = "cut-";
const CUTS_MAX: usize = 8;

/// What was cut off the end of the journal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cut {
    /// Where it is kept; may be deleted when nobody wants to look at it.
    pub kept_at: PathBuf,
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error("{journal} is damaged at byte {position}")]
    Damaged { journal: PathBuf, position: u64 },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Brings the journals of `database` into a state that it opens. `keep` is where cut bytes go.
pub(super) fn settle(database: &Path, keep: &Path) -> Result<Option<Cut>, JournalError> {
    let mut journals = journals(database)?;
    let Some((number, last)) = journals.pop() else {
        return Ok(None);
    };
    for (_, journal) in journals {
        let ends = whole_commits(&journal)?;
        if rest_of(&journal, ends)? > 0 {
            return Err(JournalError::Damaged {
                journal,
                position: ends,
            });
        }
    }
    let ends = whole_commits(&last)?;
    let bytes = rest_of(&last, ends)?;
    let cut = match bytes {
        0 => None,
        _ => {
            let kept_at = keep.join(format!("{CUT}{number}-{ends}"));
            copy(&last, ends, bytes, &kept_at)?;
            forget_old_cuts(keep)?;
            Some(Cut { kept_at, bytes })
        }
    };
    // In fresh pages, so that this fsync speaks of every byte, whatever became of an earlier one.
    let fresh = last.with_extension("fresh");
    copy(&last, 0, ends, &fresh)?;
    std::fs::rename(&fresh, &last)?;
    File::open(database)?.sync_all()?;
    Ok(cut)
}

/// By number, which is their order.
fn journals(database: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    let folder = match std::fs::read_dir(database) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for file in folder {
        let path = file?.path();
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|e| e == "jnl")) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Where the last whole commit ends.
fn whole_commits(journal: &Path) -> io::Result<u64> {
    let file = File::open(journal)?;
    let mut reader = Commits {
        left: file.metadata()?.len(),
        file: BufReader::with_capacity(1 << 20, file),
        scratch: Vec::new(),
    };
    let mut ends = 0;
    while let Some(bytes) = reader.commit()? {
        ends += bytes;
    }
    Ok(ends)
}

/// A process that is killed often leaves something each time.
fn forget_old_cuts(keep: &Path) -> io::Result<()> {
    let mut cuts = Vec::new();
    for file in std::fs::read_dir(keep)? {
        let file = file?;
        if file.file_name().to_string_lossy().starts_with(CUT) {
            cuts.push((file.metadata()?.modified()?, file.path()));
        }
    }
    cuts.sort();
    let too_many = cuts.len().saturating_sub(CUTS_MAX);
    for (_, path) in cuts.into_iter().take(too_many) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// Bytes from `position` to the last one that is not zero: a journal is longer than what was written.
fn rest_of(journal: &Path, position: u64) -> io::Result<u64> {
    let mut file = File::open(journal)?;
    file.seek(SeekFrom::Start(position))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut at, mut rest) = (0, 0);
    let mut chunk = vec![0; 1 << 16];
    loop {
        let read = reader.read(&mut chunk)?;
        if read == 0 {
            return Ok(rest);
        }
        let chunk = chunk.get(..read).unwrap_or_default();
        if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
            rest = at + count(last) + 1;
        }
        at += count(read);
    }
}

fn copy(from: &Path, position: u64, bytes: u64, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    source.seek(SeekFrom::Start(position))?;
    let mut target = BufWriter::with_capacity(1 << 20, File::create(to)?);
    io::copy(&mut source.take(bytes), &mut target)?;
    target.flush()?;
    target.get_ref().sync_all()
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Reads one commit after the other: a start with the number of items, the items, and an end with
/// their checksum.
struct Commits {
    file: BufReader<File>,
    left: u64,
    scratch: Vec<u8>,
}

impl Commits {
    /// Its bytes if it is whole.
    fn commit(&mut self) -> io::Result<Option<u64>> {
        let before = self.left;
        let Some([START, items @ .., _, _, _, _, _, _, _, _]) = self.take::<13>()? else {
            return Ok(None);
        };
        let mut hash = Xxh3::new();
        for _ in 0..u32::from_le_bytes(items) {
            if !self.item(&mut hash)? {
                return Ok(None);
            }
        }
        let Some([END, checksum @ .., t0, t1, t2, t3]) = self.take::<13>()? else {
            return Ok(None);
        };
        let same = checksum == hash.digest().to_le_bytes() && [t0, t1, t2, t3] == TRAILER;
        Ok(same.then_some(before - self.left))
    }

    fn item(&mut self, hash: &mut Xxh3) -> io::Result<bool> {
        let Some([tag]) = self.take::<1>()? else {
            return Ok(false);
        };
        hash.update(&[tag]);
        match tag {
            CLEAR => {
                let Some(keyspace) = self.take::<8>()? else {
                    return Ok(false);
                };
                hash.update(&keyspace);
                Ok(true)
            }
            ITEM => {
                // Kind, compression, keyspace (8), length of the key (2), of the value, and of the
                // value as it is written (4 each).
                let Some(head) = self.take::<20>()? else {
                    return Ok(false);
                };
                let [kind, _, _, _, _, _, _, _, _, _, k0, k1, _, _, _, _, v @ ..] = head;
                if kind > KIND_MAX {
                    return Ok(false);
                }
                hash.update(&head);
                let bytes =
                    u64::from(u16::from_le_bytes([k0, k1])) + u64::from(u32::from_le_bytes(v));
                self.hash_next(bytes, hash)
            }
            _ => Ok(false),
        }
    }

    fn hash_next(&mut self, bytes: u64, hash: &mut Xxh3) -> io::Result<bool> {
        if bytes > self.left {
            return Ok(false);
        }
        self.scratch.clear();
        let read = (&mut self.file)
            .take(bytes)
            .read_to_end(&mut self.scratch)?;
        self.left = self.left.saturating_sub(count(read));
        hash.update(&self.scratch);
        Ok(count(read) == bytes)
    }

    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.left < count(N) {
            return Ok(None);
        }
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.left -= count(N);
        Ok(Some(bytes))
    }
}
