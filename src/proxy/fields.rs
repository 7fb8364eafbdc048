//! Edits many header fields at once. Pingora keeps a second map with each field's spelling, and every
//! insertion through its own methods pays for both maps; field names have no case (RFC 9110, section
//! 5.1), so here the second one is given up.

use http::request::Parts as RequestParts;
use http::response::Parts as ResponseParts;
use http::{HeaderMap, Method, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};

/// Gives `edit` the plain map of a response.
pub fn edit_response(response: &mut ResponseHeader, edit: impl FnOnce(&mut HeaderMap)) {
    // Fails for a status that is no status; 200 is one.
    let Ok(empty) = ResponseHeader::build_no_case(StatusCode::OK, None) else {
        return;
    };
    let mut parts: ResponseParts = std::mem::replace(response, empty).into();
    edit(&mut parts.headers);
    *response = parts.into();
}

/// Gives `edit` the header of a request whose target is in origin form.
pub fn edit_request(request: &mut RequestHeader, edit: impl FnOnce(&mut RequestParts)) {
    // Fails for a method or path that is none.
    let Ok(empty) = RequestHeader::build_no_case(Method::GET, b"/", None) else {
        return;
    };
    let mut parts: RequestParts = std::mem::replace(request, empty).into();
    edit(&mut parts);
    *request = parts.into();
}
