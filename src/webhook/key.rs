//! Keys of every algorithm, ready for use: a running computation takes the signed bytes as they come
//! and is compared with what the header offered. Knows bytes; where they come from is `verify`'s.
//!
//! One computation for each shared secret, however many signatures are offered; comparing takes the
//! same time wherever they differ.

use ed25519_dalek::{Signer as _, SigningKey, StreamVerifier, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa;
use p256::ecdsa::signature::hazmat::{PrehashSigner as _, PrehashVerifier as _};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq};

use super::scheme::{Alg, SchemeError};

/// Signatures by public-key algorithms in one header, at most: each of them costs a computation.
pub(super) const PUBLIC_KEY_SIGNATURES_MAX: usize = 4;

/// HMAC states that have taken in the key already, and public keys that were found to be good.
#[derive(Clone)]
pub(super) enum Key {
    HmacSha256(Hmac<Sha256>),
    HmacSha512(Hmac<Sha512>),
    HmacSha1(Hmac<Sha1>),
    /// SHA-256 of the token.
    Token([u8; 32]),
    Ed25519(VerifyingKey),
    EcdsaP256(ecdsa::VerifyingKey),
}

/// What signs as a provider with a public-key scheme does.
#[derive(Clone)]
pub(super) enum PrivateKey {
    Ed25519(SigningKey),
    EcdsaP256(ecdsa::SigningKey),
}

/// A signature as the header offered it, decoded.
pub(super) struct Offered {
    pub(super) alg: Alg,
    bytes: Vec<u8>,
}

impl Offered {
    /// `None` unless `bytes` can be a signature by `alg`. A token is taken by its digest, so that its
    /// length does not show.
    pub(super) fn new(alg: Alg, bytes: Vec<u8>) -> Option<Self> {
        let possible = match alg.output_len() {
            _ if alg == Alg::Equal => !bytes.is_empty(),
            Some(len) => bytes.len() == len,
            None => ecdsa::Signature::from_der(&bytes).is_ok(),
        };
        let bytes = match alg {
            Alg::Equal => Sha256::digest(&bytes).to_vec(),
            Alg::HmacSha256 | Alg::HmacSha512 | Alg::HmacSha1 | Alg::Ed25519 | Alg::EcdsaP256 => {
                bytes
            }
        };
        possible.then_some(Self { alg, bytes })
    }
}

impl Key {
    /// A shared secret; public keys are made by [`Key::ed25519`] and [`Key::ecdsa_p256`].
    pub(super) fn shared(alg: Alg, key: &[u8]) -> Result<Self, SchemeError> {
        Ok(match alg {
            Alg::HmacSha256 => Self::HmacSha256(keyed(key)?),
            Alg::HmacSha512 => Self::HmacSha512(keyed(key)?),
            Alg::HmacSha1 => Self::HmacSha1(keyed(key)?),
            Alg::Equal => Self::Token(Sha256::digest(key).into()),
            Alg::Ed25519 | Alg::EcdsaP256 => return Err(no_key("a shared secret")),
        })
    }

    /// The 32 bytes of a public key. Those of small order are refused: anybody could sign for them.
    pub(super) fn ed25519(bytes: &[u8]) -> Result<Self, SchemeError> {
        let error = || no_key("an Ed25519 public key");
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| error())?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| error())?;
        if key.is_weak() {
            return Err(error());
        }
        Ok(Self::Ed25519(key))
    }

    /// A public key as SubjectPublicKeyInfo.
    pub(super) fn spki(alg: Alg, der: &[u8]) -> Result<Self, SchemeError> {
        use p256::pkcs8::DecodePublicKey as _;
        match alg {
            Alg::Ed25519 => {
                let key = VerifyingKey::from_public_key_der(der)
                    .map_err(|_| no_key("an Ed25519 public key"))?;
                Self::ed25519(key.as_bytes())
            }
            Alg::EcdsaP256 => ecdsa::VerifyingKey::from_public_key_der(der)
                .map(Self::EcdsaP256)
                .map_err(|_| no_key("a P-256 public key")),
            Alg::HmacSha256 | Alg::HmacSha512 | Alg::HmacSha1 | Alg::Equal => {
                Err(no_key("a shared secret"))
            }
        }
    }

    pub(super) fn alg(&self) -> Alg {
        match self {
            Self::HmacSha256(_) => Alg::HmacSha256,
            Self::HmacSha512(_) => Alg::HmacSha512,
            Self::HmacSha1(_) => Alg::HmacSha1,
            Self::Token(_) => Alg::Equal,
            Self::Ed25519(_) => Alg::Ed25519,
            Self::EcdsaP256(_) => Alg::EcdsaP256,
        }
    }

    /// Begins to check what was offered; the signed bytes are still to come.
    pub(super) fn begin(&self, offered: &[Offered]) -> Running {
        match self {
            Self::HmacSha256(state) => Running::HmacSha256(state.clone()),
            Self::HmacSha512(state) => Running::HmacSha512(state.clone()),
            Self::HmacSha1(state) => Running::HmacSha1(state.clone()),
            Self::Token(digest) => Running::Token(*digest),
            Self::Ed25519(key) => {
                let by_this = offered.iter().filter(|o| o.alg == Alg::Ed25519);
                let streams = by_this.filter_map(|o| {
                    let signature = ed25519_dalek::Signature::from_slice(&o.bytes).ok()?;
                    key.verify_stream(&signature).ok()
                });
                Running::Ed25519(streams.collect())
            }
            Self::EcdsaP256(key) => Running::EcdsaP256(*key),
        }
    }
}

/// A computation that takes the signed bytes as they come.
pub(super) enum Running {
    HmacSha256(Hmac<Sha256>),
    HmacSha512(Hmac<Sha512>),
    HmacSha1(Hmac<Sha1>),
    Token([u8; 32]),
    /// One for each signature offered.
    Ed25519(Vec<StreamVerifier>),
    /// Needs no more than the digest of the signed bytes.
    EcdsaP256(ecdsa::VerifyingKey),
}

impl Running {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::HmacSha256(state) => Mac::update(state, bytes),
            Self::HmacSha512(state) => Mac::update(state, bytes),
            Self::HmacSha1(state) => Mac::update(state, bytes),
            Self::Token(_) | Self::EcdsaP256(_) => {}
            Self::Ed25519(streams) => streams.iter_mut().for_each(|s| s.update(bytes)),
        }
    }

    /// The code or the token's digest, for `sign`; nothing for public keys.
    pub(super) fn code(self) -> Vec<u8> {
        match self {
            Self::HmacSha256(state) => state.finalize().into_bytes().to_vec(),
            Self::HmacSha512(state) => state.finalize().into_bytes().to_vec(),
            Self::HmacSha1(state) => state.finalize().into_bytes().to_vec(),
            Self::Token(digest) => digest.to_vec(),
            Self::Ed25519(_) | Self::EcdsaP256(_) => Vec::new(),
        }
    }

    /// Whether any of `offered` was made with this key. `digest` is SHA-256 of the signed bytes.
    pub(super) fn finish(self, alg: Alg, digest: &[u8; 32], offered: &[Offered]) -> bool {
        match self {
            Self::Ed25519(streams) => streams
                .into_iter()
                .fold(false, |hit, s| s.finalize_and_verify().is_ok() | hit),
            Self::EcdsaP256(key) => {
                let by_this = offered.iter().filter(|o| o.alg == alg);
                let good = |o: &Offered| {
                    let signature = ecdsa::Signature::from_der(&o.bytes);
                    signature.is_ok_and(|s| key.verify_prehash(digest, &s).is_ok())
                };
                by_this.fold(false, |hit, o| good(o) | hit)
            }
            Self::HmacSha256(_) | Self::HmacSha512(_) | Self::HmacSha1(_) | Self::Token(_) => {
                let code = self.code();
                let by_this = offered.iter().filter(|o| o.alg == alg);
                let hit = by_this.fold(Choice::from(0), |hit, o| {
                    hit | code.as_slice().ct_eq(&o.bytes)
                });
                hit.into()
            }
        }
    }
}

impl PrivateKey {
    /// A seed of 32 bytes, or seed and public key together.
    pub(super) fn ed25519(bytes: &[u8]) -> Option<Self> {
        let seed: &[u8; 32] = match bytes.len() {
            32 | 64 => bytes.first_chunk()?,
            _ => return None,
        };
        let key = SigningKey::from_bytes(seed);
        let given = bytes.get(32..).filter(|public| !public.is_empty());
        let matches = given.is_none_or(|public| public == key.verifying_key().as_bytes());
        matches.then_some(Self::Ed25519(key))
    }

    /// PKCS #8.
    pub(super) fn pkcs8(alg: Alg, der: &[u8]) -> Option<Self> {
        use p256::pkcs8::DecodePrivateKey as _;
        match alg {
            Alg::Ed25519 => SigningKey::from_pkcs8_der(der).ok().map(Self::Ed25519),
            Alg::EcdsaP256 => ecdsa::SigningKey::from_pkcs8_der(der)
                .ok()
                .map(Self::EcdsaP256),
            Alg::HmacSha256 | Alg::HmacSha512 | Alg::HmacSha1 | Alg::Equal => None,
        }
    }

    /// What others check with.
    pub(super) fn public(&self) -> Key {
        match self {
            Self::Ed25519(key) => Key::Ed25519(key.verifying_key()),
            Self::EcdsaP256(key) => Key::EcdsaP256(*key.verifying_key()),
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Ed25519(key) => Some(key.sign(message).to_vec()),
            Self::EcdsaP256(key) => {
                let signature: ecdsa::Signature =
                    key.sign_prehash(&Sha256::digest(message)).ok()?;
                Some(signature.to_der().as_bytes().to_vec())
            }
        }
    }
}

fn keyed<M: KeyInit>(key: &[u8]) -> Result<M, SchemeError> {
    M::new_from_slice(key).map_err(|_| no_key("a shared secret"))
}

fn no_key(wanted: &str) -> SchemeError {
    let problem = format!("a secret is not {wanted}");
    SchemeError::new("secrets", problem, "check `alg` and `key` of the scheme")
}
