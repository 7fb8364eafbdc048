//! Where one event ends and the next begins in a byte stream (HTML standard, "Server-sent events").
//! Lines end in LF, CR or CRLF and may be split anywhere; an empty line ends an event.

/// What the edge says when an upstream is silent.
pub const HEARTBEAT: &[u8] = b"event: heartbeat\ndata: {\"status\":\"ok\"}\n\n";

/// Follows a stream and knows whether something may be put in between.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Boundary {
    /// Bytes seen in the present line.
    line_is_empty: bool,
    /// The last byte was CR, so an LF now belongs to it.
    after_cr: bool,
    /// Nothing of an event is pending.
    between_events: bool,
}

impl Default for Boundary {
    fn default() -> Self {
        Self {
            line_is_empty: true,
            after_cr: false,
            between_events: true,
        }
    }
}

impl Boundary {
    /// Takes the next piece of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' if self.after_cr => self.after_cr = false,
                b'\n' => self.end_line(),
                b'\r' => {
                    self.end_line();
                    self.after_cr = true;
                }
                _ => {
                    self.after_cr = false;
                    self.line_is_empty = false;
                    self.between_events = false;
                }
            }
        }
    }

    /// Whether a whole event may be inserted here without breaking one. Between the CR and LF of a
    /// blank line the answer is no: the LF could still come.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.between_events && !self.after_cr
    }

    fn end_line(&mut self) {
        self.between_events = self.line_is_empty;
        self.line_is_empty = true;
        self.after_cr = false;
    }
}

/// An event that tells the client why its stream ends, with the pause before it should come back.
#[must_use]
pub fn goodbye(reason: &str, retry_ms: u64) -> Vec<u8> {
    format!("retry: {retry_ms}\nevent: close\ndata: {{\"reason\":\"{reason}\"}}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::Boundary;

    fn open_after(bytes: &[u8]) -> bool {
        let mut boundary = Boundary::default();
        boundary.feed(bytes);
        boundary.is_open()
    }

    #[test]
    fn an_empty_line_ends_an_event_in_all_three_spellings() {
        for end in ["\n\n", "\r\n\r\n", "\n\r\n"] {
            assert!(open_after(format!("data: 1{end}").as_bytes()), "{end:?}");
        }
        assert!(open_after(b""));
        assert!(!open_after(b"data: 1\r\r"), "an LF may follow");
        assert!(!open_after(b"data: 1\r\n"));
        assert!(!open_after(b"data: 1\n\nid: 2\n"));
        assert!(!open_after(b"data"));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_stream_is_split(
            parts in proptest::collection::vec("[ab:\r\n]{0,6}", 0..12)
        ) {
            let whole = parts.concat();
            let mut split = Boundary::default();
            for part in &parts {
                split.feed(part.as_bytes());
            }
            prop_assert_eq!(split.is_open(), open_after(whole.as_bytes()));
        }
    }
}
