//! Reads what a signature header offers: candidates for the signature, and a timestamp among them.

use http::{HeaderMap, HeaderValue};

use super::super::key::{Offered, PUBLIC_KEY_SIGNATURES_MAX};
use super::super::refusal::Refusal;
use super::super::scheme::{Alg, Capture, Scheme};

/// More items than this in the signature header, all its lines together, are refused.
pub const ITEMS_MAX: usize = 16;

/// What the signature header offers.
pub(super) struct Found<'a> {
    /// Never empty.
    pub(super) offered: Vec<Offered>,
    pub(super) ts: Option<&'a [u8]>,
}

pub(super) fn read<'a>(scheme: &Scheme, headers: &'a HeaderMap) -> Result<Found<'a>, Refusal> {
    let mut lines = headers.get_all(&scheme.header).iter();
    let expected: Vec<_> = lines.by_ref().take(scheme.lines_max).collect();
    if expected.is_empty() {
        return Err(Refusal::MissingHeader(scheme.header.clone()));
    }
    if lines.next().is_some() {
        return Err(Refusal::DuplicateHeader(scheme.header.clone()));
    }
    let (signatures, ts) = items(scheme, &expected)?;
    if signatures.is_empty() {
        return Err(Refusal::NoSignature);
    }
    let decoded = signatures.into_iter().filter_map(|(alg, text)| {
        let bytes = scheme.encoding.decode(text)?;
        Offered::new(alg, bytes)
    });
    let offered: Vec<_> = decoded.collect();
    if offered.is_empty() {
        return Err(Refusal::BadEncoding);
    }
    let costly = offered.iter().filter(|o| o.alg.is_public_key());
    if costly.count() > PUBLIC_KEY_SIGNATURES_MAX {
        let max = PUBLIC_KEY_SIGNATURES_MAX;
        return Err(Refusal::TooManyItems { max });
    }
    Ok(Found { offered, ts })
}

type Items<'a> = (Vec<(Alg, &'a [u8])>, Option<&'a [u8]>);

/// Sorts the header's items into signatures and the timestamp. Items of no known shape are left
/// alone: providers add versions.
fn items<'a>(scheme: &Scheme, lines: &[&'a HeaderValue]) -> Result<Items<'a>, Refusal> {
    let mut signatures = Vec::new();
    let mut ts = None;
    let all = lines
        .iter()
        .flat_map(|line| split(scheme.split, line.as_bytes()));
    for (at, item) in all.enumerate() {
        if at >= ITEMS_MAX {
            return Err(Refusal::TooManyItems { max: ITEMS_MAX });
        }
        let shape = scheme
            .items
            .iter()
            .find_map(|p| Some((p.capture(), p.find(item)?)));
        match shape {
            None => {}
            Some((Capture::Sig(alg), text)) => signatures.push((alg, text)),
            Some((Capture::Ts, _)) if ts.is_some() => return Err(Refusal::DuplicateTimestamp),
            Some((Capture::Ts, text)) => ts = Some(text),
        }
    }
    Ok((signatures, ts))
}

/// Items without the blanks around them; a header that is one item is taken as it is.
fn split(separator: Option<u8>, line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = separator.is_none();
    line.split(move |byte| separator == Some(*byte))
        .map(move |item| if whole { item } else { item.trim_ascii() })
}
