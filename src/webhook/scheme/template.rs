//! The template of what a provider signs. Decides at load time whether two different requests could
//! yield the same signed bytes, and at run time refuses values that would make them.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use super::{SchemeError, Unit};
use crate::webhook::refusal::Refusal;

/// Variants of a template to be checked grow with 2^groups.
const GROUPS_MAX: usize = 4;

/// What is signed: pieces in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::webhook) struct Template(Vec<Part>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Always(Piece),
    /// Vanishes when a header or query parameter in it is absent.
    Optional(Vec<Piece>),
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Piece {
    Literal(Vec<u8>),
    Body,
    Ts,
    Method,
    Url,
    /// The URL with the percent-escapes undone that HubSpot undoes before it signs.
    UrlDecoded,
    Header(HeaderName),
    Query(String),
}

/// What a request offers to a template, its body apart.
#[derive(Clone, Copy, Debug)]
pub(in crate::webhook) struct Inputs<'a> {
    /// The timestamp's text, exactly as received.
    pub(in crate::webhook) ts: &'a [u8],
    pub(in crate::webhook) method: &'a str,
    pub(in crate::webhook) url: &'a str,
    pub(in crate::webhook) query: &'a str,
    pub(in crate::webhook) headers: &'a HeaderMap,
}

/// The signed bytes around the body, known before the body is there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::webhook) struct Rendered {
    pub(in crate::webhook) before: Vec<u8>,
    /// Whether the body stands between the two.
    pub(in crate::webhook) has_body: bool,
    pub(in crate::webhook) after: Vec<u8>,
}

impl Rendered {
    /// All signed bytes in order.
    pub(in crate::webhook) fn pieces<'a>(&'a self, body: &'a [u8]) -> [&'a [u8]; 3] {
        let body = if self.has_body { body } else { &[] };
        [&self.before, body, &self.after]
    }
}

impl Template {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::webhook) fn has_body(&self) -> bool {
        self.pieces().any(|piece| *piece == Piece::Body)
    }

    pub(super) fn has_ts(&self) -> bool {
        self.pieces().any(|piece| *piece == Piece::Ts)
    }

    pub(super) fn has_url(&self) -> bool {
        let is_url = |piece: &Piece| matches!(piece, Piece::Url | Piece::UrlDecoded);
        self.pieces().any(is_url)
    }

    pub(super) fn names_header(&self, name: &HeaderName) -> bool {
        self.headers().any(|named| named == name)
    }

    /// Headers that are part of what is signed.
    pub(in crate::webhook) fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.pieces().filter_map(|piece| match piece {
            Piece::Header(name) => Some(name),
            Piece::Literal(_)
            | Piece::Body
            | Piece::Ts
            | Piece::Method
            | Piece::Url
            | Piece::UrlDecoded
            | Piece::Query(_) => None,
        })
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.0.iter().flat_map(|part| match part {
            Part::Always(piece) => std::slice::from_ref(piece),
            Part::Optional(pieces) => pieces.as_slice(),
        })
    }

    /// The signed bytes before and after the body.
    pub(in crate::webhook) fn render(&self, inputs: &Inputs<'_>) -> Result<Rendered, Refusal> {
        let mut chosen: Vec<(&Piece, Cow<'_, [u8]>)> = Vec::with_capacity(self.0.len());
        for part in &self.0 {
            match part {
                Part::Always(piece) => {
                    let value = piece.value(inputs)?.ok_or_else(|| piece.missing())?;
                    chosen.push((piece, value));
                }
                Part::Optional(pieces) => {
                    let values = pieces.iter().map(|p| p.value(inputs));
                    if let Some(values) = values.collect::<Result<Option<Vec<_>>, _>>()? {
                        chosen.extend(pieces.iter().zip(values));
                    }
                }
            }
        }
        refuse_separators(&chosen)?;
        let body_at = chosen.iter().position(|(piece, _)| **piece == Piece::Body);
        let (before, after) = chosen.split_at(body_at.unwrap_or(chosen.len()));
        let joined = |part: &[(&Piece, Cow<'_, [u8]>)]| {
            let values = part.iter().flat_map(|(_, value)| value.iter());
            values.copied().collect()
        };
        Ok(Rendered {
            before: joined(before),
            has_body: body_at.is_some(),
            after: joined(after),
        })
    }

    /// Why two different requests could yield the same bytes; `None` when they cannot.
    pub(super) fn ambiguity(&self, unit: Option<Unit>) -> Option<String> {
        let count = |wanted: Piece| self.pieces().filter(|piece| **piece == wanted).count();
        if count(Piece::Body) > 1 || count(Piece::Ts) > 1 {
            return Some("{body} and {ts} may be there once".into());
        }
        let groups = self
            .0
            .iter()
            .filter(|part| matches!(part, Part::Optional(_)))
            .count();
        if groups > GROUPS_MAX {
            return Some(format!("more than {GROUPS_MAX} optional groups"));
        }
        (0..1u32 << groups).find_map(|present| {
            let variant = self.variant(present);
            runs_together(&variant, unit)
        })
    }

    /// The pieces when the optional groups of the bit set `present` are there.
    fn variant(&self, present: u32) -> Vec<&Piece> {
        let mut group = 0;
        let mut pieces = Vec::new();
        for part in &self.0 {
            match part {
                Part::Always(piece) => pieces.push(piece),
                Part::Optional(inner) => {
                    if present >> group & 1 == 1 {
                        pieces.extend(inner);
                    }
                    group += 1;
                }
            }
        }
        pieces
    }
}

/// Between two literals at most one placeholder may vary in length.
fn runs_together(pieces: &[&Piece], unit: Option<Unit>) -> Option<String> {
    let mut varying = 0;
    for piece in pieces {
        match piece {
            Piece::Literal(_) | Piece::Url | Piece::UrlDecoded => varying = 0,
            Piece::Ts if unit.is_some_and(Unit::delimits_itself) => {}
            Piece::Ts | Piece::Body | Piece::Method | Piece::Header(_) | Piece::Query(_) => {
                varying += 1;
            }
        }
        if varying > 1 {
            return Some("two placeholders of varying length meet".into());
        }
    }
    None
}

/// A header or query value must not contain the text that ends it, or its end could be moved.
/// Before the body the separator that follows counts; after the body the one in front does.
fn refuse_separators(chosen: &[(&Piece, Cow<'_, [u8]>)]) -> Result<(), Refusal> {
    let body_at = chosen.iter().position(|(piece, _)| **piece == Piece::Body);
    for (at, (piece, value)) in chosen.iter().enumerate() {
        let separator = match piece {
            Piece::Header(_) | Piece::Query(_) if body_at.is_some_and(|body| body < at) => {
                let before = chosen.get(..at).unwrap_or_default();
                before
                    .iter()
                    .rev()
                    .find_map(literal)
                    .and_then(|text| text.last())
            }
            Piece::Header(_) | Piece::Query(_) => {
                let after = chosen.get(at + 1..).unwrap_or_default();
                after.iter().find_map(literal).and_then(|text| text.first())
            }
            Piece::Literal(_)
            | Piece::Body
            | Piece::Ts
            | Piece::Method
            | Piece::Url
            | Piece::UrlDecoded => None,
        };
        if separator.is_some_and(|byte| value.contains(byte)) {
            return Err(Refusal::Ambiguous);
        }
    }
    Ok(())
}

fn literal<'p>((piece, _): &(&'p Piece, Cow<'_, [u8]>)) -> Option<&'p [u8]> {
    match piece {
        Piece::Literal(text) => Some(text),
        Piece::Body
        | Piece::Ts
        | Piece::Method
        | Piece::Url
        | Piece::UrlDecoded
        | Piece::Header(_)
        | Piece::Query(_) => None,
    }
}

impl Piece {
    /// `None` where the request does not have it.
    fn value<'a>(&'a self, inputs: &Inputs<'a>) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
        Ok(match self {
            Self::Literal(text) => Some(Cow::Borrowed(text)),
            // Its bytes come later; what stands around them does not depend on them.
            Self::Body => Some(Cow::Borrowed(&[])),
            Self::Ts => Some(Cow::Borrowed(inputs.ts)),
            Self::Method => Some(Cow::Borrowed(inputs.method.as_bytes())),
            Self::Url => Some(Cow::Borrowed(inputs.url.as_bytes())),
            Self::UrlDecoded => Some(Cow::Owned(url_decoded(inputs.url))),
            Self::Header(name) => header(inputs.headers, name)?.map(Cow::Borrowed),
            Self::Query(name) => query(inputs.query, name)?.map(Cow::Owned),
        })
    }

    fn missing(&self) -> Refusal {
        match self {
            Self::Header(name) => Refusal::MissingHeader(name.clone()),
            Self::Query(name) => Refusal::MissingQuery(name.clone()),
            Self::Literal(_)
            | Self::Body
            | Self::Ts
            | Self::Method
            | Self::Url
            | Self::UrlDecoded => Refusal::Ambiguous,
        }
    }
}

/// The one value of a header; several lines are refused, because the API might read another one.
pub(in crate::webhook) fn header<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a [u8]>, Refusal> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next();
    if lines.next().is_some() {
        return Err(Refusal::DuplicateHeader(name.clone()));
    }
    Ok(first.map(http::HeaderValue::as_bytes))
}

/// The one value of a query parameter, percent-decoded.
fn query(query: &str, name: &str) -> Result<Option<Vec<u8>>, Refusal> {
    let mut found = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let bad = || Refusal::BadQuery(name.to_owned());
        if percent_decode(key).ok_or_else(bad)? != name.as_bytes() {
            continue;
        }
        if found.is_some() {
            return Err(bad());
        }
        found = Some(percent_decode(value).ok_or_else(bad)?);
    }
    Ok(found)
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let pair = [bytes.next()?, bytes.next()?];
                out.extend(hex::decode(pair).ok()?);
            }
            b'+' => out.push(b' '),
            plain => out.push(plain),
        }
    }
    Some(out)
}

/// Escapes that are undone in a signed URL; all others stay as they are written.
const URL_ESCAPES: [(&str, u8); 12] = [
    ("%3A", b':'),
    ("%2F", b'/'),
    ("%3F", b'?'),
    ("%40", b'@'),
    ("%21", b'!'),
    ("%24", b'$'),
    ("%27", b'\''),
    ("%28", b'('),
    ("%29", b')'),
    ("%2A", b'*'),
    ("%2C", b','),
    ("%3B", b';'),
];

fn url_decoded(url: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(url.len());
    let mut rest = url.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escape = rest.get(..3).and_then(|head| {
            let known = |(text, _): &&(&str, u8)| text.as_bytes().eq_ignore_ascii_case(head);
            URL_ESCAPES.iter().find(known)
        });
        match escape {
            Some((_, plain)) => {
                out.push(*plain);
                rest = rest.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    out
}

/// Reads `{placeholders}`, `[groups]` and literal text.
pub(super) fn parse(text: &str) -> Result<Template, SchemeError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (group, after) = inner
                .split_once(']')
                .ok_or_else(|| error("`[` without `]`"))?;
            parts.push(Part::Optional(parse_group(group)?));
            rest = after;
        } else {
            let (piece, after) = parse_piece(rest)?;
            parts.push(Part::Always(piece));
            rest = after;
        }
    }
    Ok(Template(parts))
}

fn parse_group(text: &str) -> Result<Vec<Piece>, SchemeError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = parse_piece(rest)?;
        pieces.push(piece);
        rest = after;
    }
    let can_be_absent = |piece: &Piece| matches!(piece, Piece::Header(_) | Piece::Query(_));
    let fixed = |piece: &Piece| matches!(piece, Piece::Literal(_));
    if !pieces.iter().any(can_be_absent) || !pieces.iter().all(|p| can_be_absent(p) || fixed(p)) {
        return Err(error(
            "a [group] is literal text with {header:…} or {query:…}",
        ));
    }
    Ok(pieces)
}

fn parse_piece(text: &str) -> Result<(Piece, &str), SchemeError> {
    let Some(inner) = text.strip_prefix('{') else {
        let end = text.find(['{', '[', ']', '}']).unwrap_or(text.len());
        let (literal, rest) = text.split_at(end);
        if literal.is_empty() {
            return Err(error("a bracket that opens nothing"));
        }
        return Ok((Piece::Literal(literal.into()), rest));
    };
    let (name, rest) = inner
        .split_once('}')
        .ok_or_else(|| error("`{` without `}`"))?;
    let piece = match name.split_once(':') {
        None => match name {
            "body" => Piece::Body,
            "ts" => Piece::Ts,
            "method" => Piece::Method,
            "url" => Piece::Url,
            _ => return Err(error("an unknown placeholder")),
        },
        Some(("header", header)) => {
            let name = header.parse();
            Piece::Header(name.map_err(|_| error("{header:…} without a header name"))?)
        }
        Some(("url", "decoded")) => Piece::UrlDecoded,
        Some(("query", parameter)) if !parameter.is_empty() => Piece::Query(parameter.to_owned()),
        Some(_) => return Err(error("an unknown placeholder")),
    };
    Ok((piece, rest))
}

fn error(problem: &str) -> SchemeError {
    SchemeError::new(
        "signed",
        problem,
        "known are {body} {ts} {method} {url} {url:decoded} {header:NAME} {query:NAME} and [groups]",
    )
}
