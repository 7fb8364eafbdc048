//! The questions of the franchise pages: which organisation, which days.

use serde_json::Value;

use crate::kernel::{
    clock::Day,
    input::{Fault, Faults, Fields},
};

/// Days from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub first: Day,
    pub last: Day,
}

pub(crate) struct OverviewQuery {
    pub org_id: String,
    pub range: String,
    pub span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    Orders,
    Revenue,
}

pub(crate) struct RankingsQuery {
    pub org_id: String,
    pub period: String,
    pub metric: Metric,
    pub span: Span,
}

impl Metric {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Revenue => "revenue",
        }
    }
}

impl OverviewQuery {
    pub(crate) fn parse(query: &Value, today: Day) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::default();
        let org_id = Fields::of(query).id("orgId", &mut faults);
        let range = query
            .get("range")
            .and_then(Value::as_str)
            .unwrap_or("today");
        let span = span_of_range(range, today);
        if span.is_none() {
            faults.add("range", "must be today, yesterday, 7d or 30d");
        }
        faults.finish()?;
        Ok(Self {
            org_id: org_id.unwrap_or_default(),
            range: range.to_owned(),
            span: span.unwrap_or(Span {
                first: today,
                last: today,
            }),
        })
    }
}

impl RankingsQuery {
    pub(crate) fn parse(query: &Value, today: Day) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::default();
        let fields = Fields::of(query);
        let org_id = fields.id("orgId", &mut faults);
        let period = fields.raw_text("period").unwrap_or_default();
        let span = span_of_month(period);
        if span.is_none() {
            faults.add("period", "must be a month as YYYY-MM");
        }
        let metric = match fields.raw_text("metric") {
            None | Some("revenue") => Metric::Revenue,
            Some("orders") => Metric::Orders,
            Some(_) => {
                faults.add("metric", "must be revenue or orders");
                Metric::Revenue
            }
        };
        faults.finish()?;
        Ok(Self {
            org_id: org_id.unwrap_or_default(),
            period: period.to_owned(),
            metric,
            span: span.unwrap_or(Span {
                first: today,
                last: today,
            }),
        })
    }
}

fn span_of_range(range: &str, today: Day) -> Option<Span> {
    let back = |days: i64| Span {
        first: today.plus(-days),
        last: today,
    };
    match range {
        "today" => Some(back(0)),
        "yesterday" => Some(Span {
            first: today.plus(-1),
            last: today.plus(-1),
        }),
        "7d" => Some(back(6)),
        "30d" => Some(back(29)),
        _ => None,
    }
}

fn span_of_month(period: &str) -> Option<Span> {
    let (year, month) = period.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if year.len() != 4 || month.len() != 2 || !digits(year) || !digits(month) {
        return None;
    }
    let month = time::Month::try_from(month.parse::<u8>().ok()?).ok()?;
    let year = year.parse::<i32>().ok()?;
    let first = time::Date::from_calendar_date(year, month, 1).ok()?;
    let epoch = time::Date::from_calendar_date(1970, time::Month::January, 1).ok()?;
    let first = Day((first - epoch).whole_days());
    Some(Span {
        first,
        last: first.plus(i64::from(month.length(year)) - 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_have_their_days() {
        let days = |period| span_of_month(period).map(|span| span.last.0 - span.first.0 + 1);
        assert_eq!(days("2024-02"), Some(29));
        assert_eq!(days("2024-11"), Some(30));
        assert_eq!(span_of_month("1970-01").unwrap().first, Day(0));
        for wrong in [
            "",
            "2024",
            "2024-13",
            "2024-1",
            "24-01",
            "+024-01",
            "2024-11-01",
        ] {
            assert_eq!(span_of_month(wrong), None, "{wrong}");
        }
    }
}
