//! Decides which one spelling a path has. Routing, cache keys, rights and the upstream all use the
//! result, so that no two of them can read a path in two ways. Does not know which paths exist.

use crate::kernel::reject::{Code, Reject};

/// The canonical spelling of `raw`, the path of a request target without query. Starts with `/`, has
/// no empty or dot segments, escapes only what must be escaped, in upper case.
///
/// # Errors
/// Paths that some server reads in another way than others: escaped slashes, backslashes and NUL,
/// control characters, bad escapes, steps above the root.
pub fn normalise(raw: &str) -> Result<String, Reject> {
    if !raw.starts_with('/') {
        return Err(refuse(
            "path_relative",
            "the path does not begin with a slash",
        ));
    }
    let mut out = String::with_capacity(raw.len());
    let mut segments = raw.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let segment = canonical_segment(segment)?;
        match segment.as_str() {
            "" | "." => {}
            ".." => {
                let parent = out
                    .rfind('/')
                    .ok_or_else(|| refuse("path_escape", "the path climbs above the root"))?;
                out.truncate(parent);
            }
            name => {
                out.push('/');
                out.push_str(name);
                continue;
            }
        }
        if last {
            out.push('/');
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    debug_assert!(out.starts_with('/') && !out.contains("//"));
    Ok(out)
}

fn canonical_segment(raw: &str) -> Result<String, Reject> {
    let mut out = String::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let escaped = bytes.next().zip(bytes.next());
                let escaped = escaped.and_then(|(high, low)| unhex(high, low));
                push_escaped(&mut out, escaped)?;
            }
            b'\\' => return Err(refuse("path_backslash", "the path has a backslash")),
            b'?' | b'#' | 0..=0x20 | 0x7f => {
                return Err(refuse(
                    "path_byte",
                    "the path has a byte that no path may have",
                ));
            }
            plain if is_path_byte(plain) => out.push(char::from(plain)),
            other => push_hex(&mut out, other),
        }
    }
    // `/a/..;x/b` is a step up for servers that know path parameters and a name for others.
    let (name, parameter) = out
        .split_once(';')
        .map_or((out.as_str(), None), |(n, p)| (n, Some(p)));
    if parameter.is_some() && matches!(name, "." | "..") {
        return Err(refuse(
            "path_parameter",
            "a dot segment has a path parameter",
        ));
    }
    Ok(out)
}

fn push_escaped(out: &mut String, byte: Option<u8>) -> Result<(), Reject> {
    match byte {
        None => Err(refuse(
            "path_escape_invalid",
            "the path has a % without two hex digits",
        )),
        Some(b'/' | b'\\') => Err(refuse(
            "path_escaped_separator",
            "the path has an escaped separator",
        )),
        Some(0..=0x1f | 0x7f) => Err(refuse(
            "path_escaped_control",
            "the path has an escaped control character",
        )),
        Some(plain) if is_unreserved(plain) => {
            out.push(char::from(plain));
            Ok(())
        }
        Some(other) => {
            push_hex(out, other);
            Ok(())
        }
    }
}

fn unhex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

fn push_hex(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    for nibble in [byte >> 4, byte & 0x0f] {
        out.push(
            DIGITS
                .get(usize::from(nibble))
                .copied()
                .map_or('0', char::from),
        );
    }
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986, section 3.3: what a path may have unescaped.
fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';'
        )
        || matches!(byte, b'=' | b':' | b'@')
}

fn refuse(label: &'static str, reason: &'static str) -> Reject {
    Reject::new(Code::BadRequest, label, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::normalise;

    #[test]
    fn spellings_of_one_path_become_one() {
        for (raw, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b///c", "/a/b/c"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/%7Euser/%41", "/~user/A"),
            ("/a%3ab", "/a%3Ab"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("/a|b", "/a%7Cb"),
            ("//evil.example/x", "/evil.example/x"),
            ("/...", "/..."),
            ("/a/", "/a/"),
            ("/a;v=1/b", "/a;v=1/b"),
        ] {
            assert_eq!(normalise(raw).unwrap(), normal, "{raw}");
        }
    }

    #[test]
    fn what_servers_read_in_different_ways_is_refused() {
        for bad in [
            "",
            "a",
            "*",
            "/..",
            "/../a",
            "/a/../../b",
            "/%2e%2e/a",
            "/a%2Fb",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0d%0a",
            "/%",
            "/%4",
            "/%zz",
            "/a b",
            "/a\tb",
            "/a?b",
            "/a#b",
            "/a/..;/b",
            "/a/%2e%2e;x/b",
            "/.;/a",
            "/a%7f",
            "/a\u{7f}",
        ] {
            assert!(normalise(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn normal_stays_normal(raw in "/[ -~é]{0,40}") {
            if let Ok(once) = normalise(&raw) {
                prop_assert_eq!(normalise(&once).unwrap(), once);
            }
        }

        #[test]
        fn nothing_climbs(raw in "(/|\\.|%2e|%2E|%2f|%5c|a|;|\\\\){0,30}") {
            if let Ok(path) = normalise(&format!("/{raw}")) {
                prop_assert!(path.starts_with('/'));
                prop_assert!(!path.split('/').any(|segment| segment == ".." || segment == "."));
                prop_assert!(!path.contains("//"));
            }
        }

        #[test]
        fn no_text_panics(raw in any::<String>()) {
            let _ = normalise(&raw);
        }
    }
}
