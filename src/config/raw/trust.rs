//! Raw shape of who is believed: secrets, token issuers, webhook schemes and endpoints.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InboxEngine, ReplayStore};

/// Where a secret is found: the variable, else the file, else (development only) the text itself.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSource {
    /// Name of the environment variable that holds it.
    pub env: Option<String>,
    /// File that holds it; one trailing line break is not part of the secret.
    pub secret_file: Option<String>,
    /// The secret itself; begins with `dev-`. Refused in production.
    pub danger_secret: Option<String>,
    /// Whether it may be missing.
    #[serde(default)]
    pub optional: bool,
}

/// A secret of a webhook endpoint.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSecret {
    /// Shown in metrics and logs instead of the secret, e.g. `current`.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Name of the environment variable that holds it.
    pub env: Option<String>,
    /// File that holds it; one trailing line break is not part of the secret.
    pub secret_file: Option<String>,
    /// The secret itself; begins with `dev-`. Refused in production.
    pub danger_secret: Option<String>,
    /// The key itself, for schemes whose keys are public.
    pub public_key: Option<String>,
    /// Whether it may be missing, e.g. the previous one of a rotation.
    #[serde(default)]
    pub optional: bool,
    /// RFC 3339, e.g. `2030-01-31T00:00:00Z`: it does not count before.
    pub not_before: Option<String>,
    /// RFC 3339: it does not count from then on.
    pub not_after: Option<String>,
    /// What the provider calls it in its signatures. Braintree: the public key.
    #[schemars(length(min = 1, max = 128))]
    pub key_id: Option<String>,
}

impl WebhookSecret {
    /// Where the secret itself is found.
    #[must_use]
    pub fn source(&self) -> SecretSource {
        SecretSource {
            env: self.env.clone(),
            secret_file: self.secret_file.clone(),
            danger_secret: self.danger_secret.clone(),
            optional: self.optional,
        }
    }
}

/// What the edge tells the API about callers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Signs the identity assertion; the API has the same one. At least 32 characters.
    pub assertion_secret: SecretSource,
}

/// What the edge signs when it delivers a webhook.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Signs deliveries to the API (Standard Webhooks): `whsec_` and base64 of 24 to 64 bytes.
    pub secret: SecretSource,
}

/// A party whose tokens are believed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// `iss` of its tokens.
    #[schemars(length(min = 1))]
    pub issuer: String,
    /// `aud` that must be among theirs.
    #[schemars(length(min = 1))]
    pub audience: String,
    /// Algorithms accepted from it; never taken from the token.
    #[schemars(length(min = 1))]
    pub algorithms: Vec<JwtAlgorithm>,
    /// Difference of clocks that is forgiven.
    #[schemars(range(max = 300))]
    pub leeway_s: u32,
    /// https URL of its JWKS. Either this or `jwks_upstream`.
    pub jwks_url: Option<String>,
    /// Name of one of `upstreams` that serves the JWKS under `jwks_path`.
    pub jwks_upstream: Option<String>,
    /// Path of the JWKS at `jwks_upstream`.
    pub jwks_path: String,
    /// How long fetched keys are used before they are fetched again.
    #[schemars(range(min = 1, max = 86_400))]
    pub keys_ttl_s: u32,
    /// Shortest time between two fetches, whatever unknown key ids arrive.
    #[schemars(range(min = 1, max = 3_600))]
    pub keys_cooldown_s: u32,
}

/// Signature algorithm of a token. Shared-secret algorithms are not offered.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
pub enum JwtAlgorithm {
    EdDSA,
    ES256,
    ES384,
    PS256,
    PS384,
    PS512,
    RS256,
    RS384,
    RS512,
}

/// Webhooks: `POST /webhooks/{endpoint}`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// `false` is refused in production. In development it is accepted and changes nothing in this
    /// version: every webhook is verified, and `maitred sign` makes one that passes.
    pub signature_required: bool,
    /// Replay entries kept at most by this process; when full, new webhooks get 503. On Redis it is
    /// `maxmemory` that bounds them.
    #[schemars(range(min = 1_000), extend("x-reload" = "restart"))]
    pub replay_entries_max: u64,
    /// Where accepted webhooks are remembered.
    #[schemars(extend("x-reload" = "restart"))]
    pub replay_store: ReplayStore,
    /// Where providers post to.
    pub endpoints: BTreeMap<String, Endpoint>,
}

/// Where accepted webhooks are kept until they are delivered, and how much of them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inbox {
    /// Where they are kept.
    pub engine: InboxEngine,
    /// `disk`: folder on a local disk, for this process alone; made at start. Who can read it can read the
    /// webhooks in it.
    #[schemars(length(min = 1))]
    pub path: String,
    /// Webhooks that are pending or dead; when there are so many, new ones get 503.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub entries_max: u64,
    /// What they take; when they take so much, new ones get 503.
    #[schemars(range(min = 1_048_576))]
    pub bytes_max: u64,
    /// An attempt that fails at this age of the webhook is its last one, however long the API was away
    /// before.
    #[schemars(range(min = 60, max = 31_536_000))]
    pub age_max_s: u32,
    /// How long a dead one can still be looked at and redelivered; then it is removed.
    #[schemars(range(min = 60, max = 31_536_000))]
    pub dead_keep_s: u32,
    /// How long a delivered one can still be looked at and redelivered.
    #[schemars(range(max = 31_536_000))]
    pub delivered_keep_s: u32,
    /// What delivered ones take; beyond it the oldest are removed before their time.
    pub delivered_bytes_max: u64,
    /// `disk`: with less free space on the disk than this, new webhooks get 503. Deliveries need some of it.
    pub disk_free_bytes_min: u64,
}

/// One `/webhooks/{name}`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Name of one of `schemes`, else of a preset (`maitred config presets`).
    pub scheme: String,
    /// Who sends, as told to the API; absent = the preset's, else the scheme's name.
    pub provider: Option<String>,
    /// All active secrets; each is tried on every request. PayPal: the webhook's id.
    #[schemars(length(max = 16))]
    pub secrets: Vec<WebhookSecret>,
    /// What happens to a verified event.
    pub mode: Mode,
    /// Name of one of `upstreams`: where the events are delivered.
    pub upstream: String,
    /// Stored events with the same value here are delivered one after the other, in the order of their
    /// arrival: `json:/pointer` or `header:NAME`; absent = each goes for itself.
    pub order_key: Option<String>,
    /// How long an event that cannot be delivered holds back those of its order key; 0 = until it is
    /// delivered or a dead letter.
    #[schemars(range(max = 604_800))]
    pub order_timeout_s: u32,
    /// URL exactly as the provider has it on record, for schemes that sign it.
    pub public_url: Option<String>,
    /// Names of `classes` that count by address; counted before anything is verified.
    pub limits: Vec<String>,
    /// Longest body; beyond it 413.
    #[schemars(range(min = 1, max = 67_108_864))]
    pub body_bytes_max: u64,
    /// Whole time for the body to arrive.
    #[schemars(range(min = 100, max = 600_000))]
    pub body_timeout_ms: u64,
    /// Takes the unsigned verification code that Clover sends while a URL is registered, and writes
    /// it into the log. Accepted in production, with a notice: switch it off afterwards.
    pub danger_clover_verification: bool,
}

/// What happens to a verified event.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Answered with 200 once it is on disk, delivered afterwards, again and again if it must be.
    Store,
    /// Delivered at once; the provider gets the API's verdict.
    Pass,
}

/// How a provider signs. Placeholders: `{body}`, `{ts}`, `{method}`, `{url}`, `{url:decoded}`,
/// `{header:NAME}`, `{query:NAME}`.
#[derive(Clone, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scheme {
    /// Preset (`maitred config presets`) that fills up what is not written here.
    #[serde(skip_serializing)]
    pub preset: Option<String>,
    /// A provider whose scheme is code and not data. Of the other keys count then `replay`,
    /// `handshake`, `secret_bytes_min` and what is said to be for that provider.
    #[serde(skip_serializing)]
    pub special: Option<Special>,
    /// What the provider sends to try the URL out, and the edge answers.
    #[serde(skip_serializing)]
    pub handshake: Option<Handshake>,
    /// For `paypal`: exact hosts that its certificates are fetched from.
    #[serde(skip_serializing)]
    #[schemars(length(max = 8))]
    pub certificate_hosts: Vec<String>,
    /// For `paypal`: PEM file of the authorities that its certificate must come from; absent = those
    /// that browsers trust.
    #[serde(skip_serializing)]
    pub certificate_ca_file: Option<String>,
    /// For `mollie-classic`: says that these messages are not signed and the API knows. Accepted in
    /// production, with a notice: the provider offers nothing better.
    #[serde(skip_serializing)]
    pub danger_unsigned: bool,
    /// The signature's header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Lines of that header accepted; the others must come exactly once.
    #[schemars(range(min = 1, max = 16))]
    pub lines_max: u32,
    /// Separator of several items in that header; absent = the header is one item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// What an item looks like: literal text with one of `{sig}` and `{ts}`. Other items are
    /// ignored. `{sig:ed25519}` = by another algorithm than `alg`.
    #[serde(rename = "match")]
    #[schemars(length(min = 1, max = 16))]
    pub items: Vec<String>,
    /// How the signature is made.
    pub alg: SchemeAlg,
    /// How the signature is written; strict. Absent = `hex`, or `text` where `alg` is `equal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// How the text of a secret becomes key bytes. Absent = `utf8`, or `spki` for public keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyForm>,
    /// The bytes that are signed. A group in brackets vanishes when its placeholder is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<String>,
    /// Must be written out where the provider does not sign the body at all.
    #[serde(default)]
    pub unsigned_body: bool,
    /// Where the signed time is and how old it may be; absent = the scheme has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ts: Option<Timestamp>,
    /// Event id, for logs and the idempotency key: `header:NAME` or `json:/pointer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What a duplicate of an accepted event gets; absent = `reject` with `ts`, else `ack`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// Shortest secret accepted, in bytes.
    #[schemars(range(min = 8, max = 1_024))]
    pub secret_bytes_min: u32,
}

/// A provider whose scheme is code.
#[derive(Clone, Copy, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Special {
    /// Adyen's payments: one signature per item, in the body. Keys are hex.
    AdyenStandard,
    /// Each secret has a `key_id`.
    Braintree,
    /// Not signed at all; needs `danger_unsigned`.
    MollieClassic,
    /// Its secrets are ids of webhooks; needs `certificate_hosts`.
    Paypal,
    Toast,
    /// `alg` is `hmac-sha1` (auth token) or `hmac-sha256` (shared key); the endpoint has a
    /// `public_url` without query.
    Twilio,
}

/// What a provider sends to try a URL out.
#[derive(Clone, Copy, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Handshake {
    Slack,
    Zoom,
    Discord,
    /// GET with `bt_challenge`.
    Braintree,
}

/// A signed moment.
#[derive(Clone, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Timestamp {
    /// `match` (the `{ts}` of the signature header), `header:NAME` or `json:/pointer`.
    #[schemars(length(min = 1))]
    pub from: String,
    /// How the moment is written.
    pub unit: TimeUnit,
    /// Oldest accepted.
    #[schemars(range(min = 1, max = 86_400))]
    pub past_s: u32,
    /// Farthest ahead accepted.
    #[schemars(range(min = 1, max = 86_400))]
    pub future_s: u32,
}

/// Separator of items in a signature header.
#[derive(Clone, Copy, Deserialize, JsonSchema, Serialize)]
pub enum Split {
    #[serde(rename = " ")]
    Space,
    #[serde(rename = ",")]
    Comma,
    #[serde(rename = ";")]
    Semicolon,
}

/// How a webhook's signature is made.
#[derive(Clone, Copy, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SchemeAlg {
    HmacSha256,
    HmacSha512,
    HmacSha1,
    Ed25519,
    /// Over SHA-256, the signature in DER.
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// The header is the secret itself.
    Equal,
}

/// How a signature is written.
#[derive(Clone, Copy, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Encoding {
    /// Lower case.
    #[serde(rename = "hex")]
    HexLower,
    /// Upper case.
    #[serde(rename = "HEX")]
    HexUpper,
    #[serde(rename = "base64")]
    Base64,
    #[serde(rename = "base64url")]
    Base64Url,
    /// As it is; for `equal` only.
    #[serde(rename = "text")]
    Text,
}

/// How the text of a secret becomes key bytes.
#[derive(Clone, Copy, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyForm {
    /// Its characters.
    Utf8,
    Hex,
    Base64,
    /// Base64 after the prefix `whsec_`; with `{sig:ed25519}` also `whpk_`.
    Whsec,
    /// Base64 of an Ed25519 public key after the prefix `whpk_`.
    Whpk,
    /// A public key as in a PEM file between its two lines.
    Spki,
}

/// How a moment is written.
#[derive(Clone, Copy, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// Seconds since 1970.
    S,
    /// Milliseconds since 1970.
    Ms,
    /// Either, told apart by the number of digits.
    Auto,
    Rfc3339,
}

/// What a duplicate of an accepted event gets.
#[derive(Clone, Copy, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Replay {
    /// 401.
    Reject,
    /// 200 without a second delivery.
    Ack,
}
