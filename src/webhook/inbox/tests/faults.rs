//! A disk that fails or is full under a running inbox; see `faults.c`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::child::{self, CLIENTS, KEPT, REFUSED, Running};
use super::settings;
use crate::webhook::inbox::{EntryId, Inbox, Policy};

/// A C compiler is needed for the build already.
fn shim(scratch: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/webhook/inbox/tests/faults.c");
    let library = scratch.join("faults.so");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status()
        .unwrap();
    assert!(compiled.success());
    library
}

fn kept(line: &str) -> Option<EntryId> {
    let rest = line.strip_prefix(KEPT)?;
    let (id, _) = rest.split_once(' ').unwrap();
    Some(id.parse().unwrap())
}

/// Reads until `wanted`, noting everything that is confirmed.
fn until(child: &mut Running, confirmed: &mut BTreeSet<EntryId>, wanted: &str) -> String {
    loop {
        let line = child.line().unwrap();
        confirmed.extend(kept(&line));
        if line.starts_with(wanted) {
            return line;
        }
    }
}

/// Lets the disk fail, looks at what is said meanwhile, mends it, and looks at what is there.
async fn a_disk_that_fails(kind: &str, reason: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("inbox");
    let trigger = scratch.path().join("faults");
    let library = shim(scratch.path());
    let environment = [
        ("LD_PRELOAD", library.as_path()),
        ("FAULTS", &trigger),
        ("FAULTS_BELOW", &folder),
    ];
    let mut child = child::spawn(&folder, 0, &environment);
    let mut confirmed = BTreeSet::new();
    for _ in 0..3 {
        until(&mut child, &mut confirmed, KEPT);
        fs::write(scratch.path().join("new"), kind).unwrap();
        fs::rename(scratch.path().join("new"), &trigger).unwrap();
        // Who was confirmed before may say so after another one was refused, but not after it was
        // refused itself.
        let mut clients = BTreeSet::new();
        while clients.len() < CLIENTS {
            let refused = until(&mut child, &mut confirmed, REFUSED);
            assert!(refused.contains(reason), "{refused}");
            let client = refused.split(' ').nth(1).unwrap();
            clients.insert(client.to_owned());
        }
        for _ in 0..200 {
            let line = child.line().unwrap();
            assert!(!line.starts_with(KEPT), "{line} although the disk fails");
        }
        fs::remove_file(&trigger).unwrap();
        until(&mut child, &mut confirmed, KEPT);
    }
    for _ in 0..100 {
        until(&mut child, &mut confirmed, KEPT);
    }
    child.kill();
    while let Some(line) = child.line() {
        confirmed.extend(kept(&line));
    }
    let inbox = Inbox::open(settings(&folder, Policy::default())).await;
    let inbox = inbox.unwrap().inbox;
    for id in &confirmed {
        assert!(inbox.show(*id).await.unwrap().is_some(), "{id} is lost");
    }
    inbox.release().await;
}

#[tokio::test]
async fn after_a_failed_fsync_nothing_is_confirmed_until_the_disk_is_proven_again() {
    a_disk_that_fails("s", "error").await;
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_confirmed_and_with_space_it_goes_on() {
    a_disk_that_fails("f", "No space left").await;
}
