//! Which of the usable endpoints gets the next request: the less busy of two picked at random
//! ("power of two choices"). Pure.

/// Index into `in_flight` of the endpoint to use; `random` is 64 random bits. `None` for an empty
/// slice.
#[must_use]
pub fn pick(in_flight: &[u32], random: u64) -> Option<usize> {
    let count = u64::try_from(in_flight.len()).ok().filter(|n| *n > 0)?;
    let first = usize::try_from((random >> 32) % count).ok()?;
    if count == 1 {
        return Some(first);
    }
    // The second choice is one of the others.
    let step = usize::try_from((random & 0xffff_ffff) % (count - 1)).ok()? + 1;
    let second = (first + step) % in_flight.len();
    let busier = in_flight.get(second) < in_flight.get(first);
    Some(if busier { second } else { first })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::pick;

    #[test]
    fn nothing_to_pick_from() {
        assert_eq!(pick(&[], 7), None);
    }

    proptest! {
        #[test]
        fn the_busiest_of_several_is_never_picked(
            mut load in proptest::collection::vec(0u32..50, 2..8), random: u64
        ) {
            let busiest = random as usize % load.len();
            load[busiest] = 100;
            prop_assert!(pick(&load, random) != Some(busiest));
        }
    }
}
