//! `moltbot plugins doctor`: what became of the plugins from outside.

use super::row::{Problem, Row};
use crate::out::{Tone, clean};
use crate::{Context, Exit, Outcome};

/// Lists every plugin from outside and every problem; exit code 1 as long as there is one.
pub(super) fn run(cx: &mut Context) -> Outcome {
    let rows = cx.carried().to_vec();
    let mut problems = 0;
    for row in &rows {
        let shown = cx.shown(&row.path);
        if let Some(Problem { reason, hint }) = &row.problem {
            problems += 1;
            let mark = cx.out.paint(Tone::Bad, "problem:");
            cx.out.line(clean(&format!("{mark} {shown} is not used: {reason}")));
            cx.out.line(clean(&format!("  {hint}")));
        } else {
            let mark = cx.out.paint(Tone::Good, "used:");
            cx.out.line(clean(&format!("{mark} {}", used(row, &shown))));
        }
        for complaint in &row.complaints {
            problems += 1;
            let mark = cx.out.paint(Tone::Warn, "warning:");
            cx.out.line(clean(&format!("{mark} {shown}: {complaint}")));
        }
    }
    if problems > 0 {
        return Ok(Exit::NO);
    }
    let text = cx.out.paint(Tone::Good, "No plugin problems found.");
    cx.out.line(text);
    Ok(Exit::OK)
}

/// Says what is used of a file, in one clause.
pub(crate) fn used(row: &Row, shown: &str) -> String {
    let name = |plugin: &&moltbot_core::Plugin| format!("{} {}", plugin.id, plugin.version);
    let plugins: Vec<_> = row.plugins.iter().map(name).collect();
    format!("{} from {shown} ({})", plugins.join(", "), row.kind)
}
