//! What is printed, where: data on standard output, everything else on standard error.
//!
//! A reader that went away (`moltbot models list | head -1`) ends the printing, not the program.
//! Text from outside goes through [`clean`] where it is put into a line.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::Failure;

pub use moltbot_core::redact as clean;

/// Which of the three standard streams are terminals, and how wide the screen is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminal {
    /// Standard input is one.
    pub stdin: bool,
    /// Standard output is one.
    pub stdout: bool,
    /// Standard error is one.
    pub stderr: bool,
    /// Columns; `None` if unknown.
    pub width: Option<u16>,
}

impl Terminal {
    /// Tells whether a person can be asked: input and the prompts' stream are terminals.
    pub fn interactive(self) -> bool {
        self.stdin && self.stderr
    }
}

/// A colour with a meaning; never the only carrier of that meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Fine.
    Good,
    /// Look at it.
    Warn,
    /// Broken.
    Bad,
    /// Secondary.
    Dim,
    /// A heading.
    Strong,
}

/// The two output streams of one command.
pub struct Out {
    stdout: Box<dyn Write>,
    stderr: Box<dyn Write>,
    closed: bool,
    failed: bool,
    terminal: Terminal,
    color: bool,
    repeated: String,
}

impl Out {
    /// Puts two streams together. Colours are on only where `terminal` says terminal and
    /// [`Out::allow_color`] is called.
    pub fn new(stdout: Box<dyn Write>, stderr: Box<dyn Write>, terminal: Terminal) -> Self {
        Self {
            stdout,
            stderr,
            closed: false,
            failed: false,
            terminal,
            color: false,
            repeated: String::new(),
        }
    }

    /// Says that colours may be used on streams that are terminals.
    pub fn allow_color(&mut self, allowed: bool) {
        self.color = allowed;
    }

    /// Sets the global flags that printed commands must repeat (spec C-7), with a leading space.
    pub fn repeat_flags(&mut self, flags: String) {
        self.repeated = flags;
    }

    /// Returns what is known of the terminal.
    pub fn terminal(&self) -> Terminal {
        self.terminal
    }

    /// Tells whether standard output may be coloured.
    pub fn color(&self) -> bool {
        self.color && self.terminal.stdout
    }

    /// Tells whether standard error may be coloured.
    pub fn color_stderr(&self) -> bool {
        self.color && self.terminal.stderr
    }

    /// Colours a piece of text for standard output, if colours are on.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        paint(self.color(), tone, text)
    }

    /// Prints one line of data.
    pub fn line(&mut self, text: impl AsRef<str>) {
        let text = self.commands(text.as_ref()).into_owned();
        self.data(text.as_bytes());
        self.data(b"\n");
    }

    /// Prints one line of data, broken between words where the screen ends; what follows is
    /// indented by `indent` columns. Into a pipe it stays one line.
    pub fn wrapped(&mut self, text: impl AsRef<str>, indent: usize) {
        match self.terminal.width.filter(|_| self.terminal.stdout) {
            Some(width) => {
                let text = self.commands(text.as_ref()).into_owned();
                for line in fold(&text, usize::from(width), indent) {
                    self.data(line.as_bytes());
                    self.data(b"\n");
                }
            }
            None => self.line(text),
        }
    }

    /// Prints data as it is, without a line end. For a model's reply and generated files.
    pub fn raw(&mut self, text: &str) {
        self.data(text.as_bytes());
    }

    /// Prints one value as JSON, indented by two spaces.
    pub fn json<T: Serialize>(&mut self, value: &T) {
        let text = serde_json::to_string_pretty(value)
            .expect("only values with text keys are printed, which always serialize");
        self.data(text.as_bytes());
        self.data(b"\n");
    }

    /// Prints rows below a heading, fitted to the screen; nothing at all without rows.
    pub fn table(&mut self, heading: &[&str], rows: &[Vec<String>]) {
        if rows.is_empty() {
            return;
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(heading.iter().copied());
        match self.terminal.width.filter(|_| self.terminal.stdout) {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width)
            }
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        for row in rows {
            table.add_row(row.iter().map(|cell| clean(cell).into_owned()));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text: String =
            table.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>();
        self.data(text.as_bytes());
    }

    /// Says something on standard error.
    pub fn note(&mut self, text: impl AsRef<str>) {
        let text = self.commands(text.as_ref()).into_owned();
        self.say(&text);
    }

    /// Warns on standard error.
    pub fn warn(&mut self, text: impl AsRef<str>) {
        let label = paint(self.color_stderr(), Tone::Warn, "warning:");
        let text = self.commands(text.as_ref()).into_owned();
        self.say(&format!("{label} {text}"));
    }

    /// Gives advice on standard error.
    pub fn hint(&mut self, text: impl AsRef<str>) {
        let label = paint(self.color_stderr(), Tone::Dim, "hint:");
        let text = self.commands(text.as_ref()).into_owned();
        self.say(&format!("{label} {text}"));
    }

    /// Prints a failure: the message, its hint, and where it is explained.
    pub fn failure(&mut self, failure: &Failure) {
        if failure.verbatim {
            self.note(&failure.message);
        } else {
            let label = paint(self.color_stderr(), Tone::Bad, "Error:");
            let text = self.commands(&clean(&failure.message)).into_owned();
            self.say(&format!("{label} {text}"));
        }
        for detail in &failure.details {
            self.note(format!("  {}", clean(detail)));
        }
        for hint in failure.hint.iter().chain(&failure.mend) {
            self.hint(clean(hint));
        }
        if let Some(code) = &failure.code {
            self.hint(format!("moltbot explain {code}"));
        }
    }

    /// Writes what is still held back; returns whether all data arrived or nobody wanted it.
    pub fn finish(&mut self) -> bool {
        if !self.closed
            && let Err(error) = self.stdout.flush()
        {
            self.lost(&error);
        }
        // There is nowhere left to complain to.
        let _ = self.stderr.flush();
        !self.failed
    }

    fn data(&mut self, bytes: &[u8]) {
        if self.closed {
            return;
        }
        if let Err(error) = self.stdout.write_all(bytes) {
            self.lost(&error);
        }
    }

    /// Stops printing data. A reader that went away is no failure, a full disk is one.
    fn lost(&mut self, error: &io::Error) {
        self.closed = true;
        if error.kind() != ErrorKind::BrokenPipe {
            self.failed = true;
            self.say(&format!("Error: standard output cannot be written: {error}"));
        }
    }

    fn say(&mut self, text: &str) {
        // Data that was printed before must stand before it on a shared terminal; whether it
        // arrived is seen at the end.
        let _ = self.stdout.flush();
        let _ = writeln!(self.stderr, "{text}");
    }

    /// Adds the global flags to every command of ours that a text tells the user to type.
    fn commands<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.repeated.is_empty() || !text.contains("moltbot ") {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len() + 32);
        let mut rest = text;
        while let Some(at) = rest.find("moltbot ") {
            let (before, after) = rest.split_at(at + "moltbot".len());
            out.push_str(before);
            let word: String =
                after[1..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            if crate::tree::NAMES.contains(&word.as_str()) {
                out.push_str(&self.repeated);
            }
            rest = after;
        }
        out.push_str(rest);
        Cow::Owned(out)
    }
}

/// Breaks a line between words so that no part is wider than `width`; a word that is wider stays
/// whole, and on a screen too narrow for the indent there is less of it.
fn fold(text: &str, width: usize, indent: usize) -> Vec<String> {
    let indent = " ".repeat(indent.min(width / 3));
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    // The spaces before a word belong to it, so that what fits on one line stays as it is.
    for word in text.split_inclusive(' ') {
        if !line.trim().is_empty() && columns(&line) + columns(word.trim_end()) > width {
            lines.push(line.trim_end().to_string());
            line = indent.clone();
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// Counts the columns of a text, control sequences for colours aside.
fn columns(text: &str) -> usize {
    let mut count = 0;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => _ = chars.by_ref().find(|c| c.is_ascii_alphabetic()),
            _ => count += 1,
        }
    }
    count
}

/// Colours text with the terminal's own palette.
fn paint(color: bool, tone: Tone, text: &str) -> String {
    if !color {
        return text.to_string();
    }
    let code = match tone {
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "31",
        Tone::Dim => "2",
        Tone::Strong => "1",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// A buffer that several owners write to and read from; what tests print into.
#[derive(Clone, Debug, Default)]
pub struct Buffer(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

impl Buffer {
    /// Returns what was written so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.borrow()).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffers(terminal: Terminal) -> (Out, Buffer, Buffer) {
        let (stdout, stderr) = (Buffer::default(), Buffer::default());
        let out = Out::new(Box::new(stdout.clone()), Box::new(stderr.clone()), terminal);
        (out, stdout, stderr)
    }

    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_error_and_a_full_disk_is() {
        for (kind, fine) in [(ErrorKind::BrokenPipe, true), (ErrorKind::StorageFull, false)] {
            let stderr = Buffer::default();
            let stdout = Box::new(Failing(kind));
            let mut out = Out::new(stdout, Box::new(stderr.clone()), Terminal::default());
            out.line("one");
            out.json(&1);
            assert_eq!(out.finish(), fine);
            let complaints = stderr.text().lines().count();
            assert_eq!(complaints, usize::from(!fine), "{}", stderr.text());
        }
    }

    #[test]
    fn a_failure_is_message_hint_and_page() {
        let (mut out, stdout, stderr) = buffers(Terminal::default());
        let failure = Failure::new("no sk-ant-api03-FAKEFAKE here").hint("look").code("input");
        out.failure(&failure);
        let text = "Error: no sk-... here\nhint: look\nhint: moltbot explain input\n";
        assert_eq!(stderr.text(), text);
        assert_eq!(stdout.text(), "");
    }

    #[test]
    fn printed_commands_repeat_the_profile() {
        let (mut out, _, stderr) = buffers(Terminal::default());
        out.repeat_flags(" --profile x".to_string());
        out.note("run `moltbot doctor --fix` or moltbot models set, says moltbot itself");
        let text = "run `moltbot --profile x doctor --fix` or moltbot --profile x models set, \
                    says moltbot itself\n";
        assert_eq!(stderr.text(), text);
    }

    #[test]
    fn colours_need_a_terminal_and_leave() {
        let both = Terminal { stdout: true, stderr: true, ..Terminal::default() };
        let (mut out, ..) = buffers(both);
        assert_eq!(out.paint(Tone::Bad, "x"), "x");
        out.allow_color(true);
        assert_eq!(out.paint(Tone::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
        let (mut piped, _, stderr) = buffers(Terminal::default());
        piped.allow_color(true);
        piped.warn("w");
        assert_eq!(stderr.text(), "warning: w\n");
    }

    #[test]
    fn long_lines_break_between_words_and_nowhere_else() {
        let text = "Label : one, two, \u{1b}[32mthree\u{1b}[0m, four";
        assert_eq!(fold(text, 80, 8), [text]);
        let lines = fold(text, 20, 8);
        assert_eq!(lines, ["Label : one, two,", "      \u{1b}[32mthree\u{1b}[0m, four"]);
        assert_eq!(
            fold("  a-word-that-is-wider-than-it", 10, 2),
            ["  a-word-that-is-wider-than-it"]
        );
        assert_eq!(fold("", 10, 2), [""]);
        let screen = Terminal { stdout: true, width: Some(20), ..Terminal::default() };
        let (mut out, stdout, _) = buffers(screen);
        out.wrapped("one two three four five six", 4);
        assert_eq!(stdout.text(), "one two three four\n    five six\n");
        let (mut piped, stdout, _) = buffers(Terminal::default());
        piped.wrapped("one two three four five six", 4);
        assert_eq!(stdout.text(), "one two three four five six\n");
    }

    #[test]
    fn tables_fit_the_screen() {
        let wide = vec![vec!["a".to_string(), "word ".repeat(20)]];
        let screen = Terminal { stdout: true, width: Some(40), ..Terminal::default() };
        let (mut out, stdout, _) = buffers(screen);
        out.table(&["id", "text"], &wide);
        assert!(stdout.text().lines().all(|line| line.chars().count() <= 40), "{}", stdout.text());
        let (mut piped, stdout, _) = buffers(Terminal::default());
        piped.table(&["id", "text"], &[vec!["a".into(), "b".into()]]);
        assert_eq!(stdout.text(), "id  text\na   b\n");
        piped.table(&["none"], &[]);
        assert_eq!(stdout.text(), "id  text\na   b\n");
    }
}
