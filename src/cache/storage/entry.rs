//! One stored response, and its reading. Decides nothing.

use std::any::Any;
use std::mem::size_of;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue};
use pingora::cache::key::HashBinary;
use pingora::cache::storage::{HandleHit, Storage};
use pingora::cache::trace::SpanHandle;
use pingora::cache::{CacheKey, CacheMeta};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, Result};

use crate::cache::groups::Label;

use super::Claim;
use super::presence::Present;

/// A stored response. Immutable: an update replaces it.
#[derive(Debug)]
pub struct Entry {
    /// The whole key, without variance.
    pub(super) key: Box<[u8]>,
    pub(super) label: Arc<Label>,
    pub(super) weight: u64,
    pub(super) body: Bytes,
    pub(super) origin: Origin,
    header: ResponseHeader,
    fresh_until: SystemTime,
    /// When the family of variants began that it belongs to. The framework compares a variant's
    /// creation with its primary's provenance; one moment serves for both, since an entry that is
    /// refreshed keeps its provenance, and one that starts a new family has it reset.
    family_since: SystemTime,
    /// The moment at which its age was 0.
    made_at: SystemTime,
    stale_while_revalidate_s: u32,
    stale_if_error_s: u32,
    variance: Option<HashBinary>,
    _present: Present,
}

/// Which of the store's entries this is, and how recent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Tells an entry from its predecessors and successors under the same key.
    pub(super) generation: u64,
    /// When the fetch or validation started that it comes from, on the tickets' clock.
    pub(super) fetch_started_ms: u64,
}

impl Entry {
    /// The framework's view of it. Costs one copy of the header map.
    pub(super) fn meta(&self) -> CacheMeta {
        let mut meta = CacheMeta::new(
            self.fresh_until,
            self.family_since,
            self.stale_while_revalidate_s,
            self.stale_if_error_s,
            self.header.clone(),
        );
        meta.set_epoch_override(self.made_at);
        if let Some(variance) = self.variance {
            meta.set_variance(variance);
        }
        meta
    }

    /// A new entry from the framework's metadata and a complete body.
    pub(super) fn new(
        key: Box<[u8]>,
        meta: &CacheMeta,
        body: Bytes,
        present: Present,
        origin: Origin,
    ) -> Self {
        let mut header = meta.response_header_copy();
        // Chunked on its way in; in one piece from now on, so that ranges can be counted.
        if !header.headers.contains_key(CONTENT_LENGTH) {
            let length = HeaderValue::from(body.len());
            // Fails for an invalid name or value only; this is neither.
            let _ = header.insert_header(CONTENT_LENGTH, length);
        }
        let label = present.label().clone();
        Self {
            weight: weight(&key, &header.headers, &label, body.len()),
            key,
            label,
            body,
            origin,
            header,
            fresh_until: meta.fresh_until(),
            family_since: meta.provenance(),
            made_at: meta.epoch(),
            stale_while_revalidate_s: meta.stale_while_revalidate_sec(),
            stale_if_error_s: meta.stale_if_error_sec(),
            variance: meta.variance(),
            _present: present,
        }
    }

    /// The same body under new metadata (RFC 9111, 4.3.4).
    pub(super) fn with_meta(&self, meta: &CacheMeta, present: Present, origin: Origin) -> Self {
        Self::new(self.key.clone(), meta, self.body.clone(), present, origin)
    }
}

/// Bytes that an entry keeps alive: body, fields, key, labels, and what surrounds them.
fn weight(key: &[u8], headers: &HeaderMap, label: &Label, body_bytes: usize) -> u64 {
    let fields: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES)
        .sum();
    let groups = label.groups.iter().chain(label.orgs.iter());
    let names: usize = groups.map(|g| g.len() + size_of::<Arc<str>>()).sum();
    let total = body_bytes + fields + names + key.len() + label.target.len() + size_of::<Entry>();
    u64::try_from(total + OVERHEAD_BYTES).unwrap_or(u64::MAX)
}

/// A field's place in the header map and in the map of its original spelling.
const FIELD_BYTES: usize = 160;
/// Reference counts, the slot in the table, the allocator's rounding.
const OVERHEAD_BYTES: usize = 256;

/// A stored response being read.
#[derive(Debug)]
pub struct Hit {
    entry: Arc<Entry>,
    /// What is still to be read.
    left: Range<usize>,
}

impl Hit {
    pub(super) fn new(entry: Arc<Entry>) -> Self {
        let left = 0..entry.body.len();
        Self { entry, left }
    }

    /// Whether the fetch or validation that the response comes from started after this request did.
    #[must_use]
    pub fn fetched_since(&self, claim: &Claim) -> bool {
        self.entry.origin.fetch_started_ms > claim.ticket.at_ms()
    }
}

#[async_trait]
impl HandleHit for Hit {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        let left = std::mem::replace(&mut self.left, 0..0);
        Ok((!left.is_empty()).then(|| self.entry.body.slice(left)))
    }

    async fn finish(
        self: Box<Self>,
        _storage: &'static (dyn Storage + Sync),
        _key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        true
    }

    fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        let length = self.entry.body.len();
        if start >= length {
            return Error::e_explain(ErrorType::InternalError, "seek beyond the stored body");
        }
        self.left = start..end.unwrap_or(length).clamp(start, length);
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}
