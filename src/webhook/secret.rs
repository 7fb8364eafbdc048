//! Secrets of an endpoint, made ready for use when the configuration is loaded. Decides which texts
//! are secrets at all: an empty or unexpanded one would let everybody sign.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::key::{Key, Offered, PrivateKey, Running};
use super::scheme::{Alg, KeyForm, Scheme, SchemeError};
use crate::kernel::clock::UnixMs;
use crate::kernel::secret::Secret;

/// Sizes that Standard Webhooks allows for a key.
const WHSEC_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// What its public keys begin with.
const WHPK: &[u8] = b"whpk_";

/// A secret with a name that may be shown in a metric, and the time in which it counts.
#[derive(Clone)]
pub struct ActiveSecret {
    name: Arc<str>,
    key: Key,
    /// What an `equal` scheme sends, and what special schemes make something else of.
    token: Option<Secret>,
    /// For `sign` only.
    private: Option<PrivateKey>,
    not_before: Option<UnixMs>,
    not_after: Option<UnixMs>,
    key_id: Option<Arc<str>>,
}

impl ActiveSecret {
    /// The secret or public key as a dashboard shows it, made ready for `scheme`.
    ///
    /// # Errors
    /// A secret that is blank, too short, not spelled as the scheme says, or looks like a variable
    /// that nobody expanded.
    pub fn new(name: &str, secret: &Secret, scheme: &Scheme) -> Result<Self, SchemeError> {
        let text = secret.expose();
        refuse_no_secret(text)?;
        let alg = alg_of(text, scheme);
        let is_token = alg == Alg::Equal;
        let bytes = key_bytes(secret, alg, scheme)?;
        let key = match (alg, scheme.key) {
            (Alg::Ed25519 | Alg::EcdsaP256, KeyForm::Spki) => Key::spki(alg, bytes.expose())?,
            (Alg::Ed25519, _) => Key::ed25519(bytes.expose())?,
            (_, _) => Key::shared(alg, bytes.expose())?,
        };
        Ok(Self {
            name: name.into(),
            key,
            token: is_token.then_some(bytes),
            private: None,
            not_before: None,
            not_after: None,
            key_id: None,
        })
    }

    /// A private key, to sign as the provider of a public-key scheme does: PKCS #8 (PEM, or base64 of
    /// its DER), `whsk_`, or an Ed25519 seed in hex. Never needed to verify.
    ///
    /// # Errors
    /// A scheme that has shared secrets, or a text that is no private key.
    pub fn signing(name: &str, secret: &Secret, scheme: &Scheme) -> Result<Self, SchemeError> {
        let Some(alg) = scheme.algs().find(|alg| alg.is_public_key()) else {
            let hint = "it signs with the endpoint's own secret";
            return Err(error("this scheme has no private key", hint));
        };
        let private = private_key(alg, secret.expose()).ok_or_else(|| {
            let hint = "PKCS #8 in PEM, whsk_ and base64, or the hex of an Ed25519 seed";
            error("this is no private key", hint)
        })?;
        Ok(Self {
            name: name.into(),
            key: private.public(),
            token: None,
            private: Some(private),
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

    /// The secret's own bytes, where its scheme is `equal`.
    pub(super) fn token(&self) -> &[u8] {
        self.token.as_ref().map_or(&[], |token| token.expose())
    }

    /// The code that authenticates `pieces`, taken one after the other; empty, which equals no
    /// signature, where there is only a public key.
    pub(super) fn mac<T: AsRef<[u8]>>(&self, pieces: &[T]) -> Vec<u8> {
        self.sign(pieces).unwrap_or_default()
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

    /// Whether everybody may know it.
    #[must_use]
    pub fn is_public_key(&self) -> bool {
        self.key.alg().is_public_key()
    }

    pub(super) fn alg(&self) -> Alg {
        self.key.alg()
    }

    /// Begins to check what a header offers.
    pub(super) fn begin(&self, offered: &[Offered]) -> Running {
        self.key.begin(offered)
    }

    /// The signature of `pieces`, taken one after the other; `None` without the private key.
    pub(super) fn sign<T: AsRef<[u8]>>(&self, pieces: &[T]) -> Option<Vec<u8>> {
        if let Some(private) = &self.private {
            let message: Vec<u8> = pieces.iter().flat_map(|p| p.as_ref()).copied().collect();
            return private.sign(&message);
        }
        if let Some(token) = &self.token {
            return Some(token.expose().to_vec());
        }
        let mut running = self.key.begin(&[]);
        pieces
            .iter()
            .for_each(|piece| running.update(piece.as_ref()));
        (!self.is_public_key()).then(|| running.code())
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

fn error(problem: &str, hint: &'static str) -> SchemeError {
    SchemeError::new("secrets", problem, hint)
}

fn refuse_no_secret(text: &[u8]) -> Result<(), SchemeError> {
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
    Ok(())
}

/// Which of the scheme's algorithms this secret is for: with several of them its prefix says so.
fn alg_of(text: &[u8], scheme: &Scheme) -> Alg {
    let other = scheme.algs().find(|alg| *alg != scheme.alg);
    match other {
        Some(other) if text.starts_with(WHPK) => other,
        Some(_) | None => scheme.alg,
    }
}

fn key_bytes(secret: &Secret, alg: Alg, scheme: &Scheme) -> Result<Secret, SchemeError> {
    let text = secret.expose();
    if text.starts_with(b"whsk_") {
        let hint = "give the public key, whpk_…; the private one stays with whoever signs";
        return Err(error("a secret is a private key", hint));
    }
    let key = match scheme.key {
        KeyForm::Utf8 => secret.clone(),
        KeyForm::Hex => {
            let bytes = hex::decode(text);
            Secret::new(bytes.map_err(|_| error("a secret is not hex", "check `key`"))?)
        }
        KeyForm::Base64 | KeyForm::Spki => base64_key(text)?,
        KeyForm::Whsec if alg.is_public_key() => whpk(text)?,
        KeyForm::Whpk => whpk(text)?,
        KeyForm::Whsec => base64_key(text.strip_prefix(b"whsec_").unwrap_or(text))?,
    };
    if alg.is_public_key() {
        return Ok(key);
    }
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

fn whpk(text: &[u8]) -> Result<Secret, SchemeError> {
    let hint = "whpk_ and base64, as the provider shows it";
    let bytes = text.strip_prefix(WHPK);
    base64_key(bytes.ok_or_else(|| error("a public key does not begin with whpk_", hint))?)
}

fn private_key(alg: Alg, text: &[u8]) -> Option<PrivateKey> {
    let text = text.trim_ascii();
    if let Some(base64) = text.strip_prefix(b"whsk_") {
        return PrivateKey::ed25519(base64_key(base64).ok()?.expose());
    }
    if let (Alg::Ed25519, Ok(bytes)) = (alg, hex::decode(text)) {
        return PrivateKey::ed25519(&bytes);
    }
    let lines = text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    let base64: Vec<u8> = lines
        .filter(|line| !line.starts_with(b"-----"))
        .flatten()
        .copied()
        .collect();
    PrivateKey::pkcs8(alg, base64_key(&base64).ok()?.expose())
}

/// Dashboards differ about padding, and a secret's spelling is not a question of security.
fn base64_key(text: &[u8]) -> Result<Secret, SchemeError> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&ALPHABET, config).decode(text);
    bytes
        .map(Secret::new)
        .map_err(|_| error("a secret is not base64", "check `key`"))
}
