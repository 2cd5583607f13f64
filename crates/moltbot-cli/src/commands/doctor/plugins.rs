//! Checks the plugins from outside that the config trusts.

use super::Doctor;
use crate::Context;
use crate::commands::plugins::doctor::used;
use crate::out::clean;

/// Lists what is used, and why something is not.
pub(super) fn check(cx: &mut Context, doctor: &mut Doctor) {
    for row in cx.carried().to_vec() {
        let shown = cx.shown(&row.path);
        match &row.problem {
            Some(problem) => {
                let text = format!("the plugin {shown} is not used: {}", problem.reason);
                doctor.problem(cx, &clean(&text), Some(&problem.hint));
            }
            None => {
                let text = format!("plugin {}", used(&row, &shown));
                doctor.info(cx, &clean(&text));
            }
        }
        for complaint in &row.complaints {
            doctor.warning(cx, &clean(&format!("the plugin {shown}: {complaint}")));
        }
    }
}
