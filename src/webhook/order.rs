//! Which events must be delivered one after the other: those with the same order key, which is read
//! from a header or from the body. Used only on what was verified.

use http::{HeaderMap, HeaderName};

use super::pointer::Pointer;

/// Where an event's order key is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OrderKey {
    Header(HeaderName),
    Json(Pointer),
}

impl OrderKey {
    /// From `header:NAME` or `json:/pointer`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("header:") {
            let name = name
                .parse()
                .map_err(|_| format!("`{name}` is no header name"))?;
            return Ok(Self::Header(name));
        }
        let pointer = text.strip_prefix("json:").and_then(Pointer::parse);
        let pointer = pointer.ok_or_else(|| format!("`{text}` names no place"))?;
        Ok(Self::Json(pointer))
    }

    /// The event's key; `None` where it has none, or where the header is there twice: such an event
    /// waits for nobody.
    #[must_use]
    pub fn find(&self, headers: &HeaderMap, body: &[u8]) -> Option<String> {
        let found = match self {
            Self::Json(pointer) => pointer.find(body),
            Self::Header(name) => {
                let mut lines = headers.get_all(name).iter();
                let line = lines.next().filter(|_| lines.next().is_none())?;
                line.to_str().ok().map(str::to_owned)
            }
        };
        found.filter(|key| !key.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::OrderKey;

    #[test]
    fn the_key_is_read_from_either_place() {
        let json = OrderKey::parse("json:/data/account").unwrap();
        let none = HeaderMap::new();
        let body = br#"{"data":{"account":"acc_1"}}"#;
        assert_eq!(json.find(&none, body).as_deref(), Some("acc_1"));
        assert_eq!(json.find(&none, br#"{"data":{"account":""}}"#), None);
        assert_eq!(json.find(&none, b"no json"), None);

        let header = OrderKey::parse("header:X-Shop").unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(header.find(&headers, body), None);
        headers.append("x-shop", "a".parse().unwrap());
        assert_eq!(header.find(&headers, body).as_deref(), Some("a"));
        headers.append("x-shop", "b".parse().unwrap());
        assert_eq!(
            header.find(&headers, body),
            None,
            "which one is meant is not known"
        );
    }

    #[test]
    fn what_names_no_place_is_refused() {
        for bad in ["", "json:", "json:x", "header:", "header:a b", "query:x"] {
            assert!(OrderKey::parse(bad).is_err(), "{bad}");
        }
    }
}
