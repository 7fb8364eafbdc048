//! Answers the messages with which providers try a URL out. Decides which messages those are and what
//! the provider's rule says back; everything else is an event.
//!
//! An answer that is a MAC under the endpoint's own key must never be good for anything else: the
//! texts that are signed for the asking cannot be mistaken for a message.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::pointer::Pointer;
use super::verify::Verified;
use super::{Endpoint, Rules};
use crate::kernel::clock::UnixMs;
use crate::kernel::reply::Reply;

/// Longest token that is sent back.
const TOKEN_BYTES_MAX: usize = 256;

/// How a provider tries a URL out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handshake {
    /// `url_verification`, signed: its challenge is sent back.
    Slack,
    /// `endpoint.url_validation`, signed: its token is sent back with a MAC of it.
    Zoom,
    /// PING (`type` 1), signed: PONG.
    Discord,
    /// GET with `bt_challenge`: answered with a MAC of it; see [`challenge`].
    Braintree,
    /// A code that somebody has to type in at Clover, unsigned: see [`code`].
    DangerClover,
}

/// The answer to a verified message that is a handshake; `None` = it is an event. Such a message is
/// not delivered and not remembered: the answer to it is always the same.
#[must_use]
pub fn answer(endpoint: &Endpoint, verified: &Verified, body: &[u8]) -> Option<Reply> {
    match endpoint.handshake? {
        Handshake::Slack => slack(body),
        Handshake::Zoom => zoom(endpoint, verified, body),
        Handshake::Discord => {
            (at("/type", body)? == "1").then(|| Reply::json(StatusCode::OK, &json!({ "type": 1 })))
        }
        Handshake::Braintree | Handshake::DangerClover => None,
    }
}

/// The answer to a GET of the endpoint's URL. Whoever asks gets it, as at any receiver of Braintree's;
/// it is good for nothing but this.
#[must_use]
pub fn challenge(endpoint: &Endpoint, query: &str, now: UnixMs) -> Option<Reply> {
    let Rules::Special(special) = endpoint.scheme.as_ref() else {
        return None;
    };
    let asked = endpoint.handshake? == Handshake::Braintree;
    let challenge = query.strip_prefix("bt_challenge=").filter(|_| asked)?;
    let secret = endpoint.secrets.iter().find(|s| s.is_active(now))?;
    let answer = special.challenge_answer(secret, challenge)?;
    Some(text(answer))
}

/// A code that came unsigned, for the operator to type in at the provider.
#[derive(Clone, Eq, PartialEq)]
pub struct Code(String);

impl Code {
    /// The code. To be shown to the operator, once, and to nobody else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// The code in a message that failed verification, and the empty 200 that Clover wants. Only where the
/// operator has switched it on for the time of the registration.
#[must_use]
pub fn code(endpoint: &Endpoint, body: &[u8]) -> Option<(Code, Reply)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Message {
        verification_code: String,
    }
    match endpoint.handshake? {
        Handshake::DangerClover => {}
        Handshake::Slack | Handshake::Zoom | Handshake::Discord | Handshake::Braintree => {
            return None;
        }
    }
    let message: Message = serde_json::from_slice(body).ok()?;
    let code = message.verification_code;
    is_uuid(code.as_bytes()).then(|| (Code(code), Reply::empty(StatusCode::OK)))
}

fn slack(body: &[u8]) -> Option<Reply> {
    let asked = at("/type", body)? == "url_verification";
    let challenge = at("/challenge", body).filter(|_| asked)?;
    let plain = challenge.bytes().all(|b| b.is_ascii_graphic());
    (plain && challenge.len() <= TOKEN_BYTES_MAX).then(|| text(challenge))
}

/// Zoom signs its messages with the same key, over `v0:…`. A token with a colon would be a message.
fn zoom(endpoint: &Endpoint, verified: &Verified, body: &[u8]) -> Option<Reply> {
    let asked = at("/event", body)? == "endpoint.url_validation";
    let token = at("/payload/plainToken", body).filter(|_| asked)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(plain) {
        return None;
    }
    let secret = endpoint
        .secrets
        .iter()
        .find(|s| *s.name() == verified.secret_name)?;
    let mac = hex::encode(secret.mac(&[token.as_bytes()]));
    let answer = json!({ "plainToken": token, "encryptedToken": mac });
    Some(Reply::json(StatusCode::OK, &answer))
}

fn at(pointer: &str, body: &[u8]) -> Option<String> {
    Pointer::parse(pointer)?.find(body)
}

fn text(body: String) -> Reply {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut reply = Reply::empty(StatusCode::OK).with(CONTENT_TYPE, plain);
    reply.body = body.into();
    reply
}

fn is_uuid(text: &[u8]) -> bool {
    let shape = b"00000000-0000-0000-0000-000000000000";
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'-' => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == shape.len() && text.iter().zip(shape).all(fits)
}

#[cfg(test)]
mod tests;
