//! Values in a body: what is found is what any other reader of the document finds there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use maitred::webhook::pointer::Pointer;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |b| *b == 0);
    let (Some(text), Some(json)) = (parts.next(), parts.next()) else {
        return;
    };
    let Some(text) = std::str::from_utf8(text).ok() else {
        return;
    };
    let Some(pointer) = Pointer::parse(text) else {
        return;
    };
    let Some(found) = pointer.find(json) else {
        return;
    };
    // A reader that keeps everything refuses more: half a surrogate pair, numbers that it cannot hold.
    let Ok(document) = serde_json::from_slice::<Value>(json) else {
        return;
    };
    let expected = match document.pointer(text) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        other => panic!("found {found:?}, and others {other:?}"),
    };
    assert_eq!(found, expected);
});
