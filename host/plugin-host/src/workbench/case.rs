//! Cases: a question, what is there before, and what is expected after.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::compare::compare;
use super::inputs::{self, Question};
use super::recorder::Recorded;
use crate::facts::Attribute;
use crate::hook::Hook;

/// Bytes of one case file.
const CASE_FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Case files of one folder.
const CASE_FILES_MAX: usize = 1000;

/// One question to a plugin, and what must come of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// For whoever reads the report.
    pub name: String,
    /// The plugin's settings, where the case has its own.
    pub config: Option<Value>,
    /// Grants, where the case has its own.
    pub grants: Option<Vec<String>>,
    /// What is asked.
    pub question: Question,
    /// What is expected.
    pub expect: Expect,
    pub(super) call: CallInput,
    pub(super) carry: Vec<Attribute>,
    pub(super) kv: BTreeMap<String, Value>,
}

/// What must come of a case; what is not named may be anything.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// Part of the answer.
    pub answer: Option<Value>,
    /// Entries of the key-value table after the call; `null` is absent.
    pub kv: BTreeMap<String, Value>,
    /// Texts, each of which some log line contains.
    pub log: Vec<String>,
    /// Part of what is said when the plugin is refused with the case's settings and grants.
    pub refused: Option<String>,
    /// Longest time in milliseconds.
    pub max_ms: Option<u64>,
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What the hub would act on.
    pub answer: Value,
    /// The key-value table after the call: every key that was named and is there.
    pub kv_after: BTreeMap<String, Value>,
    /// What the host measured and heard.
    pub recorded: Recorded,
}

impl Ran {
    /// What is not as the case expects, one line each.
    pub fn problems(&self, expect: &Expect) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(text) = &expect.refused {
            found.push(format!("it was loaded, expected a refusal with `{text}`"));
        }
        match &expect.answer {
            Some(expected) => compare("answer", expected, &self.answer, &mut found),
            // A case without an expectation still expects the plugin to work.
            None if self.answer["verdict"] == "failed" => {
                found.push(format!("it failed: {}", self.answer));
            }
            None => {}
        }
        for (key, expected) in &expect.kv {
            let actual = self.kv_after.get(key).unwrap_or(&Value::Null);
            compare(&format!("kv.{key}"), expected, actual, &mut found);
        }
        for text in &expect.log {
            if !self.recorded.log.iter().any(|line| line.contains(text)) {
                found.push(format!(
                    "no log line has `{text}`; it wrote {:?}",
                    self.recorded.log
                ));
            }
        }
        if let Some(max_ms) = expect.max_ms
            && self.recorded.took.as_micros() > u128::from(max_ms) * 1000
        {
            found.push(format!(
                "it took {:?}, expected at most {max_ms} ms",
                self.recorded.took
            ));
        }
        found
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CallInput {
    pub(super) request_id: String,
    pub(super) trace_parent: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) flow_id: Option<String>,
    pub(super) generation: u64,
}

impl Default for CallInput {
    fn default() -> Self {
        Self {
            request_id: "case".to_owned(),
            trace_parent: None,
            tenant: None,
            session_id: Some("session-1".to_owned()),
            flow_id: None,
            generation: 1,
        }
    }
}

/// A case as it stands in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseInput {
    #[serde(default)]
    name: String,
    hook: Option<String>,
    #[serde(default)]
    config: Option<Value>,
    #[serde(default)]
    grants: Option<Vec<String>>,
    #[serde(default)]
    call: CallInput,
    #[serde(default)]
    input: Option<Value>,
    #[serde(default, deserialize_with = "inputs::attributes")]
    carry: Vec<Attribute>,
    #[serde(default)]
    kv: BTreeMap<String, Value>,
    #[serde(default)]
    expect: Expect,
}

/// Cases that cannot be read.
#[derive(Debug, Error)]
pub enum CaseError {
    /// The file or folder.
    #[error("cannot read `{path}`: {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Not a case.
    #[error("`{path}`: case `{case}`: {problem}")]
    Bad {
        /// Where.
        path: PathBuf,
        /// Its name or position.
        case: String,
        /// What is wrong.
        problem: String,
    },
    /// No cases at all, which is a mistake of whoever names the folder.
    #[error("`{0}` has no case: it needs `*.json`, each one case or a list of cases")]
    None(PathBuf),
}

impl Case {
    /// The ordinary question of a hook, with nothing expected.
    pub fn ordinary(hook: Hook) -> Self {
        Self::of(Question::ordinary(hook))
    }

    /// What is not as expected where the plugin was refused, one line each.
    pub fn refused(&self, text: &str) -> Vec<String> {
        match &self.expect.refused {
            Some(expected) if text.contains(expected) => Vec::new(),
            Some(expected) => vec![format!("it was refused without `{expected}`: {text}")],
            None => vec![text.to_owned()],
        }
    }

    pub(super) fn of(question: Question) -> Self {
        Self {
            name: question.hook().to_string(),
            config: None,
            grants: None,
            question,
            expect: Expect::default(),
            call: CallInput::default(),
            carry: Vec::new(),
            kv: BTreeMap::new(),
        }
    }

    fn parse(value: Value, hook: Option<Hook>) -> Result<Self, String> {
        let input: CaseInput = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let hook = match (&input.hook, hook) {
            (Some(name), _) => Hook::parse(name).ok_or_else(|| {
                let known: Vec<&str> = Hook::ALL.iter().map(|hook| hook.as_str()).collect();
                format!("`hook` is `{name}`; known are {}", known.join(", "))
            })?,
            (None, Some(hook)) => hook,
            (None, None) => return Err("it names no `hook`".to_owned()),
        };
        let question = match input.input {
            Some(input) => {
                Question::parse(hook, input).map_err(|error| format!("`input`: {error}"))?
            }
            None => Question::ordinary(hook),
        };
        Ok(Self {
            name: input.name,
            config: input.config,
            grants: input.grants,
            question,
            expect: input.expect,
            call: input.call,
            carry: input.carry,
            kv: input.kv,
        })
    }
}

/// Reads the cases of one file, or of every `*.json` in a folder in the order of their names. A
/// file has one case or a list of them; `hook` is for cases that name none.
///
/// # Errors
/// The first file or case that cannot be read, or that there is none.
pub fn read_cases(path: &Path, hook: Option<Hook>) -> Result<Vec<(PathBuf, Case)>, CaseError> {
    let unreadable = |path: &Path, reason: String| CaseError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let mut files = Vec::new();
    if path.is_dir() {
        let listing = fs::read_dir(path).map_err(|error| unreadable(path, error.to_string()))?;
        for entry in listing {
            let file = entry
                .map_err(|error| unreadable(path, error.to_string()))?
                .path();
            if file
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                files.push(file);
            }
        }
        files.sort_unstable();
    } else {
        files.push(path.to_owned());
    }
    if files.len() > CASE_FILES_MAX {
        let reason = format!(
            "it has {} case files, at most {CASE_FILES_MAX} are read",
            files.len()
        );
        return Err(unreadable(path, reason));
    }
    let mut cases = Vec::new();
    for file in files {
        let text = read_text(&file).map_err(|reason| unreadable(&file, reason))?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| unreadable(&file, error.to_string()))?;
        let list = if value.is_array() {
            serde_json::from_value(value).map_err(|error| unreadable(&file, error.to_string()))?
        } else {
            vec![value]
        };
        for (index, value) in list.into_iter().enumerate() {
            let name = value["name"]
                .as_str()
                .map_or_else(|| index.to_string(), str::to_owned);
            let mut case = Case::parse(value, hook).map_err(|problem| CaseError::Bad {
                path: file.clone(),
                case: name.clone(),
                problem,
            })?;
            case.name = name;
            cases.push((file.clone(), case));
        }
    }
    if cases.is_empty() {
        return Err(CaseError::None(path.to_owned()));
    }
    Ok(cases)
}

fn read_text(file: &Path) -> Result<String, String> {
    let bytes = fs::metadata(file).map_err(|error| error.to_string())?.len();
    if bytes > CASE_FILE_BYTES_MAX {
        return Err(format!(
            "it has {bytes} bytes, at most {CASE_FILE_BYTES_MAX} are read"
        ));
    }
    fs::read_to_string(file).map_err(|error| error.to_string())
}
