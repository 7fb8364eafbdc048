//! The published keys of one issuer: when to fetch them, how long to use them, and which of them may
//! check a token. How to reach the issuer is somebody else's affair.
//!
//! One fetch at a time, however many ask; between two fetches at least the cooldown, whatever key ids
//! arrive. Keys that are older than their time are used while a fetch is under way or the issuer is
//! away, for a day at most. A fetch runs as a task of its own: a client that hangs up cannot stop it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::KeysFrom;
use crate::kernel::clock::UnixMs;

/// Largest document that is read.
pub const JWKS_BYTES_MAX: usize = 64 * 1024;
/// Keys of a set beyond these are left out.
const KEYS_MAX: usize = 32;
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Keys are used this long without hearing from their issuer.
const STALE_MAX_MS: i64 = 24 * 3600 * 1000;
/// Cooldown while there are no keys at all, e.g. because the issuer starts after us.
const FIRST_COOLDOWN_MS: i64 = 1000;
/// 2048 bits in base64url.
const RSA_MODULUS_CHARS_MIN: usize = 342;

/// Gets a JWKS document; implemented where outgoing connections are known.
#[async_trait]
pub trait KeyFetch: Send + Sync {
    /// The document's bytes; the implementation reads no more than [`JWKS_BYTES_MAX`].
    async fn fetch(&self, from: &KeysFrom) -> Result<Bytes, FetchError>;
}

/// Why keys could not be fetched, for the log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// What is known of an issuer's keys at a moment.
#[derive(Debug, Default)]
pub struct Keys {
    keys: Vec<Key>,
    fetched_at: Option<UnixMs>,
    digest: [u8; 32],
    /// Changes whenever the keys do; what was verified under another one is verified again.
    pub generation: u64,
}

/// One published key, fit to check signatures.
#[derive(Clone)]
struct Key {
    id: String,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// The key named `id`, if it may be used with `algorithm`.
    #[must_use]
    pub fn find(&self, id: &str, algorithm: Algorithm) -> Option<&DecodingKey> {
        let fits = |key: &&Key| key.id == id && key.algorithms.contains(&algorithm);
        self.keys.iter().find(fits).map(|key| &key.key)
    }

    fn age_ms(&self, now: UnixMs) -> Option<i64> {
        self.fetched_at.map(|at| now.0.saturating_sub(at.0))
    }
}

/// The keys of one issuer, kept up to date.
pub struct KeySet {
    from: KeysFrom,
    ttl_ms: i64,
    cooldown_ms: i64,
    fetch: Arc<dyn KeyFetch>,
    keys: ArcSwap<Keys>,
    flight: Mutex<Flight>,
}

#[derive(Debug, Default)]
struct Flight {
    last_attempt: Option<UnixMs>,
    /// Closed by the fetching task when it ends; all who wait for keys hold a copy.
    landed: Option<watch::Receiver<()>>,
    last_error: Option<FetchError>,
}

impl KeySet {
    /// A set without keys; the first question fetches them.
    #[must_use]
    pub fn new(from: KeysFrom, ttl_s: u32, cooldown_s: u32, fetch: Arc<dyn KeyFetch>) -> Self {
        Self {
            from,
            ttl_ms: i64::from(ttl_s) * 1000,
            cooldown_ms: i64::from(cooldown_s) * 1000,
            fetch,
            keys: ArcSwap::from_pointee(Keys::default()),
            flight: Mutex::default(),
        }
    }

    /// The keys as they are, if they may still be used. Starts a fetch when it is time for one, and
    /// does not wait for it.
    #[must_use]
    pub fn usable(self: &Arc<Self>, now: UnixMs) -> Option<Arc<Keys>> {
        let keys = self.keys.load_full();
        let age_ms = keys.age_ms(now)?;
        if age_ms >= self.ttl_ms || age_ms < 0 {
            let _ = self.start_fetch(now);
        }
        (age_ms < self.ttl_ms.saturating_add(STALE_MAX_MS)).then_some(keys)
    }

    /// The keys after a fetch, or as they are when none may be made yet.
    pub async fn refreshed(self: &Arc<Self>, now: UnixMs) -> Option<Arc<Keys>> {
        if let Some(mut landed) = self.start_fetch(now) {
            // The only news is that the sender is gone.
            let _ = landed.changed().await;
        }
        self.usable(now)
    }

    /// Why the last fetch failed; `None` after a good one. For readiness and logs.
    #[must_use]
    pub fn last_error(&self) -> Option<FetchError> {
        self.flight().last_error.clone()
    }

    /// Joins the fetch that is under way or starts one; `None` when it is too early.
    fn start_fetch(self: &Arc<Self>, now: UnixMs) -> Option<watch::Receiver<()>> {
        let mut flight = self.flight();
        if let Some(landed) = flight
            .landed
            .clone()
            .filter(|landed| landed.has_changed().is_ok())
        {
            return Some(landed);
        }
        let empty = self.keys.load().fetched_at.is_none();
        let cooldown = if empty {
            self.cooldown_ms.min(FIRST_COOLDOWN_MS)
        } else {
            self.cooldown_ms
        };
        let since = flight.last_attempt.map(|at| now.0.saturating_sub(at.0));
        if since.is_some_and(|since| (0..cooldown).contains(&since)) {
            return None;
        }
        let (landing, landed) = watch::channel(());
        flight.last_attempt = Some(now);
        flight.landed = Some(landed.clone());
        let this = self.clone();
        tokio::spawn(async move {
            let error = this.fetch_once(now).await.err();
            this.flight().last_error = error;
            drop(landing);
        });
        Some(landed)
    }

    async fn fetch_once(&self, now: UnixMs) -> Result<(), FetchError> {
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.fetch.fetch(&self.from)).await;
        let document = fetched.map_err(|_| FetchError("no answer in time".into()))??;
        let old = self.keys.load();
        let digest = Sha256::digest(&document).into();
        let keys = parse(&document)?;
        let changed = old.digest != digest;
        let generation = old.generation + u64::from(changed);
        self.keys.store(Arc::new(Keys {
            keys,
            fetched_at: Some(now),
            digest,
            generation,
        }));
        Ok(())
    }

    fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySet")
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

/// The usable keys of a document. Keys of other kinds are left out, as RFC 7517 asks; a document
/// without any is an error, so that it does not replace good keys.
fn parse(document: &[u8]) -> Result<Vec<Key>, FetchError> {
    #[derive(serde::Deserialize)]
    struct Document {
        keys: Vec<serde_json::Value>,
    }
    if document.len() > JWKS_BYTES_MAX {
        return Err(FetchError(format!(
            "the key set is larger than {JWKS_BYTES_MAX} bytes"
        )));
    }
    let document: Document = serde_json::from_slice(document)
        .map_err(|error| FetchError(format!("the key set is not readable: {error}")))?;
    let keys: Vec<_> = document
        .keys
        .into_iter()
        .filter_map(key)
        .take(KEYS_MAX)
        .collect();
    if keys.is_empty() {
        return Err(FetchError("the key set has no key that we can use".into()));
    }
    Ok(keys)
}

fn key(value: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let common = &jwk.common;
    let for_signatures = common
        .public_key_use
        .as_ref()
        .is_none_or(|u| *u == PublicKeyUse::Signature)
        && common
            .key_operations
            .as_ref()
            .is_none_or(|ops| ops.contains(&KeyOperations::Verify));
    if !for_signatures {
        return None;
    }
    let mut algorithms = algorithms_of(&jwk)?;
    if let Some(named) = common.key_algorithm {
        let named = Algorithm::try_from(named).ok()?;
        algorithms.retain(|algorithm| *algorithm == named);
    }
    if algorithms.is_empty() {
        return None;
    }
    let id = common.key_id.clone()?;
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some(Key {
        id,
        algorithms,
        key,
    })
}

/// What a key of this kind may be used with. A shared secret has no place in a published set.
fn algorithms_of(jwk: &Jwk) -> Option<Vec<Algorithm>> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    if let AlgorithmParameters::EllipticCurve(params) = &jwk.algorithm {
        let known = [(EllipticCurve::P256, ES256), (EllipticCurve::P384, ES384)];
        let fits = known.into_iter().find(|(curve, _)| *curve == params.curve);
        return fits.map(|(_, algorithm)| vec![algorithm]);
    }
    if let AlgorithmParameters::RSA(params) = &jwk.algorithm {
        let long = params.n.len() >= RSA_MODULUS_CHARS_MIN;
        return long.then(|| vec![RS256, RS384, RS512, PS256, PS384, PS512]);
    }
    if let AlgorithmParameters::OctetKeyPair(params) = &jwk.algorithm {
        return (params.curve == EllipticCurve::Ed25519).then(|| vec![EdDSA]);
    }
    None
}
