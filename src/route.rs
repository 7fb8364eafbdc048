//! Decides which configured route a method and a path belong to. Generic over what a route leads to.

pub mod table;
