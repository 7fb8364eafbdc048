//! Decides about what the HTTP/1 parser in front forgives or repairs before anybody else can see it:
//! line ends of a single LF, Content-Length beside Transfer-Encoding, odd request targets. Knows the
//! bytes of the header; does not know what they mean.

use crate::kernel::reject::{Code, Reject};

/// Checks a whole header as it came over the wire.
///
/// # Errors
/// 400 for what another server might read in another way.
pub fn check(header: &[u8]) -> Result<(), Reject> {
    if !lines(header).all(|line| line.ends_with(b"\r")) {
        return Err(refuse("bare_lf", "a line ends in LF without CR"));
    }
    let mut lines = lines(header);
    let request_line = lines.by_ref().find(|line| *line != b"\r");
    check_target(request_line.unwrap_or_default())?;
    let (mut lengths, mut codings) = (false, false);
    for line in lines {
        lengths |= names(line, b"content-length:");
        codings |= names(line, b"transfer-encoding:");
    }
    if lengths && codings {
        let reason = "Content-Length and Transfer-Encoding together";
        return Err(refuse("framing_cl_te", reason));
    }
    Ok(())
}

/// Lines without their LF. What follows the last one is nothing.
fn lines(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = header.strip_suffix(b"\n").unwrap_or(header);
    whole.split(|byte| *byte == b'\n')
}

fn names(line: &[u8], field: &[u8]) -> bool {
    line.get(..field.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(field))
}

/// A path, or a URL of ours. A fragment is cut off by some and passed on by others.
fn check_target(request_line: &[u8]) -> Result<(), Reject> {
    let target = request_line.split(|byte| *byte == b' ').nth(1);
    let target = target.unwrap_or_default();
    if target.contains(&b'#') {
        return Err(refuse("target_fragment", "the target has a fragment"));
    }
    if std::str::from_utf8(target).is_err() {
        return Err(refuse("target_bytes", "the target is not UTF-8"));
    }
    let url = names(target, b"https://") || names(target, b"http://");
    if url || target.starts_with(b"/") {
        Ok(())
    } else {
        let reason = "the target is neither a path nor a URL";
        Err(refuse("target_form", reason))
    }
}

fn refuse(label: &'static str, reason: &'static str) -> Reject {
    Reject::new(Code::BadRequest, label, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::check;

    fn label(header: &str) -> &'static str {
        check(header.as_bytes()).err().map_or("", |r| r.label)
    }

    #[test]
    fn a_plain_header_passes() {
        for good in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
            "POST https://a/b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET HTTP://a HTTP/1.0\r\nX-Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /caf\u{e9} HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(label(good), "", "{good:?}");
        }
    }

    #[test]
    fn what_parsers_forgive_is_refused() {
        for (bad, why) in [
            ("GET / HTTP/1.1\nHost: a\n\n", "bare_lf"),
            ("GET / HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n", "bare_lf"),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", "bare_lf"),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "bare_lf"),
            (
                "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                "framing_cl_te",
            ),
            (
                "POST / HTTP/1.1\r\ntRANSFER-eNCODING: chunked\r\ncONTENT-lENGTH:1\r\n\r\n",
                "framing_cl_te",
            ),
            ("GET /a#b HTTP/1.1\r\n\r\n", "target_fragment"),
            ("GET a HTTP/1.1\r\n\r\n", "target_form"),
            ("GET ftp://a/b HTTP/1.1\r\n\r\n", "target_form"),
            ("OPTIONS * HTTP/1.1\r\n\r\n", "target_form"),
            ("", "bare_lf"),
        ] {
            assert_eq!(label(bad), why, "{bad:?}");
        }
        let not_text = b"GET /\xff HTTP/1.1\r\n\r\n";
        assert_eq!(check(not_text).unwrap_err().label, "target_bytes");
    }

    proptest! {
        #[test]
        fn no_header_panics(header in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = check(&header);
        }
    }
}
