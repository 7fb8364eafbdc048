//! Reads the keys of a `SchemeSpec` one by one. What several keys must satisfy together is decided by
//! `Scheme::build`.

use http::HeaderName;

use super::{
    Alg, Encoding, IdFrom, KeyForm, OnReplay, Pattern, SchemeError, TsFrom, TsRule, TsSpec, Unit,
};
use crate::webhook::pointer::Pointer;

const SECRET_BYTES_MIN: usize = 16;
/// No configuration may go below this.
const SECRET_BYTES_FLOOR: usize = 8;

/// No provider is known to send more lines of one header.
const LINES_MAX: usize = 16;

/// Collects what is wrong and goes on, so that an operator sees everything at once.
#[derive(Default)]
pub(super) struct Errors(pub(super) Vec<SchemeError>);

impl Errors {
    pub(super) fn take<T>(&mut self, result: Result<T, SchemeError>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }
}

pub(super) fn header_name(key: &'static str, text: &str) -> Result<HeaderName, SchemeError> {
    text.parse().map_err(|_| {
        SchemeError::new(
            key,
            format!("`{text}` is not a header name"),
            "e.g. X-Signature",
        )
    })
}

pub(super) fn split_byte(text: Option<&str>) -> Result<Option<u8>, SchemeError> {
    match text {
        None => Ok(None),
        Some(" ") => Ok(Some(b' ')),
        Some(",") => Ok(Some(b',')),
        Some(";") => Ok(Some(b';')),
        Some(other) => Err(SchemeError::new(
            "split",
            format!("`{other}` does not separate items"),
            "use \" \", \",\" or \";\"",
        )),
    }
}

pub(super) fn lines_max(lines: Option<u32>) -> Result<usize, SchemeError> {
    match usize::try_from(lines.unwrap_or(1)) {
        Ok(lines @ 1..=LINES_MAX) => Ok(lines),
        Ok(_) | Err(_) => Err(SchemeError::new(
            "lines_max",
            format!("not between 1 and {LINES_MAX}"),
            "1, unless the provider sends several lines of the header on purpose",
        )),
    }
}

/// An algorithm that is not known has been complained about already.
pub(super) fn patterns(texts: &[String], alg: Option<Alg>) -> Result<Vec<Pattern>, SchemeError> {
    let alg = alg.unwrap_or(Alg::HmacSha256);
    if texts.is_empty() {
        return Ok(vec![Pattern::whole(alg)]);
    }
    texts.iter().map(|text| Pattern::parse(text, alg)).collect()
}

pub(super) fn algorithm(text: Option<&str>) -> Result<Alg, SchemeError> {
    let name = text.unwrap_or("hmac-sha256");
    Alg::named(name).ok_or_else(|| {
        SchemeError::new(
            "alg",
            format!("`{name}` is not known"),
            "use hmac-sha256, hmac-sha512, hmac-sha1, ed25519, ecdsa-p256 or equal",
        )
    })
}

pub(super) fn encoding(text: Option<&str>, alg: Option<Alg>) -> Result<Encoding, SchemeError> {
    let default = if alg == Some(Alg::Equal) {
        "text"
    } else {
        "hex"
    };
    match text.unwrap_or(default) {
        "hex" => Ok(Encoding::HexLower),
        "HEX" => Ok(Encoding::HexUpper),
        "base64" => Ok(Encoding::Base64),
        "base64url" => Ok(Encoding::Base64Url),
        "text" => Ok(Encoding::Text),
        other => Err(SchemeError::new(
            "encoding",
            format!("`{other}` is not known"),
            "use hex, HEX, base64, base64url or (with equal) text",
        )),
    }
}

pub(super) fn key_form(text: Option<&str>, alg: Option<Alg>) -> Result<KeyForm, SchemeError> {
    let default = if alg.is_some_and(Alg::is_public_key) {
        "spki"
    } else {
        "utf8"
    };
    match text.unwrap_or(default) {
        "utf8" => Ok(KeyForm::Utf8),
        "hex" => Ok(KeyForm::Hex),
        "base64" => Ok(KeyForm::Base64),
        "whsec" => Ok(KeyForm::Whsec),
        "whpk" => Ok(KeyForm::Whpk),
        "spki" => Ok(KeyForm::Spki),
        other => Err(SchemeError::new(
            "key",
            format!("`{other}` is not known"),
            "use utf8, hex, base64, whsec, whpk or spki",
        )),
    }
}

pub(super) fn ts_rule(spec: &TsSpec) -> Result<TsRule, SchemeError> {
    let unit = match spec.unit.as_str() {
        "s" => Unit::Seconds,
        "ms" => Unit::Milliseconds,
        "auto" => Unit::Auto,
        "rfc3339" => Unit::Rfc3339,
        other => {
            let problem = format!("`{other}` is not known");
            return Err(SchemeError::new(
                "ts.unit",
                problem,
                "use s, ms, auto or rfc3339",
            ));
        }
    };
    let from = match source("ts.from", &spec.from) {
        _ if spec.from == "match" => TsFrom::Item,
        Ok(Source::Header(name)) => TsFrom::Header(name),
        Ok(Source::Json(pointer)) => TsFrom::Json(pointer),
        Err(error) => return Err(error),
    };
    Ok(TsRule {
        from,
        unit,
        past_s: spec.past_s,
        future_s: spec.future_s,
    })
}

pub(super) fn id_source(text: &str) -> Result<IdFrom, SchemeError> {
    Ok(match source("id", text)? {
        Source::Header(name) => IdFrom::UnsignedHeader(name),
        Source::Json(pointer) => IdFrom::UnsignedJson(pointer),
    })
}

enum Source {
    Header(HeaderName),
    Json(Pointer),
}

fn source(key: &'static str, text: &str) -> Result<Source, SchemeError> {
    if let Some(name) = text.strip_prefix("header:") {
        return header_name(key, name).map(Source::Header);
    }
    let pointer = text.strip_prefix("json:").and_then(Pointer::parse);
    pointer.map(Source::Json).ok_or_else(|| {
        SchemeError::new(
            key,
            format!("`{text}` is no source"),
            "use header:NAME or json:/pointer",
        )
    })
}

pub(super) fn on_replay(text: Option<&str>, has_ts: bool) -> Result<OnReplay, SchemeError> {
    match (text, has_ts) {
        (None | Some("reject"), true) => Ok(OnReplay::Reject),
        (None, false) | (Some("ack"), _) => Ok(OnReplay::Ack),
        // Without a timestamp an honest retry is the same bytes again, and a 401 would make some
        // providers switch the endpoint off.
        (Some("reject"), false) => Err(SchemeError::new(
            "replay",
            "`reject` needs a scheme with a timestamp",
            "use ack",
        )),
        (Some(other), _) => Err(SchemeError::new(
            "replay",
            format!("`{other}` is not known"),
            "use reject or ack",
        )),
    }
}

pub(super) fn secret_bytes_min(bytes: Option<u32>) -> Result<usize, SchemeError> {
    let least = bytes.map_or(SECRET_BYTES_MIN, |b| {
        usize::try_from(b).unwrap_or(usize::MAX)
    });
    if least < SECRET_BYTES_FLOOR {
        let problem = format!("{least} is too short for any secret");
        return Err(SchemeError::new(
            "secret_bytes_min",
            problem,
            "use 16 or more",
        ));
    }
    Ok(least)
}
