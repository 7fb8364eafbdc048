//! What proves that a provider signed, and how a secret's text becomes the key for it.

use sha1::Sha1;
use sha2::digest::OutputSizeUser;
use sha2::{Sha256, Sha512};

/// What proves authenticity.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Alg {
    HmacSha256,
    HmacSha512,
    HmacSha1,
    /// Public key of 32 bytes, signature of 64.
    Ed25519,
    /// Over SHA-256, the signature in DER. Both halves of a signature's malleable pair pass: what was
    /// signed is the same, and nothing is ever recognised again by its signature.
    EcdsaP256,
    /// A shared token that is sent as it is; it says nothing of the body.
    Equal,
}

/// How a secret's text becomes key bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyForm {
    Utf8,
    Hex,
    Base64,
    /// Base64 after an optional `whsec_` (Standard Webhooks), 24 to 64 bytes. Where the scheme takes
    /// Ed25519 signatures too, `whpk_` begins a public key.
    Whsec,
    /// Base64 after `whpk_`: an Ed25519 public key.
    Whpk,
    /// Base64 of a public key's SubjectPublicKeyInfo, as in a PEM file between its two lines.
    Spki,
}

impl Alg {
    /// By its name in a file.
    #[must_use]
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "hmac-sha256" => Self::HmacSha256,
            "hmac-sha512" => Self::HmacSha512,
            "hmac-sha1" => Self::HmacSha1,
            "ed25519" => Self::Ed25519,
            "ecdsa-p256" => Self::EcdsaP256,
            "equal" => Self::Equal,
            _ => return None,
        })
    }

    /// Whether the checking side needs no secret.
    #[must_use]
    pub fn is_public_key(self) -> bool {
        match self {
            Self::Ed25519 | Self::EcdsaP256 => true,
            Self::HmacSha256 | Self::HmacSha512 | Self::HmacSha1 | Self::Equal => false,
        }
    }

    /// Bytes of a MAC, of a signature, or of a token's digest; `None` where they vary.
    pub(in crate::webhook) fn output_len(self) -> Option<usize> {
        match self {
            Self::HmacSha256 | Self::Equal => Some(Sha256::output_size()),
            Self::HmacSha512 => Some(Sha512::output_size()),
            Self::HmacSha1 => Some(Sha1::output_size()),
            Self::Ed25519 => Some(64),
            Self::EcdsaP256 => None,
        }
    }
}
