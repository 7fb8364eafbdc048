//! What several nodes share. Decides how the shared server is reached and when it counts as away; what
//! is kept there is each feature's own.

pub mod redis;
