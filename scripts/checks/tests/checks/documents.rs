//! The documents say what is so: links lead somewhere, commands and their options exist,
//! configurations are accepted, and the tests that the threat model names are there.
//!
//! A fenced block says by its tag what it is: `yaml cloud` and `yaml premise` are whole
//! configurations (a missing key has its default), `cedar` is a set of policies, `sh` holds
//! commands of which every `nowconnect`, `nowconnect-agent` and `make` is looked up. The blocks of
//! the plugin guide that have a second word in their tag are run, see `plugins`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Output;

use nowconnect_protocol::{CloseCode, ResetClass, ResetCode};

use crate::gateway::{binary, clean};
use crate::parts::certificates::Authority;
use crate::parts::run;
use crate::repository::{files, root, text};

#[test]
fn links_lead_to_files() {
    let mut broken = Vec::new();
    for path in documents() {
        let folder = path.parent().unwrap();
        for target in links(&text(&path).unwrap()) {
            let file = target.split('#').next().unwrap();
            if !file.is_empty() && !root().join(folder).join(file).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn commands_and_their_options_exist() {
    let makefile = text(Path::new("Makefile")).unwrap();
    let mut wrong = Vec::new();
    for block in blocks("sh") {
        for line in block.text.lines() {
            for command in commands(line) {
                if let Err(problem) = look_up(&command, &makefile) {
                    wrong.push(format!(
                        "{}: `{}`: {problem}",
                        block.place,
                        command.join(" ")
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn hub_configurations_are_accepted() {
    check_each("yaml cloud", "cloud.yaml", check_hub);
}

#[test]
fn agent_configurations_are_accepted() {
    check_each("yaml premise", "premise.yaml", check_agent);
}

#[test]
fn policies_are_valid() {
    check_each("cedar", "shown.cedar", |path| {
        clean(&binary("nowconnect"))
            .args(["policy", "check"])
            .arg(path.parent().unwrap())
            .output()
            .unwrap()
    });
}

#[test]
fn shipped_configurations_are_accepted() {
    for path in files() {
        let check = match path.file_name().and_then(|name| name.to_str()) {
            Some("cloud.yaml") => check_hub,
            // Its token is where an operator puts it.
            Some("premise.yaml") => check_agent_file,
            _ => continue,
        };
        let folder = tempfile::tempdir().unwrap();
        let furnished = furnish(folder.path(), &text(&path).unwrap());
        let copy = folder.path().join(path.file_name().unwrap());
        std::fs::write(&copy, furnished).unwrap();
        let policies = root().join(path.parent().unwrap()).join("policies");
        if policies.exists() {
            std::os::unix::fs::symlink(policies, folder.path().join("policies")).unwrap();
        }
        let output = check(&copy);
        assert!(
            output.status.success(),
            "{}: {}",
            path.display(),
            said(&output)
        );
    }
}

#[test]
fn error_codes_are_those_of_the_registry() {
    let page = text(Path::new("docs/error-codes.md")).unwrap();
    let table = |heading: &str| -> Vec<(String, bool)> {
        let section = page
            .split("\n## ")
            .find(|section| section.starts_with(heading))
            .unwrap();
        section
            .lines()
            .filter_map(|line| {
                let cells: Vec<_> = line.split('|').map(str::trim).collect();
                let code = cells.get(1)?.strip_prefix("[`")?.split('`').next()?;
                Some((code.to_owned(), cells[2] == "yes"))
            })
            .collect()
    };
    let resets = ResetCode::ALL.iter().map(|code| {
        (
            code.as_str().to_owned(),
            code.class() == ResetClass::NotStarted,
        )
    });
    assert_eq!(table("Why a flow was reset"), resets.collect::<Vec<_>>());
    let closes = CloseCode::ALL
        .iter()
        .map(|code| (code.as_str().to_owned(), code.is_retryable()));
    assert_eq!(table("Why a tunnel ended"), closes.collect::<Vec<_>>());
}

#[test]
fn each_example_is_a_folder_with_readme_and_script() {
    let mut examples = BTreeSet::new();
    for path in files() {
        let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
        if let ["examples", name, _, ..] = parts[..] {
            examples.insert(name.to_owned());
        }
    }
    assert!(examples.len() > 3, "{examples:?}");
    for example in examples {
        for file in ["README.md", "run.sh"] {
            assert!(
                root().join("examples").join(&example).join(file).exists(),
                "examples/{example} has no {file}"
            );
        }
    }
}

#[test]
fn threat_model_names_tests_that_exist() {
    let sources: Vec<_> = files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| text(&path))
        .collect();
    let mut rows = 0;
    let mut missing = Vec::new();
    for line in text(Path::new("docs/threat-model.md")).unwrap().lines() {
        let Some((_, last)) = line.trim_end_matches([' ', '|']).rsplit_once('|') else {
            continue;
        };
        if !line.starts_with('|') || last.contains("---") || last.trim() == "test" {
            continue;
        }
        rows += 1;
        let named: Vec<_> = last.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            missing.push(format!("a row names no test: {line}"));
        }
        for test in named {
            let function = test.rsplit("::").next().unwrap();
            if !sources
                .iter()
                .any(|source| source.contains(&format!("fn {function}(")))
            {
                missing.push(test.to_owned());
            }
        }
    }
    assert!(rows > 20, "{rows} rows: is it still a table?");
    assert!(missing.is_empty(), "{missing:#?}");
}

/// A fenced block of a document.
struct Block {
    place: String,
    text: String,
}

fn documents() -> Vec<PathBuf> {
    files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

/// The texts of one document's blocks of a kind, in their order.
pub(crate) fn blocks_of(document: &Path, tag: &str) -> Vec<String> {
    let blocks = blocks_in(vec![document.to_owned()], tag);
    blocks.into_iter().map(|block| block.text).collect()
}

fn blocks(tag: &str) -> Vec<Block> {
    blocks_in(documents(), tag)
}

fn blocks_in(documents: Vec<PathBuf>, tag: &str) -> Vec<Block> {
    let mut found = Vec::new();
    for path in documents {
        let content = text(&path).unwrap();
        let mut open: Option<(bool, Block)> = None;
        for (index, line) in content.lines().enumerate() {
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(info)) => {
                    let place = format!("{}:{}", path.display(), index + 1);
                    open = Some((
                        info.trim() == tag,
                        Block {
                            place,
                            text: String::new(),
                        },
                    ));
                }
                (Some(_), Some(_)) => {
                    let (wanted, block) = open.take().unwrap();
                    if wanted {
                        found.push(block);
                    }
                }
                (Some((_, block)), None) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
    }
    found
}

fn links(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in markdown.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        for after in line.split("](").skip(1) {
            let target = after.split(')').next().unwrap();
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push(target.to_owned());
            }
        }
    }
    found
}

/// Writes each block of a kind to a file of that name and asks `check` about it.
fn check_each(tag: &str, name: &str, check: impl Fn(&Path) -> Output) {
    let mut wrong = Vec::new();
    for block in blocks(tag) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::create_dir(folder.path().join("policies")).unwrap();
        std::fs::write(&path, furnish(folder.path(), &block.text)).unwrap();
        let output = check(&path);
        if !output.status.success() {
            wrong.push(format!("{}: {}", block.place, said(&output)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check_hub(path: &Path) -> Output {
    run(clean(&binary("nowconnect"))
        .args(["config", "check", "--syntax-only"])
        .arg(path))
}

fn check_agent(path: &Path) -> Output {
    run(clean(&binary("nowconnect-agent"))
        .args(["config", "check", "--config"])
        .arg(path))
}

fn check_agent_file(path: &Path) -> Output {
    run(clean(&binary("nowconnect-agent"))
        .args(["config", "check", "--syntax-only", "--config"])
        .arg(path))
}

/// The text with `/etc/nowconnect` replaced by a folder that has what a machine would have there.
fn furnish(folder: &Path, text: &str) -> String {
    let authority = Authority::new(folder);
    let tls = folder.join("tls");
    std::fs::create_dir(&tls).unwrap();
    let certificate = authority.issue("hub", &["hub.corp.example"]);
    std::fs::rename(certificate.cert_file, tls.join("cert.pem")).unwrap();
    std::fs::rename(certificate.key_file, tls.join("key.pem")).unwrap();
    authority.issue("agent", &["site-1.corp.example"]);
    for name in ["agent.token", "client-secret", "token"] {
        std::fs::write(folder.join(name), "shown-in-a-document").unwrap();
    }
    std::fs::write(folder.join("jwks.json"), r#"{"keys":[]}"#).unwrap();
    text.replace("/etc/nowconnect", &folder.display().to_string())
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The commands of a line of shell that are ours to check, each as its words.
fn commands(line: &str) -> Vec<Vec<String>> {
    let line = line.trim().trim_start_matches("$ ");
    let line = line.split(" #").next().unwrap();
    line.split(['|', ';', '&'])
        .filter_map(|part| {
            let words: Vec<_> = part
                .split_whitespace()
                .skip_while(|word| {
                    *word == "sudo" || (word.contains('=') && !word.starts_with('-'))
                })
                .map(str::to_owned)
                .collect();
            let program = Path::new(words.first()?).file_name()?.to_str()?.to_owned();
            ["make", "nowconnect", "nowconnect-agent"]
                .contains(&program.as_str())
                .then(|| {
                    let mut words = words;
                    words[0] = program;
                    words
                })
        })
        .collect()
}

fn look_up(words: &[String], makefile: &str) -> Result<(), String> {
    if words[0] == "make" {
        let targets = words[1..].iter().filter(|word| !word.contains('='));
        return targets
            .map(|target| target.trim_end_matches(','))
            .try_for_each(|target| {
                let known = makefile
                    .lines()
                    .any(|line| line.starts_with(&format!("{target}:")));
                if known {
                    Ok(())
                } else {
                    Err(format!("no target `{target}`"))
                }
            });
    }
    // The subcommands are the words before the first option or value.
    let mut help = help(&words[0], &[]);
    let mut path = Vec::new();
    for word in &words[1..] {
        let is_command = help
            .lines()
            .any(|line| line.trim_start().split(' ').next() == Some(word.as_str()));
        if word.starts_with('-') || !is_command || !help.contains("Commands:") {
            break;
        }
        path.push(word.as_str());
        help = self::help(&words[0], &path);
    }
    if help.contains("Commands:") && words.len() > 1 && !words[1].starts_with('-') {
        return Err(format!("no such command; help says\n{help}"));
    }
    for option in words.iter().filter(|word| word.starts_with("--")) {
        let name = option.split('=').next().unwrap();
        if !help
            .split(|c: char| c.is_whitespace() || ",=[]<>".contains(c))
            .any(|word| word == name)
        {
            return Err(format!("no option `{name}`; help says\n{help}"));
        }
    }
    Ok(())
}

fn help(program: &str, path: &[&str]) -> String {
    said(&run(clean(&binary(program)).args(path).arg("--help")))
}
