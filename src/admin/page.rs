//! The page for people: complete without a script, which only adds live figures and the buttons.
//! Decides what is on it. Everything that came from outside is a stranger's text: it enters through
//! `markup`'s escaping, and the content policy runs no script but the page's own file.

mod entry;
mod markup;
mod overview;

use http::HeaderValue;
use http::header::{CONTENT_SECURITY_POLICY, VARY};

use super::answer::{self, Answer};

pub(super) use entry::entry;
pub(super) use overview::overview;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

pub(super) fn style() -> Answer {
    answer::whole("text/css; charset=utf-8", include_str!("page/page.css"))
}

pub(super) fn script() -> Answer {
    answer::whole(
        "text/javascript; charset=utf-8",
        include_str!("page/page.js"),
    )
}

fn html(text: String) -> Answer {
    let mut answer = answer::whole("text/html; charset=utf-8", text);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    answer
}
