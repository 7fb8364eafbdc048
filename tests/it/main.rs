//! Integration tests: one binary, real sockets on ports that the system chose, a real edge process.

#![allow(unreachable_pub, reason = "nothing here is reached from outside")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "a failed expectation is how a test fails"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests stand outside and read the real clock"
)]

// Under these names the conformance suite of the inbox, which is part of the library, finds its nouns.
use maitred::{kernel, webhook};

#[allow(dead_code, reason = "a harness offers more than each moment uses")]
mod harness;

mod admin;
mod cached;
mod fullstack;
mod identity;
mod inbox;
mod limits;
mod plain;
mod redis;
mod reload;
mod replay;
mod signals;
mod slow;
mod smoke;
mod smuggling;
mod streams;
mod streams_end;
mod upgrade;
mod upstream;
mod webhooks;
