//! Integration tests: one binary, real sockets on ports that the system chose, a real edge process.

mod harness;

mod plain;
