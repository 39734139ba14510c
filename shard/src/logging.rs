//! Where the relay's log goes and how much of it there is: the journal with all fields if systemd runs the relay, else standard
//! error; a level that can be changed while the relay runs; so many lines of one cause and no more.
//!
//! Owns the process's one subscriber.

use crate::events;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::{Context, Filter, Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};
use tuning::{Log, LogFormat};

/// Lines of one cause in a [`WINDOW`].
const LINES: u32 = 100;
/// See [`LINES`].
const WINDOW: Duration = Duration::from_secs(10);
/// The longest level text.
const MAX_LEVEL_BYTES: usize = 1024;

type LevelLayer = reload::Layer<EnvFilter, Registry>;
type Output = Box<dyn Layer<Layered<LevelLayer, Registry>> + Send + Sync>;

/// What is kept of the subscriber.
struct Control {
    level: reload::Handle<EnvFilter, Registry>,
    text: Mutex<String>,
    limiter: Arc<Limiter>,
}

static CONTROL: OnceLock<Control> = OnceLock::new();

/// Why the level stays as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LevelError {
    /// The text is no level.
    #[error("no log level: {0}. Say error, warn, info, debug or trace, or for example info,shard=debug")]
    Parse(#[from] ParseError),
    /// The text is longer than a level can be.
    #[error("a log level of more than {MAX_LEVEL_BYTES} bytes")]
    TooLong,
    /// This process has a log of its own.
    #[error("the log is not the relay's own")]
    NotStarted,
    /// The subscriber is gone.
    #[error(transparent)]
    Gone(#[from] reload::Error),
}

/// Starts the log. Only the first call in a process does something.
pub fn start(settings: &Log) {
    let text = settings.level.as_str();
    let (level, handle) = reload::Layer::new(EnvFilter::new(text));
    let limiter = Arc::new(Limiter::default());
    let control = Control { level: handle, text: Mutex::new(text.to_owned()), limiter: limiter.clone() };
    if CONTROL.set(control).is_ok() {
        let output = output(settings).with_filter(Limit(limiter));
        // Another subscriber is there already only where tests put one.
        let _ = tracing_subscriber::registry().with(level).with(output).try_init();
    }
}

fn output(settings: &Log) -> Output {
    if stderr_is_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        return Box::new(journal.with_field_prefix(Some("FURROW".into())));
    }
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match settings.format {
        LogFormat::Text => Box::new(lines),
        LogFormat::Json => Box::new(lines.json()),
    }
}

/// Whether standard error is the stream that systemd names in JOURNAL_STREAM (systemd.exec(5)): the variable alone is inherited
/// by programs whose output goes elsewhere.
fn stderr_is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(found) = rustix::fs::fstat(std::io::stderr().as_fd()) else { return false };
    named == format!("{}:{}", found.st_dev, found.st_ino)
}

/// Changes how much the log says: a level, or levels of parts of the program, as the `tracing` filters have them.
///
/// # Errors
/// [`LevelError`]; it stays as it was.
pub fn set_level(text: &str) -> Result<(), LevelError> {
    let control = CONTROL.get().ok_or(LevelError::NotStarted)?;
    if text.len() > MAX_LEVEL_BYTES {
        return Err(LevelError::TooLong);
    }
    control.level.reload(EnvFilter::try_new(text)?)?;
    text.clone_into(&mut control.text.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(())
}

/// How much the log says; empty if the process has a log of its own.
pub fn level() -> String {
    let text =
        CONTROL.get().map(|control| control.text.lock().unwrap_or_else(PoisonError::into_inner).clone());
    text.unwrap_or_default()
}

/// Says of which causes lines were left out since the last call.
pub fn tell_suppressed() {
    let Some(control) = CONTROL.get() else { return };
    for (suppressed_event, count) in control.limiter.take_suppressed() {
        tracing::warn!(event = events::LOG_SUPPRESSED, suppressed_event, count, "messages were suppressed");
    }
}

/// How much of one cause was said.
#[derive(Clone, Copy, Debug)]
struct Cause {
    window: Instant,
    lines: u32,
    event: u64,
    suppressed: u64,
}

/// Counts lines by cause, which is the place in the program that says them: there are only so many.
#[derive(Debug, Default)]
struct Limiter {
    causes: Mutex<HashMap<Identifier, Cause>>,
}

impl Limiter {
    /// Whether another line of this cause may be said.
    fn admits(&self, cause: Identifier, now: Instant, number: impl FnOnce() -> u64) -> bool {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let cause = causes.entry(cause).or_insert(Cause { window: now, lines: 0, event: 0, suppressed: 0 });
        if now.duration_since(cause.window) >= WINDOW {
            (cause.window, cause.lines) = (now, 0);
        }
        if cause.lines < LINES {
            cause.lines += 1;
            return true;
        }
        if cause.suppressed == 0 {
            cause.event = number();
        }
        cause.suppressed += 1;
        false
    }

    /// Events of which lines were left out, and how many.
    fn take_suppressed(&self) -> Vec<(u64, u64)> {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let suppressed = causes.values_mut().filter(|cause| cause.suppressed > 0);
        suppressed.map(|cause| (cause.event, std::mem::take(&mut cause.suppressed))).collect()
    }
}

/// The limiter as a filter. Who asks for debug lines wants all of them.
struct Limit(Arc<Limiter>);

impl<S> Filter<S> for Limit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &tracing::Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        *metadata.level() > Level::INFO
            || self.0.admits(metadata.callsite(), Instant::now(), || number_of(event))
    }
}

/// The field `event`, or 0.
fn number_of(event: &tracing::Event<'_>) -> u64 {
    struct Number(u64);
    impl Visit for Number {
        fn record_u64(&mut self, field: &Field, value: u64) {
            if field.name() == "event" {
                self.0 = value;
            }
        }
        fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
    }
    let mut number = Number(0);
    event.record(&mut number);
    number.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Callsite;
    use tracing_subscriber::fmt::MakeWriter;

    /// A log that tests can read.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Paper {
        type Writer = Paper;
        fn make_writer(&'a self) -> Paper {
            self.clone()
        }
    }

    #[test]
    fn one_cause_has_so_many_lines_and_another_one_its_own() {
        let (paper, limiter) = (Paper::default(), Arc::new(Limiter::default()));
        let lines = tracing_subscriber::fmt::layer().with_writer(paper.clone());
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(Limit(limiter.clone())));
        tracing::subscriber::with_default(subscriber, || {
            let say = |event: u16| tracing::event!(Level::WARN, event, "one cause");
            (0..LINES + 7).for_each(|_| say(77));
            tracing::event!(Level::WARN, event = 78u16, "another cause");
            (0..LINES + 7).for_each(|_| tracing::event!(Level::DEBUG, "all of these"));
        });
        let written = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        assert_eq!(written.matches("one cause").count() as u32, LINES);
        assert_eq!(written.matches("another cause").count(), 1);
        assert_eq!(written.matches("all of these").count() as u32, LINES + 7);
        assert_eq!(limiter.take_suppressed(), [(77, 7)]);
        assert_eq!(limiter.take_suppressed(), [], "told once");
    }

    #[test]
    fn a_cause_may_speak_again_after_a_while() {
        let limiter = Limiter::default();
        let cause = tracing::callsite!(name: "cause", kind: tracing::metadata::Kind::EVENT, fields: message)
            .metadata()
            .callsite();
        let now = Instant::now();
        let said = |now| (0..2 * LINES).filter(|_| limiter.admits(cause.clone(), now, || 1)).count() as u32;
        assert_eq!(said(now), LINES);
        assert_eq!(said(now + WINDOW - Duration::from_millis(1)), 0);
        assert_eq!(said(now + WINDOW), LINES);
    }
}
