//! Black-box slices of the API over real sockets. Every test runs on SQLite and on a PostgreSQL that
//! this binary starts itself; each has a database of its own.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod auth;
mod client;
mod database;
mod franchise;
mod health;
mod inbound;
mod orders;
mod purchasing;
mod stream;
mod world;

/// Declares the named `async fn(&World)` tests of a module on both engines.
macro_rules! on_both_databases {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() {
                crate::world::run(crate::database::Engine::Sqlite, super::$name);
            })*
        }
        mod postgres {
            $(#[test] fn $name() {
                crate::world::run(crate::database::Engine::Postgres, super::$name);
            })*
        }
    };
}
pub(crate) use on_both_databases;
