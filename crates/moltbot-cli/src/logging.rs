//! The log: off unless `MOLTBOT_LOG` asks for it, on standard error, behind one redaction layer.

use std::io::{self, Write};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts the log at the level named: `error`, `warn`, `info`, `debug` or `trace`.
///
/// Nothing is installed for `None` and `off`, so that a log statement costs one load. The error
/// is a sentence for a warning.
pub(crate) fn start(level: Option<&str>) -> Result<(), String> {
    let Some(level) = level.map(str::trim).filter(|level| !level.is_empty()) else { return Ok(()) };
    let level = parse(level)?;
    if level == LevelFilter::OFF {
        return Ok(());
    }
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .without_time()
        .with_writer(Redacting::new(io::stderr))
        .finish();
    // A second start in one process (tests) keeps the first log.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

fn parse(level: &str) -> Result<LevelFilter, String> {
    level.to_ascii_lowercase().parse().map_err(|_| {
        format!(
            "MOLTBOT_LOG is \"{}\", not one of off, error, warn, info, debug, trace",
            moltbot_core::redact(level)
        )
    })
}

/// Makes writers that redact every event. An event arrives in one piece.
struct Redacting<F>(F);

impl<F> Redacting<F> {
    fn new(inner: F) -> Self {
        Self(inner)
    }
}

impl<'a, F: Fn() -> W, W: Write + 'a> MakeWriter<'a> for Redacting<F> {
    type Writer = RedactingWriter<W>;

    fn make_writer(&'a self) -> Self::Writer {
        RedactingWriter((self.0)())
    }
}

struct RedactingWriter<W>(W);

impl<W: Write> Write for RedactingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.write_all(moltbot_core::redact(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_secret_passes() {
        let shared = Shared::default();
        let sink = shared.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(Redacting::new(move || sink.clone()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(header = "Bearer FAKEFAKEFAKE", "sent sk-ant-api03-FAKEFAKEFAKE");
        });
        let text = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("sent sk-...") && !text.contains("FAKE"), "{text}");
    }

    #[test]
    fn levels() {
        assert_eq!(parse("TRACE"), Ok(LevelFilter::TRACE));
        assert_eq!(parse("off"), Ok(LevelFilter::OFF));
        assert!(parse("loud").unwrap_err().starts_with("MOLTBOT_LOG is \"loud\""));
        assert_eq!(start(None), Ok(()));
    }
}
