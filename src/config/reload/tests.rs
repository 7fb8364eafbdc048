//! A running configuration under changing files: real files, no waiting but for a condition.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Outcome, ReloadStatus, Reloader, watch};
use crate::config::tests::SECRETS;
use crate::config::{Config, ConfigSource, Env};
use crate::kernel::clock::{Clock, UnixMs};

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("maitred-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, text: &str) -> PathBuf {
        let path = self.0.join("maitred.toml");
        // As editors do it: beside it, then renamed over it.
        let beside = self.0.join("maitred.toml.new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_dir_all(&self.0);
    }
}

fn file(more: &str) -> String {
    format!(
        "[tls]\ncertificates = [{{ chain = \"c.pem\", key = \"k.pem\" }}]\n\
         [upstreams.api]\nendpoints = [\"127.0.0.1:1\"]\n{more}"
    )
}

fn source(path: PathBuf) -> ConfigSource {
    ConfigSource {
        path: Some(path),
        env: SECRETS.iter().copied().collect::<Env>(),
    }
}

fn reloader(directory: &Directory) -> Reloader {
    let source = source(directory.write(&file("")));
    let running = source.load().unwrap_or_else(|e| panic!("{e}"));
    let (clock, _dial) = Clock::manual(UnixMs(1_000));
    let status = ReloadStatus::started(&running, UnixMs(0));
    Reloader::new(source, running, status, clock)
}

#[test]
fn a_bad_file_leaves_the_running_configuration_alone() {
    let directory = Directory::new("bad");
    let mut reloader = reloader(&directory);
    let before = reloader.status.load().digest.clone();
    directory.write(&file(
        "[cors]\norigns = []\n[guard]\nheader_count_max = 1\n",
    ));
    let outcome = reloader.reload(&|_| panic!("a bad configuration was applied"));
    assert_eq!(outcome, Outcome::Kept);
    let status = reloader.status.load();
    assert_eq!(status.digest, before);
    assert_eq!(status.loaded_at, UnixMs(0));
    assert_eq!(status.last_errors.len(), 2, "{:?}", status.last_errors);
    assert!(status.last_errors[0].contains("maitred.toml:6:1: cors.origns: unknown key"));
}

#[test]
fn what_apply_refuses_is_not_running() {
    let directory = Directory::new("refused");
    let mut reloader = reloader(&directory);
    directory.write(&file("[cors]\nmax_age_s = 5\n"));
    let outcome = reloader.reload(&|_| Err(vec!["c.pem is not there".into()]));
    assert_eq!(outcome, Outcome::Kept);
    assert_eq!(reloader.running.cors.max_age_s, 600);
    assert_eq!(reloader.status.load().last_errors, ["c.pem is not there"]);
}

#[test]
fn a_changed_address_waits_for_a_restart_and_the_rest_does_not() {
    let directory = Directory::new("restart");
    let mut reloader = reloader(&directory);
    let more = "[cors]\nmax_age_s = 5\n[listeners.https]\naddress = \"127.0.0.1:1\"\n\
                connections_max = 300\n";
    directory.write(&file(more));
    let seen = Mutex::new(None);
    let outcome = reloader.reload(&|config: Config| {
        *seen.lock().unwrap() = Some(config);
        Ok(())
    });
    assert_eq!(outcome, Outcome::Replaced);
    let config = seen.lock().unwrap().take().unwrap();
    assert_eq!(config.cors.max_age_s, 5);
    let (https, _) = config.https.unwrap();
    assert_eq!(https.address.port(), 8443);
    assert_eq!(https.connections_max, 300);
    let status = reloader.status.load();
    assert_eq!(status.needs_restart, ["listeners.https.address"]);
    assert_eq!(status.loaded_at, UnixMs(1_000));
}

#[tokio::test]
async fn a_saved_file_is_applied_and_a_bad_one_in_between_is_not() {
    let directory = Directory::new("watch");
    let reloader = reloader(&directory);
    let status = reloader.status.clone();
    let (tell, mut applied) = mpsc::channel(8);
    let apply = move |config: Config| {
        tell.try_send(config.cors.max_age_s)
            .map_err(|e| vec![e.to_string()])
    };
    let story = async {
        tokio::task::yield_now().await;
        directory.write(&file("[cors]\nmax_age_s = \"long\"\n"));
        while status.load().last_errors.is_empty() {
            tokio::task::yield_now().await;
        }
        directory.write(&file("[cors]\nmax_age_s = 7\n"));
        applied.recv().await
    };
    tokio::select! {
        biased;
        () = watch(reloader, apply, |_| {}) => panic!("the watcher gave up"),
        first = tokio::time::timeout(Duration::from_secs(30), story) => {
            assert_eq!(first.unwrap(), Some(7));
        }
    }
    assert!(status.load().last_errors.is_empty());
}

#[tokio::test]
async fn a_swapped_symlink_is_noticed() {
    let directory = Directory::new("symlink");
    // As Kubernetes mounts a ConfigMap: file → ..data/file, ..data → a directory per version.
    for (version, age) in [("v1", 1), ("v2", 2)] {
        std::fs::create_dir_all(directory.0.join(version)).unwrap();
        let text = file(&format!("[cors]\nmax_age_s = {age}\n"));
        std::fs::write(directory.0.join(version).join("maitred.toml"), text).unwrap();
    }
    let link = |version: &str| {
        std::os::unix::fs::symlink(version, directory.0.join("..tmp")).unwrap();
        std::fs::rename(directory.0.join("..tmp"), directory.0.join("..data")).unwrap();
    };
    link("v1");
    let path = directory.0.join("maitred.toml");
    std::os::unix::fs::symlink("..data/maitred.toml", &path).unwrap();
    let source = source(path);
    let running = source.load().unwrap_or_else(|e| panic!("{e}"));
    let status = ReloadStatus::started(&running, UnixMs(0));
    let reloader = Reloader::new(source, running, status, Clock::system());
    let (tell, mut applied) = mpsc::channel(8);
    let apply = move |config: Config| {
        tell.try_send(config.cors.max_age_s)
            .map_err(|e| vec![e.to_string()])
    };
    let story = async {
        // The watcher is polled first, so that it stands before the link is swapped.
        tokio::task::yield_now().await;
        link("v2");
        applied.recv().await
    };
    tokio::select! {
        biased;
        () = watch(reloader, apply, |_| {}) => panic!("the watcher gave up"),
        first = tokio::time::timeout(Duration::from_secs(30), story) => {
            assert_eq!(first.unwrap(), Some(2));
        }
    }
}
