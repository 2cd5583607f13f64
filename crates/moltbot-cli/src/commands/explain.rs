//! `moltbot explain CODE`: the page of an error code.

use clap::{Arg, ArgMatches, Command};
use moltbot_config::IssueCode;
use moltbot_core::Registry;
use serde_json::json;

use crate::text::{nearest, wrap};
use crate::{Context, Exit, Failure, Outcome};

use super::json_arg;

/// One page, whoever wrote it.
struct Page {
    id: &'static str,
    title: &'static str,
    cause: &'static str,
    fix: &'static str,
}

/// Describes the command.
pub(crate) fn command(_: &Registry) -> Command {
    Command::new("explain")
        .about("Explain an error code, or list all codes")
        .arg(Arg::new("code").value_name("CODE").help("The code, as messages name it"))
        .arg(json_arg())
        .after_help("Examples:\n  moltbot explain no-credential\n  moltbot explain")
}

/// Prints one page, or the list.
pub(crate) fn run(cx: &mut Context, args: &ArgMatches) -> Outcome {
    let pages = pages(cx.registry);
    let json = args.get_flag("json");
    let Some(code) = args.get_one::<String>("code") else {
        if json {
            let pages: Vec<_> = pages.iter().map(Page::json).collect();
            cx.out.json(&json!({ "codes": pages }));
        } else {
            let rows: Vec<_> = pages
                .iter()
                .map(|page| vec![page.id.to_string(), page.title.to_string()])
                .collect();
            cx.out.table(&["Code", "Meaning"], &rows);
        }
        return Ok(Exit::OK);
    };
    let code = code.trim().to_ascii_lowercase();
    let Some(page) = pages.iter().find(|page| page.id == code) else {
        let failure = Failure::input(format!("Unknown code \"{code}\""));
        return Err(match nearest(&code, pages.iter().map(|page| page.id)) {
            Some(id) => failure.hint(format!("moltbot explain {id}")),
            None => failure.hint("`moltbot explain` lists all codes"),
        });
    };
    if json {
        cx.out.json(&page.json());
        return Ok(Exit::OK);
    }
    let width = usize::from(cx.out.terminal().width.unwrap_or(80)).clamp(20, 80);
    cx.out.line(format!("{}: {}", page.id, page.title));
    cx.out.line("");
    cx.out.line(wrap(page.cause, width));
    if !page.fix.is_empty() {
        cx.out.line("");
        cx.out.line(wrap(&format!("What to do: {}", page.fix), width));
    }
    Ok(Exit::OK)
}

/// Collects the pages of the host, the plugins and the config, sorted.
fn pages(registry: &Registry) -> Vec<Page> {
    let mut pages: Vec<Page> = registry
        .codes()
        .map(|code| Page { id: &code.id, title: &code.title, cause: &code.cause, fix: &code.fix })
        .collect();
    for code in IssueCode::ALL {
        // Some stand in the host's list too, with more to say.
        if !pages.iter().any(|page| page.id == code.as_str()) {
            let cause = code.explain();
            let title = cause.split_inclusive(". ").next().unwrap_or(cause).trim_end();
            let title = title.strip_suffix('.').unwrap_or(title);
            pages.push(Page { id: code.as_str(), title, cause, fix: "" });
        }
    }
    pages.sort_by_key(|page| page.id);
    pages
}

impl Page {
    fn json(&self) -> serde_json::Value {
        json!({ "code": self.id, "title": self.title, "cause": self.cause, "fix": self.fix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    #[test]
    fn every_code_has_a_page() {
        let bench = Bench::new();
        for page in pages(bench.registry) {
            let ran = bench.run(&["explain", page.id]);
            assert_eq!(ran.code, 0, "{}", page.id);
            assert!(ran.stdout.starts_with(&format!("{}: ", page.id)), "{}", ran.stdout);
            assert!(ran.stdout.lines().skip(1).all(|line| line.chars().count() <= 80));
        }
    }

    #[test]
    fn a_mistyped_code_is_recognised() {
        let ran = Bench::new().run(&["explain", "no-credentials"]);
        assert_eq!(ran.code, 1);
        let text = "Error: Unknown code \"no-credentials\"\nhint: moltbot explain no-credential\nhint: moltbot explain input\n";
        assert_eq!(ran.stderr, text);
    }

    #[test]
    fn the_list_is_whole_and_sorted() {
        let ran = Bench::new().run(&["explain", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let ids: Vec<_> =
            list["codes"].as_array().unwrap().iter().map(|page| page["code"].to_string()).collect();
        assert!(ids.is_sorted() && ids.len() > 40, "{ids:?}");
    }
}
