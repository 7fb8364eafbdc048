//! A journal that is torn, flipped or full of holes, and what is left of the inbox.

use std::fs;
use std::path::{Path, PathBuf};

use super::settings;
use crate::webhook::inbox::conformance::event;
use crate::webhook::inbox::journal::{self, JournalError};
use crate::webhook::inbox::{Cut, EntryId, Inbox, Opened, Policy};

const APPENDS: usize = 20;

/// An inbox with some entries, each in a commit of its own, closed in order.
async fn filled(folder: &Path) -> Vec<EntryId> {
    let inbox = Inbox::open(settings(folder, Policy::default()));
    let inbox = inbox.await.unwrap().inbox;
    let mut ids = Vec::new();
    for n in 0..APPENDS {
        let kept = event("billing", &format!("evt_{n}"), &[b'x'; 300]);
        ids.push(inbox.append(kept, Vec::new()).await.unwrap());
    }
    inbox.release().await;
    ids
}

fn journal_of(folder: &Path) -> PathBuf {
    let rows = fs::read_dir(folder.join("rows")).unwrap();
    let mut journals: Vec<PathBuf> = rows.map(|file| file.unwrap().path()).collect();
    journals.retain(|path| path.extension().is_some_and(|e| e == "jnl"));
    assert_eq!(journals.len(), 1);
    journals.swap_remove(0)
}

/// The journal without the zeros behind what was written.
fn written(journal: &Path) -> Vec<u8> {
    let mut bytes = fs::read(journal).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes.truncate(end + 1);
    bytes
}

/// Opens the folder with this journal; says which of `ids` are there and what was cut.
async fn reopened(folder: &Path, journal: &[u8], ids: &[EntryId]) -> (Vec<EntryId>, Option<Cut>) {
    fs::write(journal_of(folder), journal).unwrap();
    let opened = Inbox::open(settings(folder, Policy::default())).await;
    let Opened { inbox, cut, .. } = opened.unwrap();
    let mut found = Vec::new();
    for id in ids {
        if let Some(shown) = inbox.show(*id).await.unwrap() {
            assert_eq!(shown.event.body, [b'x'; 300].as_slice());
            found.push(*id);
        }
    }
    // It goes on from there, and stays that way.
    let after = inbox.append(event("billing", "after", b"{}"), Vec::new());
    let after = after.await.unwrap();
    drop(inbox);
    let opened = Inbox::open(settings(folder, Policy::default())).await;
    let Opened {
        inbox, cut: none, ..
    } = opened.unwrap();
    assert_eq!(none, None);
    assert!(inbox.show(after).await.unwrap().is_some());
    inbox.release().await;
    (found, cut)
}

#[tokio::test]
async fn a_torn_last_commit_is_cut_off_and_what_was_before_it_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let ids = filled(scratch.path()).await;
    let whole = written(&journal_of(scratch.path()));
    for torn in [1, 12, 13, 100, 200, 250, 300, 350, 400, 500] {
        let journal = &whole[..whole.len() - torn];
        let (found, cut) = reopened(scratch.path(), journal, &ids).await;
        assert_eq!(found, ids[..APPENDS - 1], "{torn} bytes torn off");
        let cut = cut.unwrap();
        let kept = fs::read(&cut.kept_at).unwrap();
        assert_eq!(u64::try_from(kept.len()).unwrap(), cut.bytes);
        assert!(journal.ends_with(&kept) && !kept.is_empty());
    }
    let files = fs::read_dir(scratch.path()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let cuts = names.filter(|name| name.starts_with("cut-")).count();
    assert!((1..=8).contains(&cuts), "{cuts} are kept");
}

#[tokio::test]
async fn a_flipped_bit_costs_what_is_behind_it_and_nothing_before() {
    let scratch = tempfile::tempdir().unwrap();
    let ids = filled(scratch.path()).await;
    let whole = written(&journal_of(scratch.path()));
    let mut before = APPENDS;
    for from_end in [1, 5, 20, 100, 400, 1_500, 5_000] {
        let mut journal = whole.clone();
        let at = journal.len() - from_end;
        journal[at] ^= 0x20;
        let (found, cut) = reopened(scratch.path(), &journal, &ids).await;
        assert!(found.len() < before || from_end < 1_000, "{from_end}");
        before = found.len();
        assert_eq!(found, ids[..before]);
        assert!(cut.unwrap().bytes >= u64::try_from(from_end).unwrap());
    }
    assert!(
        before > 0 && before < APPENDS - 4,
        "{before} left at the end"
    );
}

#[tokio::test]
async fn pages_that_never_reached_the_disk_are_a_torn_end() {
    let scratch = tempfile::tempdir().unwrap();
    let ids = filled(scratch.path()).await;
    let mut journal = written(&journal_of(scratch.path()));
    // The last page is there, the one before it is not.
    let end = journal.len() - 40;
    journal[end - 300..end].fill(0);
    let (found, cut) = reopened(scratch.path(), &journal, &ids).await;
    assert_eq!(found, ids[..APPENDS - 1]);
    assert!(cut.is_some());
}

#[tokio::test]
async fn damage_in_an_earlier_journal_is_the_operators_decision() {
    let scratch = tempfile::tempdir().unwrap();
    filled(scratch.path()).await;
    let whole = written(&journal_of(scratch.path()));
    let rows = tempfile::tempdir().unwrap();
    let earlier = rows.path().join("0.jnl");
    fs::write(rows.path().join("1.jnl"), &whole).unwrap();
    fs::write(&earlier, &whole).unwrap();
    assert_eq!(journal::settle(rows.path(), rows.path()).unwrap(), None);
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&earlier, &damaged).unwrap();
    let refused = journal::settle(rows.path(), rows.path()).unwrap_err();
    let JournalError::Damaged { journal, position } = refused else {
        panic!("{refused}");
    };
    assert_eq!(journal, earlier);
    assert!(position > 0 && position <= u64::try_from(middle).unwrap());
    assert_eq!(
        fs::read(&earlier).unwrap(),
        damaged,
        "nothing is repaired in silence"
    );
}
