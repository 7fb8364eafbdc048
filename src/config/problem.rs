//! What is wrong with a configuration, and where: one line each, readable alone. Decides the wording
//! and the order; does not find anything wrong itself.

use std::fmt;
use std::sync::Arc;

/// Where a value came from.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Place {
    /// A file, both counted from 1.
    File {
        file: Arc<str>,
        line: usize,
        column: usize,
    },
    /// An environment variable.
    Variable(Arc<str>),
    /// Nowhere in particular, e.g. a file that is not there.
    Nowhere,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Variable(name) => write!(f, "${name}"),
            Self::Nowhere => f.write_str("configuration"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    pub place: Place,
    /// Key path, e.g. `routes[3].upstream`; blank where the trouble is the file itself.
    pub key: String,
    pub message: String,
    /// What would mend it; may be blank.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; hint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// Everything that is wrong, in the order of the files.
#[derive(Clone, Debug, Default, Eq, PartialEq, thiserror::Error)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    /// Sorts, and drops what was said already: a bad value under `defaults` would otherwise be
    /// reported once more for each entry that inherits it.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|p| {
            let inherited = !p.key.starts_with("defaults.");
            (p.place.clone(), inherited, p.key.clone())
        });
        problems.dedup_by(|b, a| {
            a.place != Place::Nowhere && a.place == b.place && a.message == b.message
        });
        Self(problems)
    }

    /// The problems.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
