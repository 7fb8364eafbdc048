//! Listeners over real sockets.
