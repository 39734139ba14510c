//! What is printed: for people, or one JSON object on each line.

use super::failure::Failure;
use serde_json::{Value, json};
use std::fmt::Display;
use std::io::Write;

/// Prints results to standard output and failures to standard error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    json: bool,
}

impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one result.
    pub(crate) fn result(&self, json: &Value, text: impl Display) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let printed = if self.json { writeln!(out, "{json}") } else { writeln!(out, "{text}") };
        printed.and_then(|()| out.flush()).map_err(Failure::about(&"standard output"))
    }

    /// Prints a failure.
    pub(crate) fn failure(&self, failure: &Failure) {
        let message = failure.to_string();
        if self.json {
            eprintln!("{}", json!({ "event": "error", "kind": failure.kind(), "message": message }));
        } else {
            eprintln!("sstp: {message}");
        }
    }
}
