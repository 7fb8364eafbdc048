//! Timestamps: what is read has one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use maitred::webhook::scheme::Unit;

fuzz_target!(|data: &[u8]| {
    for unit in [Unit::Seconds, Unit::Milliseconds] {
        if let Some(at) = unit.parse(data) {
            assert_eq!(unit.print(at).as_bytes(), data);
            assert_eq!(Unit::Auto.parse(data), Some(at));
        }
    }
    if let Some(at) = Unit::Rfc3339.parse(data) {
        let printed = Unit::Rfc3339.print(at);
        assert_eq!(
            Unit::Rfc3339.parse(printed.as_bytes()),
            Some(at),
            "{printed}"
        );
    }
});
