//! Reads one value out of a JSON body by RFC 6901 pointer without building the document. Used only
//! on bytes whose signature was found good.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A place in a JSON document, e.g. `/data/id`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Deepest place that can be named.
    const STEPS_MAX: usize = 16;

    /// `None` unless `text` is a pointer to something inside the document.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let steps = text.strip_prefix('/')?;
        let steps: Vec<_> = steps.split('/').map(unescape).collect::<Option<_>>()?;
        (steps.len() <= Self::STEPS_MAX).then_some(Self(steps))
    }

    /// The string, or the digits of the integer, at this place. `None` when the body is no JSON, the
    /// place is empty or of another kind, or a key on the way is there twice: the reader behind us
    /// might take the other one.
    #[must_use]
    pub fn find(&self, json: &[u8]) -> Option<String> {
        // What is skipped is not looked at by the reader, and JSON is UTF-8 everywhere.
        let text = std::str::from_utf8(json).ok()?;
        let mut reader = serde_json::Deserializer::from_str(text);
        let found = Walk(&self.0).deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        found
    }
}

/// Digits without a sign or a leading zero, as RFC 6901 has it.
fn index(step: &str) -> Option<usize> {
    let canonical = step == "0" || !step.starts_with(['0', '+']);
    step.parse().ok().filter(|_| canonical)
}

fn unescape(step: &str) -> Option<String> {
    let plain = step.replace("~1", "/").replace("~0", "~");
    let escapes = step.matches("~0").count() + step.matches("~1").count();
    (step.matches('~').count() == escapes).then_some(plain)
}

/// Walks down the remaining steps and skips everything else.
struct Walk<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Option<String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found: Option<Self::Value> = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            match self.0 {
                [step, rest @ ..] if *step == *key => {
                    let value = map.next_value_seed(Walk(rest))?;
                    found = Some(if found.is_some() { None } else { value });
                }
                [] | [_, ..] => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found.flatten())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (wanted, rest) = match self.0 {
            [step, rest @ ..] => (index(step), rest),
            [] => (None, self.0),
        };
        let mut found = None;
        let mut at = 0;
        loop {
            if wanted == Some(at) {
                match seq.next_element_seed(Walk(rest))? {
                    Some(value) => found = value,
                    None => return Ok(found),
                }
            } else if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            at += 1;
        }
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then(|| text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then(|| number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then(|| number.to_string()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Pointer;

    fn find(pointer: &str, json: &str) -> Option<String> {
        Pointer::parse(pointer).unwrap().find(json.as_bytes())
    }

    #[test]
    fn strings_and_integers_are_found() {
        assert_eq!(
            find("/id", r#"{"a":[1,{"id":2}],"id":"evt_1","z":null}"#),
            Some("evt_1".into())
        );
        assert_eq!(find("/data/id", r#"{"data":{"id":42}}"#), Some("42".into()));
        assert_eq!(find("/a/1/b", r#"{"a":[0,{"b":"x"},2]}"#), Some("x".into()));
        assert_eq!(find("/a~1b/~0", r#"{"a/b":{"~":"t"}}"#), Some("t".into()));
        assert_eq!(find("/id", "{\"id\":\"\\u0061\\n\"}"), Some("a\n".into()));
    }

    #[test]
    fn what_is_not_there_or_not_clear_is_not_found() {
        for json in [
            r#"{"id":"a","id":"b"}"#,
            r#"{"id":"a","\u0069d":"b"}"#,
            r#"{"id":null}"#,
            r#"{"id":{"id":"a"}}"#,
            r#"{"id":1.5}"#,
            r#"{"id":["a"]}"#,
            r#"{"id":true}"#,
            r#"{"id":"a"} x"#,
            r#"{"id":"a""#,
            "",
            "[]",
            "\"id\"",
            "\u{feff}{\"id\":\"a\"}",
        ] {
            assert_eq!(find("/id", json), None, "{json}");
        }
        for index in ["/+1", "/01", "/-", "/ 1"] {
            assert_eq!(find(index, r#"["a","b"]"#), None, "{index}");
        }
        for bad in ["", "id", "/a~2", "/a~"] {
            assert!(Pointer::parse(bad).is_none(), "{bad}");
        }
        assert!(
            Pointer::parse("/id")
                .unwrap()
                .find(b"{\"id\":\"\xff\"}")
                .is_none()
        );
        let elsewhere = b"{\"id\":\"a\",\"x\":\"\xff\"}";
        assert!(Pointer::parse("/id").unwrap().find(elsewhere).is_none());
        let deep = "[".repeat(100_000);
        assert_eq!(find("/id", &deep), None);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_parsed_document(id in "[a-z]{1,8}", noise in "[a-z]{1,8}") {
            let json = serde_json::json!({ "noise": { "id": noise }, "data": [ { "id": id } ] });
            let pointer = Pointer::parse("/data/0/id").unwrap();
            prop_assert_eq!(pointer.find(json.to_string().as_bytes()), Some(id));
        }

        #[test]
        fn no_bytes_panic(json in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pointer::parse("/a/0").unwrap().find(&json);
        }
    }
}
