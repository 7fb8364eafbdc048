//! Accounts, sessions and tokens: who may enter and how long. What a caller may then do is
//! `kernel::role`; who the caller of a request is comes only from the edge (`assertion`).

pub(crate) mod assertion;
pub(crate) mod http;
pub(crate) mod keys;
pub(crate) mod model;
pub(crate) mod password;
pub(crate) mod service;
pub(crate) mod store;
pub(crate) mod token;
