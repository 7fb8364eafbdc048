//! Puts into words what the cache did: `x-cache` and `Cache-Status` (RFC 9211). Decides nothing.
//!
//! `stored` is not claimed in a header: the header leaves before the body is complete, and storing
//! can still fail (too large, cut off, fenced). A member without it says nothing about storing; where
//! it is already certain that nothing will be stored, `stored=?0` and the reason say so. Whoever asks
//! after the body (log, admin) can give [`Stored::Yes`].

use http::{HeaderMap, HeaderValue};

use crate::kernel::header::{CACHE_STATUS, X_CACHE};

use super::Bypass;

/// What the cache did for one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Answered from the store, fresh.
    Hit { ttl_s: i64 },
    /// Waited for another request's fetch and was answered from the store.
    Collapsed { ttl_s: i64 },
    /// Answered stale while a background fetch is under way.
    StaleWhileRevalidate { ttl_s: i64 },
    /// Answered stale because the origin failed.
    Stale { ttl_s: i64 },
    /// The origin confirmed the stored response.
    Revalidated { ttl_s: i64 },
    /// The origin's response.
    Miss { forward: Forward, stored: Stored },
    /// The cache took no part.
    Bypass(Bypass),
}

/// Why a request with a part for the cache went to the origin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Forward {
    /// Nothing stored.
    Absent,
    /// What was stored is stale.
    Stale,
}

/// Whether the response was put in the store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stored {
    Yes,
    /// With the reason.
    No(&'static str),
    /// Not yet known.
    Open,
}

impl Outcome {
    /// The value of `x-cache`.
    #[must_use]
    pub fn x_cache(self) -> &'static str {
        match self {
            Self::Hit { .. } | Self::Collapsed { .. } => "HIT",
            Self::StaleWhileRevalidate { .. } | Self::Stale { .. } => "STALE",
            Self::Revalidated { .. } => "REVALIDATED",
            Self::Miss { .. } => "MISS",
            Self::Bypass(_) => "BYPASS",
        }
    }

    /// The value of `Cache-Status`.
    #[must_use]
    pub fn cache_status(self) -> String {
        match self {
            Self::Hit { ttl_s } => format!("maitred; hit; ttl={ttl_s}"),
            // RFC 9211, 2.6: true says that no request of its own was made.
            Self::Collapsed { ttl_s } => format!("maitred; fwd=miss; collapsed; ttl={ttl_s}"),
            Self::StaleWhileRevalidate { ttl_s } => {
                format!("maitred; hit; ttl={ttl_s}; detail=stale-while-revalidate")
            }
            Self::Stale { ttl_s } => {
                format!("maitred; fwd=stale; ttl={ttl_s}; detail=stale-if-error")
            }
            Self::Revalidated { ttl_s } => {
                format!("maitred; fwd=stale; fwd-status=304; ttl={ttl_s}")
            }
            Self::Miss { forward, stored } => {
                let forward = match forward {
                    Forward::Absent => "miss",
                    Forward::Stale => "stale",
                };
                match stored {
                    Stored::Yes => format!("maitred; fwd={forward}; stored"),
                    Stored::No(why) => format!("maitred; fwd={forward}; stored=?0; detail={why}"),
                    Stored::Open => format!("maitred; fwd={forward}"),
                }
            }
            Self::Bypass(Bypass::Method) => "maitred; fwd=method".to_owned(),
            Self::Bypass(why) => format!("maitred; fwd=bypass; detail={}", why.as_str()),
        }
    }

    /// Sets both fields. `Cache-Status` of caches nearer to the origin stays, before ours
    /// (RFC 9211, section 2: the list runs from the origin to the client).
    pub fn write(self, headers: &mut HeaderMap) {
        let (x_cache, cache_status) = self.values();
        headers.insert(X_CACHE, x_cache);
        headers.append(CACHE_STATUS, cache_status);
    }

    /// The values of `x-cache`, which replaces any other, and of our member of `Cache-Status`, which
    /// is appended.
    #[must_use]
    pub fn values(self) -> (HeaderValue, HeaderValue) {
        let x_cache = HeaderValue::from_static(self.x_cache());
        // Made of tokens and numbers; the fallback is for the compiler.
        let cache_status = HeaderValue::try_from(self.cache_status())
            .unwrap_or(HeaderValue::from_static("maitred"));
        (x_cache, cache_status)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::{Forward, Outcome, Stored};
    use crate::cache::Bypass;

    #[test]
    fn rfc9211_2_members_and_x_cache() {
        let miss = |stored| Outcome::Miss {
            forward: Forward::Absent,
            stored,
        };
        for (outcome, x_cache, cache_status) in [
            (Outcome::Hit { ttl_s: 12 }, "HIT", "maitred; hit; ttl=12"),
            (
                Outcome::Collapsed { ttl_s: 12 },
                "HIT",
                "maitred; fwd=miss; collapsed; ttl=12",
            ),
            (
                Outcome::StaleWhileRevalidate { ttl_s: -3 },
                "STALE",
                "maitred; hit; ttl=-3; detail=stale-while-revalidate",
            ),
            (
                Outcome::Stale { ttl_s: -3 },
                "STALE",
                "maitred; fwd=stale; ttl=-3; detail=stale-if-error",
            ),
            (
                Outcome::Revalidated { ttl_s: 30 },
                "REVALIDATED",
                "maitred; fwd=stale; fwd-status=304; ttl=30",
            ),
            (miss(Stored::Yes), "MISS", "maitred; fwd=miss; stored"),
            (miss(Stored::Open), "MISS", "maitred; fwd=miss"),
            (
                miss(Stored::No("no-store")),
                "MISS",
                "maitred; fwd=miss; stored=?0; detail=no-store",
            ),
            (
                Outcome::Bypass(Bypass::Method),
                "BYPASS",
                "maitred; fwd=method",
            ),
            (
                Outcome::Bypass(Bypass::Off),
                "BYPASS",
                "maitred; fwd=bypass; detail=off",
            ),
        ] {
            assert_eq!(outcome.x_cache(), x_cache);
            assert_eq!(outcome.cache_status(), cache_status);
        }
    }

    #[test]
    fn rfc9211_2_ours_comes_after_the_origins() {
        let mut headers = HeaderMap::new();
        headers.append("cache-status", "OriginCache; hit".parse().unwrap());
        Outcome::Hit { ttl_s: 1 }.write(&mut headers);
        let all: Vec<_> = headers.get_all("cache-status").iter().collect();
        assert_eq!(all, ["OriginCache; hit", "maitred; hit; ttl=1"]);
    }
}
