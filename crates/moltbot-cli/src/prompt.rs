//! Questions on the terminal. The prompt library sits behind this file and nowhere else.
//!
//! Everything is drawn on standard error, so that standard output stays data.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// One line of a [`select`].
pub(crate) struct Choice<T> {
    /// What choosing it returns.
    pub(crate) value: T,
    /// The line.
    pub(crate) label: String,
    /// Shown while the line is marked.
    pub(crate) hint: String,
}

/// Says what is about to happen.
pub(crate) fn intro(title: &str) -> io::Result<()> {
    cliclack::intro(title)
}

/// Says how it ended.
pub(crate) fn outro(text: &str) -> io::Result<()> {
    cliclack::outro(text)
}

/// Shows a few lines under a title.
pub(crate) fn note(title: &str, text: &str) -> io::Result<()> {
    cliclack::note(title, text)
}

/// Says why an answer was refused.
pub(crate) fn error(text: &str) -> io::Result<()> {
    cliclack::log::error(text)
}

/// Asks for a secret; what is typed or pasted is drawn as dots.
pub(crate) fn secret(label: &str) -> io::Result<String> {
    quietly(|| cliclack::password(label).mask('•').allow_empty().interact())
}

/// Asks for a line of text.
pub(crate) fn text(label: &str, default: Option<&str>) -> io::Result<String> {
    quietly(|| {
        let mut input = cliclack::input(label);
        match default {
            Some(default) => input = input.default_input(default),
            None => input = input.required(false),
        }
        input.interact()
    })
}

/// Asks yes or no.
pub(crate) fn confirm(label: &str, default: bool) -> io::Result<bool> {
    quietly(|| cliclack::confirm(label).initial_value(default).interact())
}

/// Lets one of several lines be chosen, `initial` being marked first.
pub(crate) fn select<T: Clone + Eq>(
    label: &str,
    choices: &[Choice<T>],
    initial: Option<&T>,
) -> io::Result<T> {
    quietly(|| {
        let mut select = cliclack::select(label).max_rows(12);
        for choice in choices {
            select = select.item(choice.value.clone(), &choice.label, &choice.hint);
        }
        if let Some(initial) = initial {
            select = select.initial_value(initial.clone());
        }
        select.interact()
    })
}

/// Lets any number of lines be chosen, `initial` being marked first; none is fine.
pub(crate) fn several<T: Clone + Eq>(
    label: &str,
    choices: &[Choice<T>],
    initial: Vec<T>,
) -> io::Result<Vec<T>> {
    quietly(|| {
        let mut select = cliclack::multiselect(label).required(false).max_rows(12);
        for choice in choices {
            select = select.item(choice.value.clone(), &choice.label, &choice.hint);
        }
        select.initial_values(initial).interact()
    })
}

/// A sign of life on standard error while something takes time; cleared when dropped.
pub(crate) struct Spinner(indicatif::ProgressBar);

impl Spinner {
    /// Starts turning.
    pub(crate) fn start(text: &str) -> Self {
        let bar = indicatif::ProgressBar::new_spinner().with_message(text.to_string());
        bar.enable_steady_tick(std::time::Duration::from_millis(100));
        Self(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Keeps what is typed off the screen until it is dropped, also between two questions, where a
/// paste would otherwise be echoed by the terminal itself.
pub(crate) struct Quiet(Option<Termios>);

impl Quiet {
    /// Turns echo and line editing off. Ctrl-C between two questions is kept for the next one.
    pub(crate) fn start() -> Self {
        INTERRUPTED.get_or_init(catch_interrupt);
        Self(change(|modes| modes & !(LocalModes::ECHO | LocalModes::ICANON)))
    }

    /// Turns them on for as long as `inside` runs: a program that talks to the user itself.
    pub(crate) async fn aloud<F: Future>(inside: F) -> F::Output {
        let _loud = Self(change(|modes| modes | LocalModes::ECHO | LocalModes::ICANON));
        inside.await
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that is gone needs no restoring.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Tells that Ctrl-C came as a signal: while no question was open, and so no key was read. Not set
/// where a single question is asked: there Ctrl-C ends the program at once, as everywhere else.
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

fn catch_interrupt() -> Arc<AtomicBool> {
    let flag = Arc::default();
    // Where no handler can be set, Ctrl-C ends the program at once.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&flag));
    flag
}

/// Takes note of a Ctrl-C that came as a signal, and forgets it.
pub(crate) fn take_interrupt() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.swap(false, Ordering::Relaxed))
}

/// Runs a prompt with echo, line editing and signals off from before the first key to after the
/// last.
///
/// The library switches the terminal for each key anew; what arrives in between would be echoed.
/// With signals off, Ctrl-C is a key like any other and comes back as
/// [`io::ErrorKind::Interrupted`].
fn quietly<T>(prompt: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let off = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
    let _quiet = Quiet(change(|modes| modes & !off));
    // Only now: from here on Ctrl-C is a key, until here it was a signal.
    if take_interrupt() {
        return Err(io::ErrorKind::Interrupted.into());
    }
    prompt()
}

/// Changes the terminal's local modes and returns what they were; nothing without a terminal.
fn change(modes: impl FnOnce(LocalModes) -> LocalModes) -> Option<Termios> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).ok()?;
    let mut after = before.clone();
    after.local_modes = modes(after.local_modes);
    tcsetattr(&stdin, OptionalActions::Now, &after).ok()?;
    Some(before)
}
