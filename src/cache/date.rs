//! Reads the one date format that senders may generate (RFC 9110, 5.6.7: IMF-fixdate). The two
//! obsolete ones are not read: an `Expires` in them counts as passed, which is what RFC 9111, 5.3
//! asks for a date that cannot be read.

/// Seconds since 1970 of e.g. `Sun, 06 Nov 1994 08:49:37 GMT`.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let (day_name, rest) = text.split_once(", ")?;
    if !DAYS.contains(&day_name) || rest.len() != "06 Nov 1994 08:49:37 GMT".len() {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = rest.get(from..to)?;
        let all = digits.bytes().all(|b| b.is_ascii_digit());
        all.then(|| digits.parse().ok()).flatten()
    };
    let punctuation = [(2, ' '), (6, ' '), (11, ' '), (14, ':'), (17, ':')];
    let in_place = |&(at, char): &(usize, char)| rest[at..].starts_with(char);
    if !rest.is_ascii() || !punctuation.iter().all(in_place) || !rest.ends_with(" GMT") {
        return None;
    }
    let name = rest.get(3..6)?;
    let month = i64::try_from(MONTHS.iter().position(|m| *m == name)?).ok()? + 1;
    let (day, year) = (number(0, 2)?, number(7, 11)?);
    let (hour, minute, second) = (number(12, 14)?, number(15, 17)?, number(18, 20)?);
    // 60 is a leap second.
    if !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days in the proleptic Gregorian calendar, counted from March so that leap days come last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::parse;

    #[test]
    fn rfc9110_5_6_7_the_example_and_other_moments() {
        for (text, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799),
            ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn rfc9111_5_3_what_is_no_date_is_none() {
        for bad in [
            "0",
            "-1",
            "",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Növ 199408:49:37 GMT",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn any_text_of_the_right_shape_is_survived(rest in "[0-9A-Za-zé: ]{20} GMT") {
            let _ = parse(&format!("Sun, {rest}"));
        }
    }
}
