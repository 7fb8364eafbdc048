//! What the edge tells its operators: metrics, each declared once, and the recent refusals.

pub mod metrics;
pub mod refusals;
