mod child;
mod damage;
mod faults;
mod kill;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::conformance::{self, Harness};
use super::{Inbox, Memory, Opened, Policy, Settings};
use crate::kernel::clock::{Clock, UnixMs};

/// How long a test waits for what must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A folder of the test's own. The clock starts in 1970, so that times can be small numbers.
pub(super) fn settings(path: &Path, policy: Policy) -> Settings {
    Settings {
        lock_wait: PATIENCE,
        ..Settings::new(path.to_owned(), policy, Clock::system())
    }
}

struct OnDisk {
    scratch: TempDir,
    places: u32,
}

impl OnDisk {
    fn place(&self) -> PathBuf {
        self.scratch.path().join(self.places.to_string())
    }

    async fn open(&self, policy: Policy) -> (Inbox, Vec<Memory>) {
        let Opened {
            inbox,
            memories,
            cut,
        } = Inbox::open(settings(&self.place(), policy)).await.unwrap();
        assert_eq!(cut, None);
        (inbox, memories)
    }
}

impl Harness for OnDisk {
    async fn fresh(&mut self, policy: Policy) -> Inbox {
        self.places += 1;
        self.open(policy).await.0
    }

    async fn again(&mut self, inbox: Inbox, policy: Policy) -> (Inbox, Vec<Memory>) {
        drop(inbox);
        self.open(policy).await
    }
}

struct InMemory;

impl Harness for InMemory {
    async fn fresh(&mut self, policy: Policy) -> Inbox {
        Inbox::in_memory(policy)
    }

    async fn again(&mut self, inbox: Inbox, policy: Policy) -> (Inbox, Vec<Memory>) {
        let Inbox::Memory(memory) = inbox else {
            panic!("{inbox:?}");
        };
        let (memory, memories) = memory.restarted(policy, UnixMs(1_000));
        (Inbox::Memory(memory), memories)
    }
}

#[tokio::test]
async fn the_engine_on_disk_conforms() {
    let mut engine = OnDisk {
        scratch: tempfile::tempdir().unwrap(),
        places: 0,
    };
    conformance::all(&mut engine).await;
}

#[tokio::test]
async fn the_engine_in_memory_conforms() {
    conformance::all(&mut InMemory).await;
}
