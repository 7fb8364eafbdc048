//! Where commands write: handed in, so that a test reads what a person would.

use std::io::{self, Write};

/// Standard output and standard error, or a test's buffers.
pub struct Output {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
}

impl Output {
    /// The process's own.
    #[must_use]
    pub fn standard() -> Self {
        Self::to(Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// Any two writers.
    #[must_use]
    pub fn to(out: Box<dyn Write>, err: Box<dyn Write>) -> Self {
        Self { out, err }
    }

    /// One line of the answer.
    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// A text with line breaks of its own.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Something that is not part of the answer.
    pub(super) fn error(&mut self, line: &str) {
        // Where standard error is closed there is nobody left to tell.
        let _nobody_to_tell = writeln!(self.err, "{line}");
    }
}
