//! Reads a request's fields and remembers every fault, so that one answer names them all. Each reader
//! returns `Option`; [`Fields::finish`] turns collected faults into the answer.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;

use crate::kernel::id;

/// One amount; millions of the largest still add up within 64 bits.
pub(crate) const MINOR_UNITS_MAX: i64 = 1_000_000_000_000;
/// In thousandths of a unit.
pub(crate) const QUANTITY_MILLI_MAX: i64 = 1_000_000_000_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    pub field: String,
    pub message: String,
}

#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault {
            field: field.into(),
            message: message.into(),
        });
    }

    pub(crate) fn finish(self) -> Result<(), Vec<Fault>> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(self.0)
        }
    }
}

/// One JSON object (or a query string) being read; `path` prefixes the names in faults.
pub(crate) struct Fields<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(value: &'a Value) -> Self {
        Self {
            value,
            path: String::new(),
        }
    }

    pub(crate) fn nested(value: &'a Value, path: String) -> Self {
        Self { value, path }
    }

    pub(crate) fn name(&self, field: &str) -> String {
        if self.path.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.path)
        }
    }

    fn present(&self, field: &str) -> Option<&'a Value> {
        self.value.get(field).filter(|value| !value.is_null())
    }

    fn required(&self, field: &str, faults: &mut Faults) -> Option<&'a Value> {
        let found = self.present(field);
        if found.is_none() {
            faults.add(self.name(field), "is required");
        }
        found
    }

    pub(crate) fn text(
        &self,
        field: &str,
        chars_max: usize,
        faults: &mut Faults,
    ) -> Option<String> {
        let value = self.required(field, faults)?;
        let text = value.as_str().map(str::trim);
        let fits = |text: &&str| {
            !text.is_empty()
                && text.chars().count() <= chars_max
                && !text.chars().any(char::is_control)
        };
        match text.filter(fits) {
            Some(text) => Some(text.to_owned()),
            None => {
                let message = format!("must be text of 1 to {chars_max} characters");
                faults.add(self.name(field), message);
                None
            }
        }
    }

    /// Text as it came, for what must not be trimmed.
    pub(crate) fn raw_text(&self, field: &str) -> Option<&'a str> {
        self.present(field).and_then(Value::as_str)
    }

    pub(crate) fn optional_text(
        &self,
        field: &str,
        chars_max: usize,
        faults: &mut Faults,
    ) -> Option<String> {
        self.present(field)?;
        self.text(field, chars_max, faults)
    }

    pub(crate) fn id(&self, field: &str, faults: &mut Faults) -> Option<String> {
        let value = self.required(field, faults)?;
        match value.as_str().filter(|text| id::plausible(text)) {
            Some(text) => Some(text.to_owned()),
            None => {
                faults.add(self.name(field), "must be an id");
                None
            }
        }
    }

    /// Minor units, at least 1.
    pub(crate) fn amount(&self, field: &str, faults: &mut Faults) -> Option<i64> {
        let value = self.required(field, faults)?;
        match value
            .as_i64()
            .filter(|minor| (1..=MINOR_UNITS_MAX).contains(minor))
        {
            Some(minor) => Some(minor),
            None => {
                let message =
                    format!("must be a whole number of minor units, 1 to {MINOR_UNITS_MAX}");
                faults.add(self.name(field), message);
                None
            }
        }
    }

    /// An ISO 4217 code.
    pub(crate) fn currency(&self, field: &str, faults: &mut Faults) -> Option<String> {
        let value = self.required(field, faults)?;
        match value.as_str().filter(|text| is_currency(text)) {
            Some(text) => Some(text.to_owned()),
            None => {
                faults.add(self.name(field), "must be a three-letter currency code");
                None
            }
        }
    }

    /// A positive quantity with at most three decimals, in thousandths.
    pub(crate) fn quantity_milli(&self, field: &str, faults: &mut Faults) -> Option<i64> {
        let value = self.required(field, faults)?;
        match value.as_f64().and_then(to_milli) {
            Some(milli) => Some(milli),
            None => {
                faults.add(
                    self.name(field),
                    "must be above 0 with at most three decimals",
                );
                None
            }
        }
    }

    pub(crate) fn list(
        &self,
        field: &str,
        items_max: usize,
        faults: &mut Faults,
    ) -> Option<&'a [Value]> {
        let value = self.required(field, faults)?;
        match value
            .as_array()
            .filter(|list| !list.is_empty() && list.len() <= items_max)
        {
            Some(list) => Some(list),
            None => {
                faults.add(
                    self.name(field),
                    format!("must be a list of 1 to {items_max} entries"),
                );
                None
            }
        }
    }
}

/// A query string as an object; the first value of a repeated name wins, as at the edge.
pub(crate) fn query_value(query: Option<&str>) -> Value {
    let mut seen: HashMap<String, Value> = HashMap::new();
    for (name, value) in form_pairs(query.unwrap_or_default()) {
        seen.entry(name).or_insert(Value::String(value));
    }
    Value::Object(seen.into_iter().collect())
}

pub(crate) fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())
}

/// Thousandths back to the number a caller writes.
#[expect(
    clippy::cast_precision_loss,
    reason = "quantities are below 2^53 thousandths"
)]
pub(crate) fn from_milli(milli: i64) -> Value {
    if milli % 1000 == 0 {
        Value::from(milli / 1000)
    } else {
        Value::from(milli as f64 / 1000.0)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "the value is checked to be whole and within 2^53 first"
)]
fn to_milli(quantity: f64) -> Option<i64> {
    let milli = quantity * 1000.0;
    let whole = milli.round();
    let near = (milli - whole).abs() <= 1e-6 * milli.abs().max(1.0);
    let in_range = whole >= 1.0 && whole <= QUANTITY_MILLI_MAX as f64;
    (near && in_range).then_some(whole as i64)
}

fn form_pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(name), unescape(value))
        })
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut ahead = rest.clone();
                let pair = (
                    ahead.next().and_then(hex_digit),
                    ahead.next().and_then(hex_digit),
                );
                if let (Some(high), Some(low)) = pair {
                    bytes.push(high * 16 + low);
                    rest = ahead;
                } else {
                    bytes.push(b'%');
                }
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_fault_is_named_with_its_path() {
        let body = json!({"orgId": "a b", "items": []});
        let mut faults = Faults::default();
        let fields = Fields::of(&body);
        assert_eq!(fields.id("orgId", &mut faults), None);
        assert_eq!(fields.text("receivedBy", 10, &mut faults), None);
        assert!(fields.list("items", 5, &mut faults).is_none());
        let item = json!({"quantity": -1});
        assert_eq!(
            Fields::nested(&item, "items[0]".to_owned()).quantity_milli("quantity", &mut faults),
            None
        );
        let names: Vec<_> = faults
            .finish()
            .unwrap_err()
            .into_iter()
            .map(|fault| fault.field)
            .collect();
        assert_eq!(names, ["orgId", "receivedBy", "items", "items[0].quantity"]);
    }

    #[test]
    fn quantities_have_three_decimals() {
        assert_eq!(to_milli(2.5), Some(2500));
        assert_eq!(to_milli(0.001), Some(1));
        assert_eq!(to_milli(0.1 + 0.2), Some(300));
        for refused in [0.0, -1.0, 0.0005, 1.2345, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(to_milli(refused), None, "{refused}");
        }
        assert_eq!(from_milli(2500), json!(2.5));
        assert_eq!(from_milli(2000), json!(2));
    }

    #[test]
    fn queries_are_unescaped_and_the_first_value_wins() {
        let value = query_value(Some("orgId=org%5Fdemo&range=a+b&orgId=other&x=%zz"));
        assert_eq!(
            value,
            json!({"orgId": "org_demo", "range": "a b", "x": "%zz"})
        );
    }
}
