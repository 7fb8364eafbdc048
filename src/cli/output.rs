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

    /// Bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Columns under headings; texts are made [`printable`].
    pub(super) fn table(&mut self, heads: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let heads = heads.iter().map(|h| (*h).to_owned()).collect();
        let all: Vec<Vec<String>> = std::iter::once(&heads)
            .chain(rows)
            .map(|row| row.iter().map(|cell| printable(cell)).collect())
            .collect();
        let width = |column: usize| {
            let cells = all.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        for row in &all {
            let cells = row.iter().zip(&widths);
            let padded: Vec<_> = cells
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            self.line(padded.join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Something that is not part of the answer.
    pub(super) fn error(&mut self, line: &str) {
        // Where standard error is closed there is nobody left to tell.
        let _nobody_to_tell = writeln!(self.err, "{line}");
    }
}

/// A stranger's text on one line of a terminal: nothing that moves the cursor, changes colours or
/// turns the line around.
pub(super) fn printable(text: &str) -> String {
    let directional = |c: char| matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() || directional(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}
