//! Certificates that a provider signs with: fetched when a message names one that is not known yet,
//! believed only with a chain to an authority and a name under the provider's domain.
//!
//! Anybody can name a certificate. Therefore one fetch at a time, few a minute, a failure is
//! remembered for a while, and nothing is kept that does not chain. What is kept is used on when it
//! cannot be fetched again, for as long as its chain is good.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::egress;
use crate::kernel::clock::UnixMs;
use crate::webhook::refusal::Refusal;

/// Largest file that is read.
const PEM_BYTES_MAX: usize = 64 * 1024;
/// Certificates in it: the provider's own and those between it and an authority.
const CHAIN_MAX: usize = 6;
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a certificate is used before it is fetched again.
const TTL: Duration = Duration::from_secs(24 * 3_600);
/// How long a name that could not be fetched is not tried again.
const COOLDOWN: Duration = Duration::from_secs(60);
/// Fetches in one minute, whatever messages ask for.
const FETCHES_PER_MINUTE: usize = 6;
/// Names that are remembered, good and bad ones.
const NAMES_MAX: usize = 32;

/// How a certificate is had; a test hands in its own.
#[async_trait]
pub trait CertificateFetch: Send + Sync {
    /// The PEM text behind an https URL; no more than `bytes_max` of it.
    async fn fetch(&self, url: &str, bytes_max: usize, within: Duration) -> Result<Bytes, String>;
}

/// Fetches over the public internet.
#[must_use]
pub fn over_https() -> Arc<dyn CertificateFetch> {
    Arc::new(Https)
}

struct Https;

#[async_trait]
impl CertificateFetch for Https {
    async fn fetch(&self, url: &str, bytes_max: usize, within: Duration) -> Result<Bytes, String> {
        let body = egress::get(url, bytes_max, within).await;
        body.map_err(|error| error.to_string())
    }
}

/// The certificates of one provider.
pub(super) struct Certificates {
    fetch: Arc<dyn CertificateFetch>,
    anchors: Vec<TrustAnchor<'static>>,
    /// With a dot before it.
    domain: &'static str,
    known: Mutex<Known>,
    /// Held while fetching.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    names: HashMap<String, Entry>,
    /// When the last few fetches began.
    fetches: Vec<UnixMs>,
}

#[derive(Default)]
struct Entry {
    chain: Option<Arc<[CertificateDer<'static>]>>,
    tried_at: Option<UnixMs>,
    fetched_at: Option<UnixMs>,
}

/// What to do about a name.
enum Next {
    Use,
    /// Usable, and due to be fetched again.
    Refresh,
    Fetch,
    Wait,
}

impl Certificates {
    /// # Errors
    /// What is wrong with the authorities.
    pub(super) fn new(
        fetch: Arc<dyn CertificateFetch>,
        authorities: Option<&[u8]>,
        domain: &'static str,
    ) -> Result<Self, &'static str> {
        let anchors = match authorities {
            None => webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            Some(pem) => {
                let parsed = chain(pem).ok_or("not a PEM file of certificates")?;
                let anchor = |der| webpki::anchor_from_trusted_cert(der).map(|a| a.to_owned());
                let anchors: Result<Vec<_>, _> = parsed.iter().map(anchor).collect();
                anchors.map_err(|_| "a certificate that is no authority")?
            }
        };
        Ok(Self {
            fetch,
            anchors,
            domain,
            known: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// Has the certificate behind `url` at hand, or says why not.
    pub(super) async fn prepare(&self, url: &str, now: UnixMs) -> Result<(), Refusal> {
        let next = self.lock().next(url, now);
        let _turn = match next {
            Next::Use => return Ok(()),
            Next::Wait => return Err(Refusal::CertificateAway),
            // Whoever fetches it already does so for all.
            Next::Refresh => match self.turn.try_lock() {
                Ok(turn) => turn,
                Err(_) => return Ok(()),
            },
            Next::Fetch => self.turn.lock().await,
        };
        // Somebody may have fetched it while this one waited for its turn.
        let next = self.lock().next(url, now);
        let usable = match next {
            Next::Use => return Ok(()),
            Next::Wait => return Err(Refusal::CertificateAway),
            Next::Refresh => true,
            Next::Fetch => false,
        };
        let begun = self.lock().begin(url, now);
        if !begun {
            return match usable {
                true => Ok(()),
                false => Err(Refusal::CertificateAway),
            };
        }
        let text = tokio::time::timeout(
            FETCH_TIMEOUT,
            self.fetch.fetch(url, PEM_BYTES_MAX, FETCH_TIMEOUT),
        );
        let text = text.await.ok().and_then(Result::ok);
        let fetched = text.and_then(|pem| chain(&pem));
        let good = fetched.filter(|chain| self.is_trusted(chain, now));
        match good {
            Some(good) => {
                self.lock().keep(url, good, now);
                Ok(())
            }
            None if usable => Ok(()),
            None => Err(Refusal::CertificateAway),
        }
    }

    /// Whether the certificate's key made this signature. Trust is judged anew each time: a
    /// certificate runs out while it is known.
    pub(super) fn verify(
        &self,
        url: &str,
        message: &[u8],
        signature: &[u8],
        now: UnixMs,
    ) -> Result<bool, Refusal> {
        let chain = self.lock().names.get(url).and_then(|e| e.chain.clone());
        let chain = chain.ok_or(Refusal::CertificateAway)?;
        if !self.is_trusted(&chain, now) {
            return Err(Refusal::CertificateAway);
        }
        let leaf = chain
            .first()
            .and_then(|der| EndEntityCert::try_from(der).ok());
        let algorithm = webpki::ring::RSA_PKCS1_2048_8192_SHA256;
        let good = leaf.map(|leaf| leaf.verify_signature(algorithm, message, signature));
        Ok(matches!(good, Some(Ok(()))))
    }

    fn is_trusted(&self, chain: &[CertificateDer<'static>], now: UnixMs) -> bool {
        let Some((leaf, between)) = chain.split_first() else {
            return false;
        };
        let Ok(leaf) = EndEntityCert::try_from(leaf) else {
            return false;
        };
        let seconds = u64::try_from(now.seconds()).unwrap_or_default();
        let algorithms = rustls::crypto::ring::default_provider();
        let path = leaf.verify_for_usage(
            algorithms.signature_verification_algorithms.all,
            &self.anchors,
            between,
            UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
            KeyUsage::server_auth(),
            None,
            None,
        );
        let named = |name: &str| name.to_ascii_lowercase().ends_with(self.domain);
        path.is_ok() && leaf.valid_dns_names().any(named)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing in there is half done at a panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn next(&self, url: &str, now: UnixMs) -> Next {
        let Some(entry) = self.names.get(url) else {
            return Next::Fetch;
        };
        let within = |at: Option<UnixMs>, span| at.is_some_and(|at| now < at.plus(span));
        match (&entry.chain, within(entry.tried_at, COOLDOWN)) {
            (Some(_), _) if within(entry.fetched_at, TTL) => Next::Use,
            (Some(_), true) => Next::Use,
            (Some(_), false) => Next::Refresh,
            (None, true) => Next::Wait,
            (None, false) => Next::Fetch,
        }
    }

    /// Notes that a fetch begins; `false` when there were enough of them, or there is no room.
    fn begin(&mut self, url: &str, now: UnixMs) -> bool {
        let minute = Duration::from_secs(60);
        self.fetches.retain(|at| now < at.plus(minute));
        if self.fetches.len() >= FETCHES_PER_MINUTE {
            return false;
        }
        let recent = |at: Option<UnixMs>, span| at.is_some_and(|at| now < at.plus(span));
        // Twice the time, so that a certificate in use is not forgotten while it cannot be fetched.
        self.names.retain(|_, entry| {
            recent(entry.tried_at, COOLDOWN) || recent(entry.fetched_at, TTL * 2)
        });
        if self.names.len() >= NAMES_MAX && !self.names.contains_key(url) {
            return false;
        }
        self.fetches.push(now);
        self.names.entry(url.to_owned()).or_default().tried_at = Some(now);
        true
    }

    fn keep(&mut self, url: &str, chain: Arc<[CertificateDer<'static>]>, now: UnixMs) {
        let entry = self.names.entry(url.to_owned()).or_default();
        entry.chain = Some(chain);
        entry.fetched_at = Some(now);
    }
}

/// The certificates of a PEM text, the provider's own first.
fn chain(pem: &[u8]) -> Option<Arc<[CertificateDer<'static>]>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem)
        .take(CHAIN_MAX + 1)
        .collect();
    let all = all
        .ok()
        .filter(|all| (1..=CHAIN_MAX).contains(&all.len()))?;
    Some(all.into())
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificates({} known)", self.lock().names.len())
    }
}
