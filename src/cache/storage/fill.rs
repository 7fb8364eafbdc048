//! One response on its way into the store. Gathers the body, and inserts only what is complete.
//! Gives up silently where it must: the client's copy is not affected.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use pingora::Result;
use pingora::cache::key::{CacheHashKey, HashBinary};
use pingora::cache::storage::{HandleMiss, MissFinishType};
use pingora::cache::{CacheKey, CacheMeta};

use super::entry::Entry;
use super::{Claim, Declared, Store};

/// A body being gathered. Dropped before [`HandleMiss::finish`]: nothing is stored.
pub(super) struct Fill {
    store: &'static Store,
    hash: HashBinary,
    key: Box<[u8]>,
    /// The framework hands out a reference only, and its metadata cannot be cloned.
    meta: CacheMeta,
    declared: Option<Declared>,
    claim: Arc<Claim>,
    body: Vec<u8>,
    /// Bytes taken from the store's allowance for bodies that are coming in.
    reserved: u64,
    /// The allowance was exhausted.
    abandoned: bool,
}

impl Fill {
    pub(super) fn new(
        store: &'static Store,
        key: &CacheKey,
        meta: &CacheMeta,
        claim: Arc<Claim>,
    ) -> Self {
        Self {
            store,
            hash: key.combined_bin(),
            key: key.primary_key().into(),
            meta: copy(meta),
            declared: meta.extensions().get::<Declared>().cloned(),
            claim,
            body: Vec::new(),
            reserved: 0,
            abandoned: false,
        }
    }

    /// Whether the allowance has room for `bytes` more.
    fn reserve(&mut self, bytes: u64) -> bool {
        let filling = &self.store.filling_bytes;
        self.reserved += bytes;
        filling.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.store.filling_bytes_max
    }

    fn release(&mut self) {
        let reserved = std::mem::take(&mut self.reserved);
        self.store
            .filling_bytes
            .fetch_sub(reserved, Ordering::Relaxed);
    }

    /// Whether as many bytes came in as the header promised.
    fn is_complete(&self) -> bool {
        self.declared_length()
            .is_none_or(|length| length == Some(self.body.len()))
    }

    /// `Content-Length`; the inner is none where it is no number.
    fn declared_length(&self) -> Option<Option<usize>> {
        let declared = self.meta.headers().get(CONTENT_LENGTH)?;
        Some(declared.to_str().ok().and_then(|v| v.parse().ok()))
    }
}

#[async_trait]
impl HandleMiss for Fill {
    async fn write_body(&mut self, data: Bytes, _eof: bool) -> Result<()> {
        if self.abandoned || data.is_empty() {
            return Ok(());
        }
        if self.reserve(u64::try_from(data.len()).unwrap_or(u64::MAX)) {
            if self.body.is_empty() {
                let expected = self.declared_length().flatten().unwrap_or(0);
                self.body.reserve_exact(expected.min(AHEAD_BYTES_MAX));
            }
            self.body.extend_from_slice(&data);
        } else {
            self.abandoned = true;
            self.body = Vec::new();
            self.release();
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<MissFinishType> {
        let body = if self.abandoned || !self.is_complete() {
            None
        } else {
            // Exactly as large as it is: what the weight says is what is kept.
            Some(Bytes::from(
                std::mem::take(&mut self.body).into_boxed_slice(),
            ))
        };
        let Some(body) = body else {
            self.store.counts.refused.fetch_add(1, Ordering::Relaxed);
            return Ok(MissFinishType::Created(0));
        };
        let declared = self.declared.take();
        let label = self.claim.label(declared.as_ref().map_or(&[], |d| &d.0));
        let length = body.len();
        let entry = Entry::new(
            std::mem::take(&mut self.key),
            &self.meta,
            body,
            self.store.present(Arc::new(label)),
            self.store.origin(&self.claim),
        );
        self.store.insert(self.hash, entry, &self.claim.ticket);
        Ok(MissFinishType::Created(length))
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.release();
    }
}

/// Room made at once on the word of a header.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// The same metadata once more, without extensions.
fn copy(meta: &CacheMeta) -> CacheMeta {
    let mut copy = CacheMeta::new(
        meta.fresh_until(),
        meta.provenance(),
        meta.stale_while_revalidate_sec(),
        meta.stale_if_error_sec(),
        meta.response_header_copy(),
    );
    copy.set_epoch_override(meta.epoch());
    if let Some(variance) = meta.variance() {
        copy.set_variance(variance);
    }
    copy
}
