//! Who is calling, as the edge asserts it in `X-Maitred-Identity`. Nothing else a request carries
//! says anything about identity, and a route cannot forget the check: [`require`] wraps them all.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use tracing::Instrument as _;

use crate::{
    app::App,
    error::{ApiError, ApiResult},
    kernel::{
        clock::Millis,
        role::{Permission, Role},
        secret::Secret,
    },
};

pub(crate) const HEADER: &str = "x-maitred-identity";
const ISSUER: &str = "maitred";
const AUDIENCE: &str = "chefcloud-api";
/// The edge's own identity: no user has this id and no session has this scope.
const EDGE_SUBJECT: &str = "maitred";
const EDGE_SCOPE: &str = "edge";
/// How far the clocks of edge and API may be apart.
const SKEW_SECONDS: i64 = 5;
/// An assertion that claims to live longer than the contract allows was not made by our edge.
const LIFETIME_SECONDS_MAX: i64 = 120;

#[derive(Clone, Debug, Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    jti: String,
    #[serde(default)]
    orgs: BTreeMap<String, String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    rid: String,
    iat: i64,
    exp: i64,
}

/// The caller of a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub user_id: String,
    /// Of the access token the edge saw.
    pub jti: String,
    pub request_id: String,
    orgs: BTreeMap<String, Role>,
    scopes: Vec<String>,
}

impl Caller {
    /// Membership first, then the permission matrix.
    pub(crate) fn must(&self, permission: Permission, org_id: &str) -> ApiResult<()> {
        let Some(role) = self.orgs.get(org_id) else {
            return Err(ApiError::Forbidden {
                code: "org_forbidden",
                detail: "you are not a member of this organisation",
            });
        };
        if !role.allows(permission) {
            return Err(ApiError::Forbidden {
                code: "role_forbidden",
                detail: "your role in this organisation does not allow this",
            });
        }
        Ok(())
    }

    fn is_edge(&self) -> bool {
        self.user_id == EDGE_SUBJECT && self.scopes.iter().any(|scope| scope == EDGE_SCOPE)
    }
}

/// Verifies assertions; made once from the shared secret.
#[derive(Clone)]
pub(crate) struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    pub(crate) fn new(secret: &Secret) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["aud", "exp", "iss", "sub"]);
        // Checked below against our clock.
        validation.validate_exp = false;
        Self {
            key: DecodingKey::from_secret(secret.expose().as_bytes()),
            validation,
        }
    }

    pub(crate) fn verify(&self, headers: &HeaderMap, now: Millis) -> ApiResult<Caller> {
        let mut values = headers.get_all(HEADER).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(unauthenticated(
                "identity_required",
                "this route needs an identity",
            ));
        };
        let claims = jsonwebtoken::decode::<Claims>(value.as_bytes(), &self.key, &self.validation)
            .map_err(|_| unauthenticated("identity_invalid", "the identity could not be verified"))?
            .claims;
        let now_s = now.seconds();
        let current = claims.exp > now_s.saturating_sub(SKEW_SECONDS)
            && claims.iat <= now_s.saturating_add(SKEW_SECONDS)
            && claims.exp.saturating_sub(claims.iat) <= LIFETIME_SECONDS_MAX;
        if !current {
            return Err(unauthenticated(
                "identity_expired",
                "the identity is out of date",
            ));
        }
        // A role this build does not know grants nothing.
        let orgs = claims
            .orgs
            .into_iter()
            .filter_map(|(org_id, role)| Role::parse(&role).map(|role| (org_id, role)))
            .collect();
        Ok(Caller {
            user_id: claims.sub,
            jti: claims.jti,
            request_id: claims.rid,
            orgs,
            scopes: claims.scopes,
        })
    }
}

pub(crate) async fn require(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    match app.verifier.verify(request.headers(), app.clock.now()) {
        Ok(caller) if caller.is_edge() => {
            unauthenticated("identity_invalid", "the edge itself is no user").into_response()
        }
        Ok(caller) => {
            // What this request logs can be found by the id the edge gave it.
            let span = tracing::info_span!("request", request.id = caller.request_id);
            request.extensions_mut().insert(caller);
            next.run(request).instrument(span).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// For routes that are the edge's alone.
pub(crate) async fn require_edge(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    match app.verifier.verify(request.headers(), app.clock.now()) {
        Ok(caller) if caller.is_edge() => next.run(request).await,
        Ok(_) => ApiError::Forbidden {
            code: "edge_only",
            detail: "this route is the edge's alone",
        }
        .into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> ApiResult<Self> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| unauthenticated("identity_required", "this route needs an identity"))
    }
}

fn unauthenticated(code: &'static str, detail: &'static str) -> ApiError {
    ApiError::Unauthenticated { code, detail }
}
