//! The registry has every code that is said, says nothing that is not so, and is what is in
//! `docs/`.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nowconnect_policy::{NOT_PERMITTED, POLICY_ERROR};

use super::{DenialCode, Line, all, page};
use crate::bundle::refused;
use crate::telemetry::events;

#[test]
fn pages_are_those_of_the_registry() {
    let docs = root().join("docs");
    let mut expected = page::files();
    let pages = std::fs::read_dir(docs.join(page::PAGES)).unwrap();
    let names = pages.map(|entry| {
        let name = entry.unwrap().file_name();
        format!("{}/{}", page::PAGES, name.to_str().unwrap())
    });
    for name in names.chain([page::INDEX.to_owned()]) {
        let found = std::fs::read_to_string(docs.join(&name)).unwrap();
        let wanted = expected.remove(&name);
        assert!(
            wanted.as_ref() == Some(&found),
            "docs/{name} is not what the registry says; run `nowconnect explain-code --write docs`"
        );
    }
    let missing: Vec<_> = expected.keys().collect();
    assert!(
        missing.is_empty(),
        "{missing:?}: run `nowconnect explain-code --write docs`"
    );
}

#[test]
fn a_code_stands_once_in_a_place() {
    let mut seen = BTreeSet::new();
    for entry in all() {
        assert!(
            seen.insert((entry.group.heading, entry.code)),
            "`{}` stands twice under `{}`",
            entry.code,
            entry.group.heading
        );
    }
}

#[test]
fn every_code_is_a_word_that_can_name_a_file() {
    for code in page::codes() {
        assert!(
            code.bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
            "{code}"
        );
    }
}

#[test]
fn every_text_is_whole() {
    for entry in all() {
        let text = entry.text;
        assert!(
            !text.meaning.ends_with('.'),
            "{}: {}",
            entry.code,
            text.meaning
        );
        assert!(
            !text.remedy.ends_with('.'),
            "{}: {}",
            entry.code,
            text.remedy
        );
        assert!(text.cause.ends_with('.'), "{}: {}", entry.code, text.cause);
        for part in [text.meaning, text.cause, text.remedy] {
            assert!(
                !part.is_empty() && !part.contains(['|', '\n']),
                "{}",
                entry.code
            );
            assert_eq!(part.matches('`').count() % 2, 0, "{}: {part}", entry.code);
        }
        assert_eq!(entry.property.is_some(), entry.group.property.is_some());
    }
}

#[test]
fn every_metric_and_event_exists() {
    let metrics = document("docs/metrics.md");
    for entry in all() {
        let named = entry.group.metrics.iter().chain(entry.text.metrics);
        for series in named {
            let name = series.split('{').next().unwrap();
            let row = metrics
                .lines()
                .find(|line| line.starts_with(&format!("| `{name}` |")))
                .unwrap_or_else(|| panic!("{}: no metric `{name}`", entry.code));
            if let Some((label, _)) = series.split_once('=') {
                let label = label.split('{').nth(1).unwrap();
                assert!(
                    row.contains(&format!("`{label}`")),
                    "`{name}` has no `{label}`"
                );
            }
        }
        for Line(event, _) in entry.group.lines.iter().chain(entry.text.lines) {
            assert!(events::ALL.contains(event), "{event}");
        }
    }
}

#[test]
fn every_configuration_key_exists() {
    let files = document("config/cloud.yaml") + &document("config/premise.yaml");
    for entry in all() {
        let text = entry.text;
        for words in [text.meaning, text.cause, text.remedy] {
            for key in words
                .split('`')
                .skip(1)
                .step_by(2)
                .filter(|word| is_key(word))
            {
                let last = key.rsplit('.').next().unwrap();
                assert!(
                    files.contains(&format!("{last}:")),
                    "{}: no key `{key}`",
                    entry.code
                );
            }
        }
    }
}

#[test]
fn codes_of_other_places_are_all_there() {
    let asked: BTreeSet<_> = all()
        .iter()
        .filter(|entry| entry.group.place == "As the answer to something asked about bundles")
        .map(|entry| entry.code)
        .collect();
    assert_eq!(asked, refused::codes::ALL.iter().copied().collect());
    assert_eq!(DenialCode::NotPermitted.as_str(), NOT_PERMITTED);
    assert_eq!(DenialCode::PolicyError.as_str(), POLICY_ERROR);
    assert_eq!(
        DenialCode::PluginFailed.as_str(),
        nowconnect_plugins::PLUGIN_FAILED
    );
}

#[test]
fn shipped_policies_and_plugins_have_their_codes_explained() {
    let codes = page::codes();
    let mut found = BTreeSet::new();
    for path in sources(&root().join("policies"), "cedar") {
        let text = std::fs::read_to_string(path).unwrap();
        for after in text.split("@error(\"").skip(1) {
            found.insert(after.split('"').next().unwrap().to_owned());
        }
    }
    for plugin in ["authzen-pdp", "rate-limit", "scope-guard"] {
        for path in sources(&root().join("plugins").join(plugin).join("src"), "rs") {
            let text = std::fs::read_to_string(path).unwrap();
            for after in text.split(" code: \"").skip(1) {
                found.insert(after.split('"').next().unwrap().to_owned());
            }
        }
    }
    assert!(found.len() > 6, "{found:?}");
    for code in found {
        assert!(codes.contains(code.as_str()), "`{code}` has no page");
    }
}

#[test]
fn a_word_that_is_no_code_leads_to_those_that_are() {
    assert!(page::alike("bundle-rolled-rollback").contains(&"bundle_rollback"));
    assert!(page::alike("zzz").is_empty());
    assert!(page::page("zzz").is_none());
}

#[test]
fn a_code_of_several_places_has_one_page_with_all() {
    let page = page::page("revoked").unwrap();
    for place in ["As the end of a flow", "As the end of a tunnel"] {
        assert!(page.contains(&format!("\n## {place}\n")), "{page}");
    }
    assert!(page.contains("`nowconnect_flow_ends_total{cause=\"revoked\"}`"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn document(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn sources(folder: &Path, extension: &str) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

/// Whether a quoted word is the path of a key, such as `limits.max_agents`.
fn is_key(word: &str) -> bool {
    const PARTS: [&str; 9] = [
        "admin",
        "limits",
        "observability",
        "pdp",
        "plugins",
        "policy",
        "security",
        "tls",
        "tunnel",
    ];
    word.split_once('.')
        .is_some_and(|(part, _)| PARTS.contains(&part))
        && word
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.'))
        || word.ends_with("_ms")
        || word.ends_with("_sec")
}
