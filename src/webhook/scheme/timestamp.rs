//! Decides which texts are timestamps. Strict on purpose: floats, signs, blanks, leading zeros and
//! hexadecimal have all been used to get past verifiers. The caller hashes the text it received,
//! never a number printed again.

use crate::kernel::clock::UnixMs;

/// What the digits count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    Seconds,
    Milliseconds,
    /// Ten digits are seconds, thirteen are milliseconds.
    Auto,
    Rfc3339,
}

impl Unit {
    /// The moment that `text` names; `None` for anything but the one canonical spelling.
    #[must_use]
    pub fn parse(self, text: &[u8]) -> Option<UnixMs> {
        match (self, text.len()) {
            (Self::Seconds | Self::Auto, 10) => digits(text)?.checked_mul(1000).map(UnixMs),
            (Self::Milliseconds | Self::Auto, 13) => digits(text).map(UnixMs),
            (Self::Rfc3339, _) => rfc3339(text),
            (Self::Seconds | Self::Milliseconds | Self::Auto, _) => None,
        }
    }

    /// `moment` as a provider would write it.
    #[must_use]
    pub fn print(self, moment: UnixMs) -> String {
        match self {
            Self::Seconds | Self::Auto => moment.seconds().to_string(),
            Self::Milliseconds => moment.0.to_string(),
            Self::Rfc3339 => print_rfc3339(moment),
        }
    }

    /// Whether a valid text can be told from bytes directly before or after it.
    #[must_use]
    pub(super) fn delimits_itself(self) -> bool {
        match self {
            Self::Seconds | Self::Milliseconds | Self::Rfc3339 => true,
            Self::Auto => false,
        }
    }
}

/// `[1-9][0-9]*`; the caller has checked the length, so it fits.
fn digits(text: &[u8]) -> Option<i64> {
    if text.first() == Some(&b'0') {
        return None;
    }
    number(text)
}

fn number(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0i64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// `YYYY-MM-DDThh:mm:ss[.f{1,9}](Z|±hh:mm)`, upper-case `T` and `Z`, no leap second.
fn rfc3339(text: &[u8]) -> Option<UnixMs> {
    const SHAPE: &[u8; 19] = b"0000-00-00T00:00:00";
    let (stamp, rest) = text.split_at_checked(SHAPE.len())?;
    let shaped = stamp.iter().zip(SHAPE).all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        literal => byte == literal,
    });
    if !shaped {
        return None;
    }
    let field = |from: usize, to: usize| stamp.get(from..to).and_then(number);
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    let in_range = year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return None;
    }
    let (fraction_ms, zone) = fraction(rest)?;
    let offset_s = offset(zone)?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(UnixMs((seconds - offset_s) * 1000 + fraction_ms))
}

/// Milliseconds of an optional fraction, and what follows it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(rest) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if !(1..=9).contains(&len) {
        return None;
    }
    let (digits, zone) = rest.split_at(len);
    let ms = (0..3).try_fold(0i64, |sum, at| {
        let digit = digits.get(at).map_or(0, |b| i64::from(b - b'0'));
        Some(sum * 10 + digit)
    })?;
    Some((ms, zone))
}

/// Seconds east of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let east = hours * 3600 + minutes * 60;
            Some(if *sign == b'-' { -east } else { east })
        }
        _ => None,
    }
}

/// `YYYY-MM-DDThh:mm:ss.mmmZ`.
#[must_use]
pub fn print_rfc3339(moment: UnixMs) -> String {
    let (days, in_day) = (
        moment.0.div_euclid(86_400_000),
        moment.0.rem_euclid(86_400_000),
    );
    let (year, month, day) = civil_from_days(days);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, ms) = (in_day / 1000 % 60, in_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Hinnant's algorithm).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Unit, print_rfc3339};
    use crate::kernel::clock::UnixMs;

    #[test]
    fn only_the_canonical_digits_are_a_timestamp() {
        assert_eq!(
            Unit::Seconds.parse(b"1700000000"),
            Some(UnixMs(1_700_000_000_000))
        );
        assert_eq!(
            Unit::Milliseconds.parse(b"1700000000123"),
            Some(UnixMs(1_700_000_000_123))
        );
        assert_eq!(
            Unit::Auto.parse(b"1700000000"),
            Some(UnixMs(1_700_000_000_000))
        );
        assert_eq!(
            Unit::Auto.parse(b"1700000000123"),
            Some(UnixMs(1_700_000_000_123))
        );
        let bad: [&[u8]; 16] = [
            b"",
            b"NaN",
            b"1700000000.0",
            b"-1700000000",
            b"+1700000000",
            b"0170000000",
            b"0x65000000",
            b"17000000000",
            b"170000000",
            b"1e9",
            b"170000000a",
            b" 1700000000",
            b"1700000000 ",
            b"99999999999999999999",
            b"\xd9\xa1700000000",
            b"1_700_0000",
        ];
        for text in bad {
            for unit in [Unit::Seconds, Unit::Milliseconds, Unit::Auto] {
                assert_eq!(unit.parse(text), None, "{}", String::from_utf8_lossy(text));
            }
        }
        assert_eq!(Unit::Seconds.parse(b"1700000000123"), None);
        assert_eq!(Unit::Milliseconds.parse(b"1700000000"), None);
    }

    #[test]
    fn rfc3339_is_read_with_fraction_and_offset() {
        let at = |text: &str| Unit::Rfc3339.parse(text.as_bytes());
        assert_eq!(at("2023-11-14T22:13:20Z"), Some(UnixMs(1_700_000_000_000)));
        assert_eq!(
            at("2023-11-14T22:13:20.123Z"),
            Some(UnixMs(1_700_000_000_123))
        );
        assert_eq!(
            at("2023-11-14T22:13:20.1239999Z"),
            Some(UnixMs(1_700_000_000_123))
        );
        assert_eq!(
            at("2023-11-15T00:13:20.5+02:00"),
            Some(UnixMs(1_700_000_000_500))
        );
        assert_eq!(
            at("2024-02-29T00:00:00-01:30"),
            Some(UnixMs(1_709_170_200_000))
        );
        for bad in [
            "2023-02-29T00:00:00Z",
            "2023-11-14 22:13:20Z",
            "2023-11-14T22:13:20",
            "2023-11-14T24:00:00Z",
            "2023-11-14T22:13:60Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14t22:13:20z",
            "2023-11-14T22:13:20+2:00",
            "2023-13-01T00:00:00Z",
            "",
        ] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(ms in 0i64..4_102_444_800_000) {
            let text = print_rfc3339(UnixMs(ms));
            prop_assert_eq!(Unit::Rfc3339.parse(text.as_bytes()), Some(UnixMs(ms)));
        }

        #[test]
        fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            for unit in [Unit::Seconds, Unit::Milliseconds, Unit::Auto, Unit::Rfc3339] {
                let _ = unit.parse(&text);
            }
        }
    }
}
