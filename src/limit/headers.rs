//! Says to a client what a limit decided: `RateLimit-Policy` and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers), the older `X-RateLimit-*`, and the refusals. Decides nothing.

use http::{HeaderName, HeaderValue};

use super::concurrency::Full;
use super::{Decision, headers};
use crate::kernel::header::{
    RATELIMIT, RATELIMIT_POLICY, X_RATELIMIT_LIMIT, X_RATELIMIT_REMAINING, X_RATELIMIT_RESET,
};
use crate::kernel::reject::{Code, Reject};

/// Seconds after which a caller with too many streams may try again: a closed one is noticed within
/// one second.
const STREAM_RETRY_S: u32 = 5;

/// The headers for an answer on a limited route.
#[must_use]
pub fn of(decision: &Decision) -> Vec<(HeaderName, HeaderValue)> {
    let (quota, window) = (decision.quota.requests, decision.quota.window_s);
    let (remaining, reset) = (decision.remaining, decision.reset_s);
    let mut headers = vec![
        (X_RATELIMIT_LIMIT, HeaderValue::from(quota.get())),
        (X_RATELIMIT_REMAINING, HeaderValue::from(remaining)),
        (X_RATELIMIT_RESET, HeaderValue::from(reset)),
    ];
    if let Some(name) = sf_string(&decision.policy) {
        let policy = format!("{name};q={quota};w={window}");
        let state = format!("{name};r={remaining};t={reset}");
        for (header, text) in [(RATELIMIT_POLICY, policy), (RATELIMIT, state)] {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.push((header, value));
            }
        }
    }
    headers
}

/// A string of structured fields (RFC 9651); `None` for names that no such string can hold.
fn sf_string(text: &str) -> Option<String> {
    let printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    printable.then(|| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

impl Decision {
    /// The refusal, if it is one.
    ///
    /// # Errors
    /// 429 with `Retry-After`.
    pub fn into_result(self) -> Result<Self, Reject> {
        let Some(seconds) = self.retry_after_s else {
            return Ok(self);
        };
        let (requests, window) = (self.quota.requests, self.quota.window_s);
        let reason = format!(
            "limit `{}` of {requests} in {window} s is used up",
            self.policy
        );
        Err(Reject::new(Code::RateLimited, "rate", reason).retry_after(seconds))
    }

    /// See [`of`].
    #[must_use]
    pub fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        headers::of(self)
    }
}

impl From<Full> for Reject {
    fn from(full: Full) -> Self {
        Self::new(Code::TooManyStreams, "concurrency", full.to_string()).retry_after(STREAM_RETRY_S)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::of;
    use crate::limit::{Decision, Quota};

    fn decision(policy: &str, retry_after_s: Option<u32>) -> Decision {
        let quota = Quota {
            requests: NonZeroU32::new(60).unwrap(),
            window_s: NonZeroU32::new(60).unwrap(),
        };
        Decision {
            policy: policy.into(),
            quota,
            remaining: 59,
            reset_s: 12,
            retry_after_s,
        }
    }

    fn shown(policy: &str) -> String {
        let headers = of(&decision(policy, None));
        let lines = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_headers_are_those_of_the_draft() {
        assert_eq!(
            shown("plan"),
            "x-ratelimit-limit: 60\nx-ratelimit-remaining: 59\nx-ratelimit-reset: 12\n\
             ratelimit-policy: \"plan\";q=60;w=60\nratelimit: \"plan\";r=59;t=12"
        );
        assert!(shown("a\"b\\c").contains(r#"ratelimit: "a\"b\\c";r=59"#));
        assert!(!shown("caf\u{e9}").contains("policy"));
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        assert!(decision("plan", None).into_result().is_ok());
        let reject = decision("plan", Some(7)).into_result().unwrap_err();
        assert_eq!(
            (reject.status().as_u16(), reject.retry_after_s),
            (429, Some(7))
        );
    }
}
