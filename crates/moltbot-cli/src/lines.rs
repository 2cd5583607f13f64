//! The lines of a conversation: with editing and a history on a terminal, as they come from a
//! pipe. The line editor sits behind this file and nowhere else.

use std::io::{self, BufRead as _};
use std::sync::mpsc as std_mpsc;

use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};
use tokio::sync::mpsc;

/// How many earlier lines the arrow keys reach.
const HISTORY: usize = 200;

/// What came of asking for a line.
#[derive(Debug)]
pub(crate) enum Line {
    /// This was entered.
    Typed(String),
    /// Ctrl-C: what was typed is thrown away.
    Stopped,
    /// Ctrl-D, or the end of the input.
    End,
}

/// Where lines come from: a thread of its own, for a read cannot be stopped.
pub(crate) struct Lines {
    /// Asks the editor for one line; a pipe is read without asking.
    ask: Option<std_mpsc::Sender<()>>,
    /// Whether a line was asked for and has not come yet.
    asked: bool,
    lines: mpsc::UnboundedReceiver<io::Result<Line>>,
}

impl Lines {
    /// Reads from the terminal, with a prompt; the arrow keys bring `earlier` lines back, the
    /// oldest first. They are kept in memory alone.
    ///
    /// The terminal is the editor's only while it waits for a line: during a reply Ctrl-C is a
    /// signal as usual.
    pub(crate) fn of_terminal(prompt: &'static str, earlier: Vec<String>) -> io::Result<Self> {
        let config = Config::builder().auto_add_history(true).max_history_size(HISTORY);
        let config = config.map_err(editor_failed)?.build();
        let mut editor = DefaultEditor::with_config(config).map_err(editor_failed)?;
        for line in earlier {
            editor.add_history_entry(line).map_err(editor_failed)?;
        }
        let (ask, asked) = std_mpsc::channel();
        let (send, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            while asked.recv().is_ok() {
                let line = match editor.readline(prompt) {
                    Ok(line) => Ok(Line::Typed(line)),
                    Err(ReadlineError::Interrupted) => Ok(Line::Stopped),
                    Err(ReadlineError::Eof) => Ok(Line::End),
                    Err(error) => Err(editor_failed(error)),
                };
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { ask: Some(ask), asked: false, lines })
    }

    /// Reads standard input line by line.
    pub(crate) fn of_pipe() -> Self {
        let (send, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in io::stdin().lock().lines() {
                let broken = line.is_err();
                if send.send(line.map(Line::Typed)).is_err() || broken {
                    return;
                }
            }
            // Nobody listens any more only when the conversation is over.
            let _ = send.send(Ok(Line::End));
        });
        Self { ask: None, asked: false, lines }
    }

    /// Waits for the next line. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> io::Result<Line> {
        if let Some(ask) = self.ask.as_ref().filter(|_| !self.asked) {
            // A thread that is gone shows below as the end.
            let _ = ask.send(());
            self.asked = true;
        }
        let line = self.lines.recv().await.unwrap_or(Ok(Line::End));
        self.asked = false;
        line
    }
}

fn editor_failed(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) => error,
        error => io::Error::other(error.to_string()),
    }
}
