//! The plain listener's answer: 308 to https, except for the endpoints that say how the edge is.

use http::header::LOCATION;
use http::{HeaderValue, StatusCode};

use super::shared::Live;
use crate::kernel::facts::Facts;
use crate::kernel::reply::Reply;
use crate::plan::Then;

/// Where clients look when no port is named.
const HTTPS_PORT: u16 = 443;

/// The redirect, or `None` where the request is answered in place.
pub(super) fn answer(live: &Live, facts: &Facts) -> Option<Reply> {
    let route = live.routes.find(&facts.method, &facts.path);
    if let Ok(plan) = route
        && matches!(plan.then, Then::Reply(_))
    {
        return None;
    }
    let http = live.config.http.as_ref();
    let to_port = http.and_then(|http| http.redirect_to_port);
    let to_port = to_port.unwrap_or(HTTPS_PORT);
    let location = HeaderValue::from_str(&location(facts, to_port)).ok()?;
    Some(Reply::empty(StatusCode::PERMANENT_REDIRECT).with(LOCATION, location))
}

fn location(facts: &Facts, to_port: u16) -> String {
    let port = if to_port == HTTPS_PORT {
        String::new()
    } else {
        format!(":{to_port}")
    };
    let query = facts
        .query
        .as_ref()
        .map(|q| format!("?{q}"))
        .unwrap_or_default();
    format!("https://{}{port}{}{query}", facts.host, facts.path)
}
