//! (to be written)

/// How a provider signs.
#[derive(Clone, Debug)]
pub struct Scheme;
