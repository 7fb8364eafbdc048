//! What a configuration file says about a scheme: strings and numbers as they were written. Judges
//! nothing; `Scheme::build` does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a provider signs, as written in a file. Every field but `header` has a default.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchemeSpec {
    /// Header that carries the signature, e.g. `X-Signature`.
    pub header: String,
    /// How many lines of that header are accepted. Default 1.
    pub lines_max: Option<u32>,
    /// Byte that separates the items of that header: a space, `,` or `;`. Absent: one item.
    pub split: Option<String>,
    /// What an item looks like: literal text with one `{sig}` or `{ts}`. Default `["{sig}"]`.
    /// `{sig:ed25519}` names another algorithm than `alg`.
    #[serde(rename = "match")]
    pub items: Vec<String>,
    /// `hmac-sha256` (default), `hmac-sha512`, `hmac-sha1`, `ed25519`, `ecdsa-p256` or `equal`.
    pub alg: Option<String>,
    /// `hex` (default), `HEX`, `base64`, `base64url`; for `equal` also `text` (its default).
    pub encoding: Option<String>,
    /// How a secret's text becomes key bytes: `utf8` (default), `hex`, `base64` or `whsec`;
    /// for public keys `spki` (default), `hex`, `base64` or `whpk`.
    pub key: Option<String>,
    /// The signed bytes: literal text with `{body}`, `{ts}`, `{method}`, `{url}`, `{url:decoded}`,
    /// `{header:NAME}`, `{query:NAME}` and `[optional groups]`.
    pub signed: Option<String>,
    /// Must be written out where the signature does not cover the body.
    pub unsigned_body: bool,
    /// Where the time of signing is and how old it may be. Absent: the scheme has none.
    pub ts: Option<TsSpec>,
    /// The event's own id: `header:NAME` or `json:/pointer`.
    pub id: Option<String>,
    /// `reject` (default with `ts`): a second arrival is 401; `ack` (default without): 200.
    pub replay: Option<String>,
    /// What `{url}` stands for; the URL exactly as it is registered at the provider.
    pub public_url: Option<String>,
    /// Shortest secret that is accepted, in bytes of key. Default 16.
    pub secret_bytes_min: Option<u32>,
}

/// The timestamp of a scheme, as written in a file.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TsSpec {
    /// `match` (an item of the signature header), `header:NAME` or `json:/pointer` (signed body).
    pub from: String,
    /// `s`, `ms`, `auto` (10 digits are seconds, 13 are milliseconds) or `rfc3339`.
    pub unit: String,
    /// Oldest timestamp accepted, in seconds.
    #[serde(default = "tolerance_s")]
    pub past_s: u32,
    /// Furthest timestamp ahead of our clock accepted, in seconds.
    #[serde(default = "tolerance_s")]
    pub future_s: u32,
}

fn tolerance_s() -> u32 {
    300
}
