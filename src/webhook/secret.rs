//! Secrets of an endpoint, made ready for use when the configuration is loaded. Decides which texts
//! are secrets at all: an empty or unexpanded one would let everybody sign.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::scheme::{Alg, KeyForm, Scheme, SchemeError};
use crate::kernel::clock::UnixMs;
use crate::kernel::secret::Secret;

/// Sizes that Standard Webhooks allows for a key.
const WHSEC_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret with a name that may be shown in a metric, and the time in which it counts.
#[derive(Clone)]
pub struct ActiveSecret {
    name: Arc<str>,
    key: MacKey,
    secret: Secret,
    not_before: Option<UnixMs>,
    not_after: Option<UnixMs>,
    key_id: Option<Arc<str>>,
}

impl ActiveSecret {
    /// The secret as a dashboard shows it, made ready for `scheme`.
    ///
    /// # Errors
    /// A secret that is blank, too short, not spelled as the scheme says, or looks like a variable
    /// that nobody expanded.
    pub fn new(name: &str, secret: &Secret, scheme: &Scheme) -> Result<Self, SchemeError> {
        let key = key_bytes(secret, scheme)?;
        Ok(Self {
            name: name.into(),
            key: MacKey::new(scheme.alg, key.expose())?,
            secret: key,
            not_before: None,
            not_after: None,
            key_id: None,
        })
    }

    /// The same secret, good only within the given times.
    #[must_use]
    pub fn within(mut self, not_before: Option<UnixMs>, not_after: Option<UnixMs>) -> Self {
        self.not_before = not_before;
        self.not_after = not_after;
        self
    }

    /// The same secret with the name by which the provider calls it in its signatures.
    #[must_use]
    pub fn called(mut self, key_id: Option<&str>) -> Self {
        self.key_id = key_id.map(Arc::from);
        self
    }

    /// What the provider calls it.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Whether the provider means this secret.
    pub(super) fn is_called(&self, key_id: &[u8]) -> bool {
        self.key_id
            .as_ref()
            .is_some_and(|id| id.as_bytes() == key_id)
    }

    /// The name, for metrics.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether signatures made with it count at `now`.
    #[must_use]
    pub fn is_active(&self, now: UnixMs) -> bool {
        self.not_before.is_none_or(|from| from <= now)
            && self.not_after.is_none_or(|until| now < until)
    }

    /// The code that authenticates `pieces`, taken one after the other.
    pub(super) fn mac<T: AsRef<[u8]>>(&self, pieces: &[T]) -> Vec<u8> {
        self.key.mac(pieces)
    }

    /// The secret itself, for what is more than a MAC with it as the key.
    pub(super) fn token(&self) -> &Secret {
        &self.secret
    }
}

impl fmt::Debug for ActiveSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveSecret")
            .field("name", &self.name)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// HMAC states that have taken in the key already.
#[derive(Clone)]
enum MacKey {
    Sha256(Hmac<Sha256>),
    Sha512(Hmac<Sha512>),
    Sha1(Hmac<Sha1>),
    /// SHA-256 of the token.
    Token([u8; 32]),
}

impl MacKey {
    fn new(alg: Alg, key: &[u8]) -> Result<Self, SchemeError> {
        Ok(match alg {
            Alg::HmacSha256 => Self::Sha256(keyed(key)?),
            Alg::HmacSha512 => Self::Sha512(keyed(key)?),
            Alg::HmacSha1 => Self::Sha1(keyed(key)?),
            Alg::Equal => Self::Token(Sha256::digest(key).into()),
        })
    }

    fn mac<T: AsRef<[u8]>>(&self, pieces: &[T]) -> Vec<u8> {
        match self {
            Self::Sha256(state) => run(state.clone(), pieces),
            Self::Sha512(state) => run(state.clone(), pieces),
            Self::Sha1(state) => run(state.clone(), pieces),
            Self::Token(digest) => digest.to_vec(),
        }
    }
}

fn keyed<M: KeyInit>(key: &[u8]) -> Result<M, SchemeError> {
    let error = |_| SchemeError::new("secrets", "a secret is no key", "use 32 random bytes");
    M::new_from_slice(key).map_err(error)
}

fn run<M: Mac, T: AsRef<[u8]>>(mut state: M, pieces: &[T]) -> Vec<u8> {
    for piece in pieces {
        state.update(piece.as_ref());
    }
    state.finalize().into_bytes().to_vec()
}

fn key_bytes(secret: &Secret, scheme: &Scheme) -> Result<Secret, SchemeError> {
    let text = secret.expose();
    let error = |problem: &str, hint| SchemeError::new("secrets", problem, hint);
    if text.trim_ascii().is_empty() {
        return Err(error(
            "a secret is blank",
            "set it; without one everybody could sign",
        ));
    }
    if text.trim_ascii().len() != text.len() {
        let hint = "remove the blanks or the newline; `printf %s` writes a file without one";
        return Err(error("a secret begins or ends with white space", hint));
    }
    if text.starts_with(b"${") {
        return Err(error(
            "a secret is an unexpanded variable",
            "set the variable",
        ));
    }
    let key = match scheme.key {
        KeyForm::Utf8 => secret.clone(),
        KeyForm::Hex => {
            let bytes = hex::decode(text);
            Secret::new(bytes.map_err(|_| error("a secret is not hex", "check `key`"))?)
        }
        KeyForm::Base64 => base64_key(text)?,
        KeyForm::Whsec => base64_key(text.strip_prefix(b"whsec_").unwrap_or(text))?,
    };
    if scheme.key == KeyForm::Whsec && !WHSEC_BYTES.contains(&key.len()) {
        let hint = "Standard Webhooks asks for base64 of 24 to 64 bytes after whsec_";
        return Err(error("a whsec secret has a wrong length", hint));
    }
    if key.len() < scheme.secret_bytes_min {
        let problem = format!("a secret is shorter than {} bytes", scheme.secret_bytes_min);
        return Err(error(
            &problem,
            "use a longer one; 32 random bytes are good",
        ));
    }
    Ok(key)
}

/// Dashboards differ about padding, and a secret's spelling is not a question of security.
fn base64_key(text: &[u8]) -> Result<Secret, SchemeError> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&ALPHABET, config).decode(text);
    let error = |_| SchemeError::new("secrets", "a secret is not base64", "check `key`");
    bytes.map(Secret::new).map_err(error)
}
