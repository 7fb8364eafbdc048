//! Reads `application/x-www-form-urlencoded` strictly: what two readers could understand differently
//! is no form. Bounded, and never more memory than the body.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// More fields than this are refused.
pub(super) const FIELDS_MAX: usize = 512;

/// A name and its value, decoded.
pub(super) type Field = (Vec<u8>, Vec<u8>);

/// The fields in their order. `None` for a field without `=`, an empty one, a bad escape, a byte that
/// should have been escaped, or too many fields.
pub(super) fn read(body: &[u8]) -> Option<Vec<Field>> {
    if body.is_empty() {
        return Some(Vec::new());
    }
    let mut fields = Vec::new();
    for field in body.split(|b| *b == b'&') {
        if fields.len() >= FIELDS_MAX {
            return None;
        }
        let equals = field.iter().position(|b| *b == b'=')?;
        let (name, value) = field.split_at(equals);
        if name.is_empty() {
            return None;
        }
        fields.push((decode(name)?, decode(value.get(1..)?)?));
    }
    Some(fields)
}

/// The value of the one field of this name.
pub(super) fn only<'f>(fields: &'f [Field], name: &[u8]) -> Option<&'f [u8]> {
    let mut found = fields.iter().filter(|(n, _)| n == name);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Some(value),
        (_, _) => None,
    }
}

/// Whether the body is declared to be a form.
pub(super) fn is_declared(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return false;
    };
    let kind = line.as_bytes().split(|b| *b == b';').next();
    let kind = kind.unwrap_or_default().trim_ascii();
    kind.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// As a sender writes it.
pub(super) fn write(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        if !out.is_empty() {
            out.push(b'&');
        }
        encode(name.as_bytes(), &mut out);
        out.push(b'=');
        encode(value, &mut out);
    }
    out
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return Some(out),
            [b'%', high, low, rest @ ..] => {
                out.push(digit(*high)? << 4 | digit(*low)?);
                rest
            }
            [b'%', ..] => return None,
            [b'+', rest @ ..] => {
                out.push(b' ');
                rest
            }
            [plain, rest @ ..] if plain.is_ascii_graphic() => {
                out.push(*plain);
                rest
            }
            [_, ..] => return None,
        };
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => out.push(*byte),
            b' ' => out.push(b'+'),
            _ => out.extend(format!("%{byte:02X}").into_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{FIELDS_MAX, only, read, write};

    #[test]
    fn names_and_values_are_decoded() {
        let fields = read(b"a=1&b=x+y%2B%c3%A9&a=&c==").unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let fields: Vec<_> = fields.iter().map(|(n, v)| (text(n), text(v))).collect();
        let expected = [("a", "1"), ("b", "x y+é"), ("a", ""), ("c", "=")];
        assert_eq!(fields, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(read(b"").unwrap().len(), 0);
    }

    #[test]
    fn what_readers_disagree_about_is_no_form() {
        for bad in [
            "a", "=1", "a=1&", "&a=1", "a=1&&b=2", "a=%", "a=%4", "a=%zz", "a=1 2", "a=1\n",
            "a=\u{e9}", "a=\0",
        ] {
            assert!(read(bad.as_bytes()).is_none(), "{bad:?}");
        }
        let many = "a=1&".repeat(FIELDS_MAX) + "a=1";
        assert!(read(many.as_bytes()).is_none());
        let most = "a=1&".repeat(FIELDS_MAX - 1) + "a=1";
        assert_eq!(read(most.as_bytes()).unwrap().len(), FIELDS_MAX);
    }

    #[test]
    fn one_of_two_is_not_chosen() {
        let fields = read(b"a=1&b=2&a=3").unwrap();
        assert_eq!(only(&fields, b"b"), Some(&b"2"[..]));
        assert_eq!(only(&fields, b"a"), None);
        assert_eq!(only(&fields, b"c"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(fields) = read(&body) {
                let size: usize = fields.iter().map(|(n, v)| n.len() + v.len()).sum();
                prop_assert!(size <= body.len());
            }
        }

        #[test]
        fn what_is_written_is_read_back(name in "[a-zA-Z ]{1,8}", value in ".{0,16}") {
            let fields = read(&write(&[(&name, value.as_bytes())])).unwrap();
            prop_assert_eq!(fields, vec![(name.into_bytes(), value.into_bytes())]);
        }
    }
}
