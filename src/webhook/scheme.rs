//! The grammar of webhook signatures: a provider's scheme as typed data. Decides at load time whether
//! a scheme can be verified safely; what arrives later is judged by `webhook::verify`.
//!
//! A scheme that would accept two readings of one signed text, or that leaves the body unsigned
//! without saying so, does not build.

mod alg;
mod encoding;
mod field;
mod pattern;
mod spec;
mod template;
mod timestamp;

use http::HeaderName;

pub use alg::{Alg, KeyForm};
pub use encoding::Encoding;
pub use pattern::{Capture, Pattern};
pub use spec::{SchemeSpec, TsSpec};
pub(super) use template::{Inputs, Template, header};
pub use timestamp::{Unit, print_rfc3339};

use crate::webhook::pointer::Pointer;

/// Furthest a timestamp may lie from our clock in either direction.
const TOLERANCE_S_MAX: u32 = 24 * 3600;

/// How a provider signs.
#[derive(Clone, Debug)]
pub struct Scheme {
    pub(super) header: HeaderName,
    /// More lines of that header are refused.
    pub(super) lines_max: usize,
    pub(super) split: Option<u8>,
    pub(super) items: Vec<Pattern>,
    pub(super) alg: Alg,
    pub(super) encoding: Encoding,
    pub(super) key: KeyForm,
    pub(super) signed: Template,
    pub(super) ts: Option<TsRule>,
    pub(super) id: Option<IdFrom>,
    pub(super) on_replay: OnReplay,
    pub(super) public_url: String,
    pub(super) secret_bytes_min: usize,
}

/// Where the time of signing is and how far it may lie from now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TsRule {
    pub from: TsFrom,
    pub unit: Unit,
    pub past_s: u32,
    pub future_s: u32,
}

/// Where the timestamp's text is read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TsFrom {
    /// An item of the signature header.
    Item,
    Header(HeaderName),
    /// In the signed body; read after the signature was found good.
    Json(Pointer),
}

/// Where the event's own id is read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IdFrom {
    /// A header that the signature covers.
    SignedHeader(HeaderName),
    /// A header anybody can change: good for a log line, never for a decision.
    UnsignedHeader(HeaderName),
    /// In the signed body.
    SignedJson(Pointer),
    /// In a body that the signature does not cover.
    UnsignedJson(Pointer),
}

/// What a second arrival of an accepted event is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnReplay {
    /// 401.
    Reject,
    /// 200, without a second delivery.
    Ack,
}

/// Why a scheme does not build, with what would mend it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{key}: {problem}; {hint}")]
pub struct SchemeError {
    /// Key of the configuration, e.g. `signed` or `ts.from`.
    pub key: &'static str,
    pub problem: String,
    pub hint: &'static str,
}

impl SchemeError {
    pub(super) fn new(key: &'static str, problem: impl Into<String>, hint: &'static str) -> Self {
        Self {
            key,
            problem: problem.into(),
            hint,
        }
    }
}

impl Scheme {
    /// The scheme that `spec` describes, or everything that is wrong with it.
    ///
    /// # Errors
    /// All problems at once, each with its key.
    pub fn build(spec: &SchemeSpec) -> Result<Self, Vec<SchemeError>> {
        let mut errors = field::Errors::default();
        let header = errors.take(field::header_name("header", &spec.header));
        let split = errors.take(field::split_byte(spec.split.as_deref()));
        let lines_max = errors.take(field::lines_max(spec.lines_max));
        let alg = errors.take(field::algorithm(spec.alg.as_deref()));
        let items = errors.take(field::patterns(&spec.items, alg));
        let encoding = errors.take(field::encoding(spec.encoding.as_deref(), alg));
        let key = errors.take(field::key_form(spec.key.as_deref(), alg));
        let signed = errors.take(template::parse(spec.signed.as_deref().unwrap_or_default()));
        let ts = errors.take(spec.ts.as_ref().map(field::ts_rule).transpose());
        let id = errors.take(spec.id.as_deref().map(field::id_source).transpose());
        let on_replay = errors.take(field::on_replay(spec.replay.as_deref(), spec.ts.is_some()));
        let least = errors.take(field::secret_bytes_min(spec.secret_bytes_min));
        let (Some(header), Some(lines_max), Some(split), Some(items), Some(alg), Some(encoding)) =
            (header, lines_max, split, items, alg, encoding)
        else {
            return Err(errors.0);
        };
        let (Some(key), Some(signed), Some(ts), Some(id), Some(on_replay), Some(least)) =
            (key, signed, ts, id, on_replay, least)
        else {
            return Err(errors.0);
        };
        let id = id.map(|source| source.judged_by(&signed));
        let public_url = spec.public_url.clone().unwrap_or_default();
        let secret_bytes_min = least;
        let scheme = Self {
            header,
            lines_max,
            split,
            items,
            alg,
            encoding,
            key,
            signed,
            ts,
            id,
            on_replay,
            public_url,
            secret_bytes_min,
        };
        scheme.check_whole(spec.unsigned_body, &mut errors.0);
        if errors.0.is_empty() {
            Ok(scheme)
        } else {
            Err(errors.0)
        }
    }

    /// How far behind and ahead of our clock a timestamp may lie, in seconds; `None` = the scheme has
    /// no timestamp.
    #[must_use]
    pub fn tolerance_s(&self) -> Option<(u32, u32)> {
        self.ts.as_ref().map(|rule| (rule.past_s, rule.future_s))
    }

    /// What a second arrival of an accepted event is told.
    #[must_use]
    pub fn on_replay(&self) -> OnReplay {
        self.on_replay
    }

    /// The header that carries the signature, or the secret itself.
    #[must_use]
    pub fn signature_header(&self) -> &HeaderName {
        &self.header
    }

    /// Whether a good signature says anything about the body.
    #[must_use]
    pub fn signs_body(&self) -> bool {
        self.signed.has_body()
    }

    /// Whether a secret's name alone may stand in a file: the keys that check are public.
    #[must_use]
    pub fn has_public_keys(&self) -> bool {
        self.algs().any(Alg::is_public_key)
    }

    /// How a secret's text becomes key bytes.
    #[must_use]
    pub fn key_form(&self) -> KeyForm {
        self.key
    }

    /// What proves that its provider signed.
    #[must_use]
    pub fn alg(&self) -> Alg {
        self.alg
    }

    /// Algorithms of the items that carry a signature, in the order of `match`.
    pub(super) fn algs(&self) -> impl Iterator<Item = Alg> {
        self.items.iter().filter_map(|p| p.capture().alg())
    }

    /// Rules that concern several keys at once.
    fn check_whole(&self, unsigned_body: bool, errors: &mut Vec<SchemeError>) {
        self.check_coverage(unsigned_body, errors);
        self.check_keys(errors);
        self.check_timestamp(errors);
        if self.signed.has_url() && !self.public_url.starts_with("https://") {
            errors.push(SchemeError::new(
                "public_url",
                "{url} is signed and there is no public_url",
                "write the https URL exactly as it is registered at the provider",
            ));
        }
        if self.signed.names_header(&self.header) {
            errors.push(SchemeError::new(
                "signed",
                "the signature header cannot sign itself",
                "name another header",
            ));
        }
        let unit = self.ts.as_ref().map(|rule| rule.unit);
        if let Some(problem) = self.signed.ambiguity(unit) {
            errors.push(SchemeError::new(
                "signed",
                problem,
                "put literal text between the placeholders",
            ));
        }
        let timestamps = self.items.iter().filter(|p| p.capture() == Capture::Ts);
        if self.algs().next().is_none() || timestamps.count() > 1 {
            errors.push(SchemeError::new(
                "match",
                "at least one item must have {sig} and at most one {ts}",
                "e.g. [\"t={ts}\", \"v1={sig}\"]",
            ));
        }
        if self.split.is_none() && self.items.len() > 1 {
            errors.push(SchemeError::new(
                "split",
                "several items and nothing that separates them",
                "set split to \" \", \",\" or \";\"",
            ));
        }
    }

    fn check_coverage(&self, unsigned_body: bool, errors: &mut Vec<SchemeError>) {
        if self.alg == Alg::Equal && (!self.signed.is_empty() || self.ts.is_some()) {
            errors.push(SchemeError::new(
                "alg",
                "`equal` compares a token and signs nothing",
                "remove `signed` and `ts`",
            ));
        }
        if unsigned_body && self.signed.has_body() {
            errors.push(SchemeError::new(
                "unsigned_body",
                "the signature covers the body",
                "remove unsigned_body, or {body} if the provider does not sign it",
            ));
        }
        if self.alg != Alg::Equal && self.signed.is_empty() {
            errors.push(SchemeError::new(
                "signed",
                "missing",
                "e.g. \"{ts}.{body}\"",
            ));
        } else if !self.signed.has_body() && !unsigned_body {
            errors.push(SchemeError::new(
                "signed",
                "the signature does not cover the body",
                "add {body}, or write unsigned_body = true if the provider cannot do better",
            ));
        }
        if self.alg != Alg::Equal && self.encoding == Encoding::Text {
            errors.push(SchemeError::new(
                "encoding",
                "`text` is for `equal` only",
                "use hex",
            ));
        }
    }

    /// The text of a secret must say which key it is, and an algorithm must be able to take it.
    fn check_keys(&self, errors: &mut Vec<SchemeError>) {
        let several = self.algs().any(|alg| alg != self.alg);
        if several && self.key != KeyForm::Whsec {
            errors.push(SchemeError::new(
                "key",
                "items of several algorithms, and no secret says which of them it is for",
                "use key = \"whsec\", where whsec_ is a shared secret and whpk_ a public key",
            ));
        }
        let fits = match self.key {
            KeyForm::Utf8 => !self.alg.is_public_key(),
            KeyForm::Hex | KeyForm::Base64 => self.alg != Alg::EcdsaP256,
            KeyForm::Whsec => matches!(self.alg, Alg::HmacSha256 | Alg::HmacSha512),
            KeyForm::Whpk => self.alg == Alg::Ed25519,
            KeyForm::Spki => self.alg.is_public_key(),
        };
        if !fits {
            errors.push(SchemeError::new(
                "key",
                "this algorithm has no key of this form",
                "spki for public keys; hex, base64 or whpk for ed25519; utf8, hex, base64 or whsec \
                 for shared secrets",
            ));
        }
    }

    fn check_timestamp(&self, errors: &mut Vec<SchemeError>) {
        let in_items = self.items.iter().any(|p| p.capture() == Capture::Ts);
        let Some(rule) = &self.ts else {
            if in_items || self.signed.has_ts() {
                errors.push(SchemeError::new(
                    "ts",
                    "{ts} is used and there is no ts",
                    "add ts = { from = …, unit = … }",
                ));
            }
            return;
        };
        let problem = match (&rule.from, in_items) {
            (TsFrom::Item, false) => Some("from = match and no item has {ts}"),
            (TsFrom::Header(_) | TsFrom::Json(_), true) => {
                Some("an item has {ts} and from is elsewhere")
            }
            (TsFrom::Json(_), false) if self.signed.has_ts() => {
                Some("{ts} cannot be read from a body that is not verified yet")
            }
            (TsFrom::Json(_), false) if !self.signed.has_body() => {
                Some("the body is not signed, so the timestamp in it is not either")
            }
            (TsFrom::Item, true) | (TsFrom::Header(_), false) if !self.signed.has_ts() => {
                Some("the timestamp is not part of what is signed")
            }
            (TsFrom::Item, true) | (TsFrom::Header(_) | TsFrom::Json(_), false) => None,
        };
        if let Some(problem) = problem {
            let hint = "sign {ts}, or read it from the signed body";
            errors.push(SchemeError::new("ts.from", problem, hint));
        }
        if rule.past_s > TOLERANCE_S_MAX || rule.future_s > TOLERANCE_S_MAX {
            let hint = "a day is the most that is accepted; 300 is usual";
            errors.push(SchemeError::new(
                "ts",
                "past_s or future_s is over 86400",
                hint,
            ));
        }
    }
}

impl IdFrom {
    /// Whether the id may be acted upon depends on what the signature covers.
    fn judged_by(self, signed: &Template) -> Self {
        match self {
            Self::SignedHeader(name) | Self::UnsignedHeader(name) => {
                if signed.names_header(&name) {
                    Self::SignedHeader(name)
                } else {
                    Self::UnsignedHeader(name)
                }
            }
            Self::SignedJson(pointer) | Self::UnsignedJson(pointer) => {
                if signed.has_body() {
                    Self::SignedJson(pointer)
                } else {
                    Self::UnsignedJson(pointer)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
