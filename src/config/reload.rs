//! Loads the configuration again while the process runs: on SIGHUP and when a file changes. The new one
//! is built whole, then handed over; on any error the running one stays.
//!
//! A key is live or takes effect at start only. When one of the latter changed, the rest is applied and
//! the key is reported. Open connections and streams do not notice a reload.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::schema::{self, Reload};
use super::tree::{Node, Value};
use super::{Config, ConfigSource};
use crate::kernel::clock::{Clock, UnixMs};

/// Silence after which a burst of changes counts as finished: an editor or a ConfigMap swap touches
/// several names.
const DEBOUNCE: Duration = Duration::from_millis(150);
/// However often a directory changes, e.g. because a log is written there, ours are looked at by then.
const DEBOUNCE_MAX: Duration = Duration::from_secs(2);

/// What is running and what became of the last attempt to replace it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReloadStatus {
    /// When the running configuration was loaded.
    pub loaded_at: UnixMs,
    /// Its digest.
    pub digest: String,
    /// Why the last attempt failed, one line each; blank where it did not.
    pub last_errors: Vec<String>,
    /// Keys whose new values wait for a restart.
    pub needs_restart: Vec<String>,
}

impl ReloadStatus {
    /// The state after `config` was loaded at start.
    #[must_use]
    pub fn started(config: &Config, now: UnixMs) -> Arc<ArcSwap<Self>> {
        Arc::new(ArcSwap::from_pointee(Self {
            loaded_at: now,
            digest: config.digest.clone(),
            last_errors: Vec::new(),
            needs_restart: Vec::new(),
        }))
    }
}

/// Replaces the running configuration, or keeps it.
pub struct Reloader {
    source: ConfigSource,
    running: Config,
    /// What the last attempt was made from; also where it was refused, because a file that is at
    /// fault may be mended.
    files: Vec<PathBuf>,
    /// Their contents before it was made.
    contents: Contents,
    status: Arc<ArcSwap<ReloadStatus>>,
    clock: Clock,
}

impl Reloader {
    /// `running` is what `source` gave at start. Changes of its files count from this moment.
    #[must_use]
    pub fn new(
        source: ConfigSource,
        running: Config,
        status: Arc<ArcSwap<ReloadStatus>>,
        clock: Clock,
    ) -> Self {
        let files = files(&running);
        Self {
            source,
            contents: Contents::of(&files),
            files,
            running,
            status,
            clock,
        }
    }

    /// Loads again and hands the result to `apply`, which may still refuse it, e.g. because a
    /// certificate cannot be read. Says whether it was replaced.
    pub fn reload(&mut self, apply: &impl Fn(Config) -> Result<(), Vec<String>>) -> Outcome {
        // Before they are read: what changes from now on may not be in it.
        self.contents = Contents::of(&self.files);
        let lines = |e: super::ConfigErrors| e.problems().iter().map(ToString::to_string).collect();
        let outcome = self.source.load().map_err(lines).and_then(|mut config| {
            let needs_restart = keep_started(&mut config, &self.running);
            self.files = files(&config);
            self.contents.add(&self.files);
            apply(config.clone())?;
            self.running = config;
            Ok(needs_restart)
        });
        match outcome {
            Ok(needs_restart) => self.replaced(needs_restart),
            Err(errors) => self.kept(errors),
        }
    }

    /// Whether a file differs from what the last attempt read.
    fn is_outdated(&mut self) -> bool {
        let now = Contents::of(&self.files);
        let outdated = now != self.contents;
        self.contents = now;
        outdated
    }

    fn replaced(&self, needs_restart: Vec<String>) -> Outcome {
        tracing::info!(config.digest = %self.running.digest, "configuration reloaded");
        for key in &needs_restart {
            tracing::warn!(config.key = %key, "changed, and takes effect at the next start");
        }
        self.status.store(Arc::new(ReloadStatus {
            loaded_at: self.clock.unix(),
            digest: self.running.digest.clone(),
            last_errors: Vec::new(),
            needs_restart,
        }));
        Outcome::Replaced
    }

    fn kept(&self, errors: Vec<String>) -> Outcome {
        for error in &errors {
            tracing::error!(config.error = %error, "configuration not reloaded");
        }
        let mut status = ReloadStatus::clone(&self.status.load());
        status.last_errors = errors;
        self.status.store(Arc::new(status));
        Outcome::Kept
    }
}

/// What a reload did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Replaced,
    Kept,
}

/// Reloads on SIGHUP and whenever a file that took part changes; `done` hears of every attempt. Runs
/// until it is dropped.
///
/// Loading blocks this task for the few milliseconds that reading some small files takes.
pub async fn watch(
    mut reloader: Reloader,
    apply: impl Fn(Config) -> Result<(), Vec<String>>,
    done: impl Fn(Outcome),
) {
    let mut hangup = signal(SignalKind::hangup())
        .inspect_err(|e| tracing::warn!(error = %e, "SIGHUP is not handled"))
        .ok();
    let (tell, mut changes) = mpsc::channel(1);
    let mut watched = Watched::new(tell);
    watched.follow(&reloader.files);
    let mut forced = false;
    loop {
        // A directory has other files too, and reading ours may look like a change.
        if forced || reloader.is_outdated() {
            done(reloader.reload(&apply));
            watched.follow(&reloader.files);
        }
        forced = tokio::select! {
            Some(()) = async { hangup.as_mut()?.recv().await } => true,
            Some(()) = changes.recv() => false,
            else => return,
        };
        if !forced {
            let quiet =
                async { while tokio::time::timeout(DEBOUNCE, changes.recv()).await.is_ok() {} };
            // Running out of time is as good: the rest of the burst comes as a change of its own.
            let _ = tokio::time::timeout(DEBOUNCE_MAX, quiet).await;
        }
    }
}

/// The directories of the files that took part. Directories and not files: an editor replaces a file,
/// and Kubernetes swaps a symlink beside it.
struct Watched {
    watcher: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
}

impl Watched {
    fn new(told: mpsc::Sender<()>) -> Self {
        let on_event = move |event: notify::Result<notify::Event>| {
            let is_read = event.is_ok_and(|e| matches!(e.kind, EventKind::Access(_)));
            if !is_read {
                // Full means that a change is announced already.
                let _already_told = told.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(on_event)
            .inspect_err(|e| tracing::warn!(error = %e, "files are not watched; use SIGHUP"));
        Self {
            watcher: watcher.ok(),
            directories: BTreeSet::new(),
        }
    }

    fn follow(&mut self, files: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for file in files {
            let directory = match file.parent() {
                Some(parent) if parent != Path::new("") => parent,
                Some(_) | None => Path::new("."),
            };
            if self.directories.contains(directory) {
                continue;
            }
            match watcher.watch(directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.directories.insert(directory.to_owned());
                }
                Err(e) => {
                    let directory = directory.display();
                    tracing::warn!(file.directory = %directory, error = %e, "not watched");
                }
            }
        }
    }
}

/// Everything that a configuration was made from: files, secrets, certificates.
fn files(config: &Config) -> Vec<PathBuf> {
    let mut files = config.files.clone();
    for pair in config.https.iter().flat_map(|(_, tls)| &tls.certificates) {
        files.extend([pair.chain.clone(), pair.key.clone()]);
    }
    files
}

/// A hash of every file's content. Unlike the configuration's digest it covers secrets, and never
/// leaves here.
#[derive(Default, Eq, PartialEq)]
struct Contents(BTreeMap<PathBuf, [u8; 32]>);

impl Contents {
    fn of(files: &[PathBuf]) -> Self {
        let mut contents = Self::default();
        contents.add(files);
        contents
    }

    /// Takes files in that are not known yet.
    fn add(&mut self, files: &[PathBuf]) {
        for file in files {
            let hash = || Sha256::digest(std::fs::read(file).unwrap_or_default()).into();
            self.0.entry(file.clone()).or_insert_with(hash);
        }
    }
}

/// Puts back what takes effect at start only; returns the keys of which that is true and that differ.
fn keep_started(config: &mut Config, running: &Config) -> Vec<String> {
    let differs = |key: &&String| config.restart_keys.get(*key) != running.restart_keys.get(*key);
    let all: BTreeSet<_> = config
        .restart_keys
        .keys()
        .chain(running.restart_keys.keys())
        .collect();
    let changed = all.into_iter().filter(differs).cloned().collect();
    config.environment = running.environment;
    config.https = match (config.https.take(), &running.https) {
        (Some((mut policy, mut tls)), Some((started, started_tls))) => {
            policy.address = started.address;
            tls.min_version = started_tls.min_version;
            Some((policy, tls))
        }
        (_, started) => started.clone(),
    };
    config.http = match (config.http.take(), &running.http) {
        (Some(mut http), Some(started)) => {
            http.listener.address = started.listener.address;
            if http.redirect_to_port.is_some() != started.redirect_to_port.is_some() {
                http.redirect_to_port = started.redirect_to_port;
            }
            Some(http)
        }
        (_, started) => started.clone(),
    };
    config.admin = running.admin;
    config.log = running.log.clone();
    config.threads = running.threads;
    config.upgrade_socket = running.upgrade_socket.clone();
    config.embedded_api = running.embedded_api.clone();
    config.cache.bytes_max = running.cache.bytes_max;
    config.cache.lock_timeout_ms = running.cache.lock_timeout_ms;
    config.drain = running.drain;
    config.replay = running.replay;
    config.inbox = running.inbox.clone();
    config.restart_keys = running.restart_keys.clone();
    changed
}

/// Every key that takes effect at start only, with its value as text.
pub(super) fn restart_keys(tree: &Node, root: &Json) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    leaves("", tree, &mut |path, node| {
        if let Some((_, Reload::Restart)) = schema::at(root, path) {
            found.insert(path.to_owned(), node.to_json().to_string());
        }
    });
    found
}

/// Calls `each` with every value that is not a table.
pub(super) fn leaves(path: &str, node: &Node, each: &mut impl FnMut(&str, &Node)) {
    match &node.value {
        Value::Table(table) => {
            for (key, node) in table {
                match path {
                    "" => leaves(key, node, each),
                    _ => leaves(&format!("{path}.{key}"), node, each),
                }
            }
        }
        Value::List(_)
        | Value::Text(_)
        | Value::Integer(_)
        | Value::Boolean(_)
        | Value::Other(_) => {
            each(path, node);
        }
    }
}

#[cfg(test)]
mod tests;
