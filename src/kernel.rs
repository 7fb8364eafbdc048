//! The nouns that every other module may use: no I/O, no async, no logging.

pub mod clock;
pub mod facts;
pub mod header;
pub mod id;
pub mod principal;
pub mod reject;
pub mod reply;
pub mod secret;
