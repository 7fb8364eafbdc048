//! Opaque prefixed ids: 48 bits of time, so that new rows land together in an index, then 80 random
//! bits, so that nobody guesses a neighbour's.

use rand::RngCore;

use crate::kernel::clock::Millis;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 128 bits in letters of 5 bits.
const LETTERS: u32 = 26;
pub(crate) const ID_CHARS_MAX: usize = 64;

pub(crate) fn fresh(prefix: &str, now: Millis) -> String {
    let time = u128::from(now.0.unsigned_abs() & 0xFFFF_FFFF_FFFF) << 80;
    let mut random = [0_u8; 16];
    rand::rng().fill_bytes(&mut random[6..]);
    let bits = time | u128::from_be_bytes(random);
    let letters = (0..LETTERS).rev().map(|place| {
        let index = usize::try_from((bits >> (place * 5)) & 31).unwrap_or_default();
        char::from(ALPHABET.get(index).copied().unwrap_or(b'0'))
    });
    let mut id = String::with_capacity(prefix.len() + 1 + 26);
    id.push_str(prefix);
    id.push('_');
    id.extend(letters);
    id
}

/// What any caller may send as an id. It is only ever bound as a parameter; the check keeps garbage
/// out of logs and answers.
pub(crate) fn plausible(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= ID_CHARS_MAX
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_prefixed_distinct_and_ordered_by_time() {
        let early = fresh("ord", Millis(1_700_000_000_000));
        let late = fresh("ord", Millis(1_700_000_000_001));
        assert!(early.starts_with("ord_") && early.len() == 30);
        assert!(early < late);
        assert_ne!(early, fresh("ord", Millis(1_700_000_000_000)));
        assert!(plausible(&early));
        assert!(!plausible("a b") && !plausible("") && !plausible(&"x".repeat(65)));
    }
}
