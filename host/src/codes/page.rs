//! The registry as Markdown: an index, and one page for each code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Entry, Group, Line, all};

/// The index's path below the folder that `explain-code --write` is given.
pub const INDEX: &str = "error-codes.md";

/// The folder of the pages there.
pub const PAGES: &str = "errors";

const WRITTEN: &str = "<!-- Written by `nowconnect explain-code --write docs` from the registry of \
                       codes (host/src/codes). -->\n";

const PREFACE: &str = "\
# Error codes

Codes are stable: they appear in logs, metrics, HELLO_ACK, RST and GOODBYE, and never change their
meaning. Each has a page, which `nowconnect explain-code CODE` prints too.

A client of a raw TCP listener is told none of them: it sees its connection close.
`nowconnect policy explain --client IP[:PORT] --last` on the hub says why.
";

/// Every file, by its path below the folder.
#[must_use]
pub fn files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::from([(INDEX.to_owned(), index())]);
    for code in codes() {
        if let Some(page) = page(code) {
            let link = "\n[All codes](../error-codes.md)\n";
            files.insert(
                format!("{PAGES}/{code}.md"),
                format!("{WRITTEN}{page}{link}"),
            );
        }
    }
    files
}

/// Every code once, sorted.
#[must_use]
pub fn codes() -> BTreeSet<&'static str> {
    all().iter().map(|entry| entry.code).collect()
}

/// The line that follows an error with this code, its break included: where there is more to
/// read. Empty where there is no page, as for the codes of policies and plugins.
pub(crate) fn hint(code: &str) -> String {
    if all().iter().any(|entry| entry.code == code) {
        format!("\n`nowconnect explain-code {code}` says what it means and what to do")
    } else {
        String::new()
    }
}

/// What there is to say about a code, in every place where it is said; `None` if it is none.
#[must_use]
pub fn page(code: &str) -> Option<String> {
    let entries: Vec<_> = all()
        .into_iter()
        .filter(|entry| entry.code == code)
        .collect();
    let mut page = format!("# `{}`\n", entries.first()?.code);
    for entry in &entries {
        if entries.len() > 1 {
            let _ = write!(page, "\n## {}\n", entry.group.place);
        }
        page.push_str(&section(entry, entries.len() == 1));
    }
    Some(page)
}

/// Codes that look like `word`, the likeliest first; at most five.
#[must_use]
pub fn alike(word: &str) -> Vec<&'static str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let parts: Vec<_> = word.split('_').filter(|part| part.len() > 2).collect();
    let mut found: Vec<_> = codes()
        .into_iter()
        .map(|code| {
            let shared = parts.iter().filter(|part| code.contains(**part)).count();
            (shared, code)
        })
        .filter(|(shared, _)| *shared > 0)
        .collect();
    found.sort_by(|(a, a_code), (b, b_code)| b.cmp(a).then(a_code.cmp(b_code)));
    found.into_iter().map(|(_, code)| code).take(5).collect()
}

fn section(entry: &Entry, alone: bool) -> String {
    let Entry { group, text, .. } = entry;
    let mut section = format!("\n{}.\n\n", capitalized(text.meaning));
    if alone {
        let _ = writeln!(section, "- where: {}", uncapitalized(group.place));
    }
    let _ = writeln!(section, "- who sees it: {}", group.seen_by);
    if let (Some(name), Some(value)) = (group.property, &entry.property) {
        let _ = writeln!(section, "- {name}: {value}");
    }
    for metric in group.metrics.iter().chain(text.metrics) {
        let metric = metric.replace("CODE", entry.code);
        let _ = writeln!(section, "- metric: `{metric}`");
    }
    for Line(event, field) in group.lines.iter().chain(text.lines) {
        let _ = match *field {
            "" => writeln!(section, "- log line: `\"event\":\"{event}\"`"),
            field => writeln!(
                section,
                "- log line: `\"event\":\"{event}\"` with `\"{field}\":\"{}\"`",
                entry.code
            ),
        };
    }
    let _ = write!(
        section,
        "- since: {}\n\n**Why.** {}\n\n**What to do.** {}.\n",
        entry.since,
        text.cause,
        capitalized(text.remedy)
    );
    section
}

fn index() -> String {
    let mut index = format!("{WRITTEN}{PREFACE}");
    let mut last: Option<&Group> = None;
    for entry in all() {
        let group = entry.group;
        let mut header = vec!["code"];
        header.extend(group.property);
        header.extend(["meaning", "what to do"]);
        if last != Some(group) {
            let _ = write!(
                index,
                "\n## {}\n\n{}\n\n| {} |\n|{}\n",
                group.heading,
                group.intro,
                header.join(" | "),
                "---|".repeat(header.len())
            );
            last = Some(group);
        }
        let link = format!("[`{0}`]({PAGES}/{0}.md)", entry.code);
        let mut cells = vec![link];
        cells.extend(entry.property);
        cells.extend([entry.text.meaning, entry.text.remedy].map(str::to_owned));
        let _ = writeln!(index, "| {} |", cells.join(" | "));
    }
    index
}

/// With a capital in front, unless code stands there.
fn capitalized(text: &str) -> String {
    first(text, |c| c.to_ascii_uppercase())
}

fn uncapitalized(text: &str) -> String {
    first(text, |c| c.to_ascii_lowercase())
}

fn first(text: &str, change: impl Fn(char) -> char) -> String {
    let mut rest = text.chars();
    rest.next()
        .map(|c| change(c).to_string() + rest.as_str())
        .unwrap_or_default()
}
