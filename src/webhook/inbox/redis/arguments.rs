//! What is handed to the scripts, in the order in which each names it.

use super::answer;
use crate::webhook::inbox::event::{Attempt, Settlement};

/// Arguments of a script, in the order in which it names them.
#[derive(Default)]
pub(super) struct Arguments(pub(super) Vec<Vec<u8>>);

impl Arguments {
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes().to_vec())
    }

    pub(super) fn number(&mut self, number: impl ToString) -> &mut Self {
        self.bytes(number.to_string().into_bytes())
    }

    pub(super) fn bytes(&mut self, bytes: Vec<u8>) -> &mut Self {
        self.0.push(bytes);
        self
    }

    /// Verb, attempt, its time, due, reason.
    pub(super) fn settlement(&mut self, settlement: &Settlement) -> &mut Self {
        match settlement {
            Settlement::Unclaim => self.text("unclaim").text("").text("").text("").text(""),
            Settlement::Delivered(attempt) => {
                self.text("delivered").attempt(attempt).text("").text("")
            }
            Settlement::Retry {
                attempt,
                due,
                yield_order,
            } => self
                .text(if *yield_order { "yield" } else { "retry" })
                .attempt(attempt)
                .number(due.0)
                .text(""),
            Settlement::Dead { attempt, reason } => self
                .text("dead")
                .attempt(attempt)
                .text("")
                .text(answer::reason_name(*reason)),
        }
    }

    fn attempt(&mut self, attempt: &Attempt) -> &mut Self {
        self.text(&answer::attempt_text(attempt))
            .number(attempt.at.0)
    }
}
