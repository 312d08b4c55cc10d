//! Texts become checked policies, or a list of everything that is wrong with them.
//!
//! A text that does not parse hides what is in it, so its policies are missing from the later
//! checks; all other problems of all files come in one go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, ValidationMode, Validator};
use miette::Diagnostic as _;

use crate::PolicyRef;
use crate::diagnostic::{Diagnostic, Severity};
use crate::source::{SourceFile, Sources, guards};
use crate::tenants;
use crate::trust;
use crate::vocabulary::Vocabulary;

/// Policies of one bundle. Ten times of what was measured; compiling them takes about a second.
pub(crate) const POLICIES: usize = 10_000;

/// Brackets within brackets. The engine's parser takes minutes for a hundred thousand of them.
pub(crate) const NESTING: usize = 200;

/// Bytes of an `@id`, and of an `@error`, which goes over the wire.
const ID_BYTES: usize = 128;
const CODE_BYTES: usize = 64;

/// How many references a condition may follow from a variable. The hub hands the engine the
/// entities that a request names, and none behind them.
const LEVEL: u32 = 1;

const ANNOTATIONS: [&str; 4] = ["id", "error", "advice", "trusts"];

/// What compiling goes on with.
#[derive(Debug)]
pub(crate) struct Checked {
    /// In the order of files and then of text, each named by its `@id`.
    pub(crate) policies: Vec<Policy>,
    pub(crate) places: HashMap<PolicyId, Arc<PolicyRef>>,
    pub(crate) warnings: Vec<Diagnostic>,
}

#[derive(Debug)]
struct Check<'a> {
    vocabulary: &'a Vocabulary,
    policies: Vec<Policy>,
    /// Place and line by id.
    found: BTreeMap<String, (Found<'a>, usize)>,
    diagnostics: Vec<Diagnostic>,
}

/// A place in a text.
#[derive(Clone, Copy, Debug)]
struct Found<'a> {
    file: &'a SourceFile,
    offset: usize,
}

/// A policy as it stands in its text.
#[derive(Debug)]
struct Piece {
    policy: Policy,
    offset: usize,
    /// Counted along the way: to count anew for each policy takes seconds for ten thousand.
    line: usize,
}

/// Checks all policies of the sources, with the guards that they do not bring themselves.
pub(crate) fn check(
    sources: &Sources,
    vocabulary: &Vocabulary,
) -> Result<Checked, Vec<Diagnostic>> {
    let guards = guards();
    let mut check = Check {
        vocabulary,
        policies: Vec::new(),
        found: BTreeMap::new(),
        diagnostics: Vec::new(),
    };
    for file in &sources.policies {
        check.file(file);
    }
    let brought = check.policies.len();
    for file in &guards {
        check.guard(file, brought);
    }
    if check.policies.len() > POLICIES {
        let count = check.policies.len();
        let file = sources.policies.first().unwrap_or(&guards[0]);
        check.say(
            Severity::Error,
            Found { file, offset: 0 },
            format!("there are {count} policies; a bundle may have {POLICIES}"),
            None,
        );
    }
    check.validate();
    if check
        .diagnostics
        .iter()
        .all(|found| found.severity == Severity::Warning)
    {
        check.look_for_permits(sources);
    }
    check.finish()
}

impl<'a> Check<'a> {
    fn file(&mut self, file: &'a SourceFile) {
        for piece in self.parse(file) {
            self.policy(piece, file);
        }
    }

    /// Adds the guards of a shipped file, except those whose id the set has taken.
    fn guard(&mut self, file: &'a SourceFile, brought: usize) {
        for piece in self.parse(file) {
            let id = piece.policy.annotation("id").unwrap_or_default().to_owned();
            let Some((found, _)) = self.found.get(&id).copied() else {
                self.policy(piece, file);
                continue;
            };
            let policy = &piece.policy;
            let same = self
                .policies
                .iter()
                .take(brought)
                .any(|own| own.id().as_ref() as &str == id && text_of(own) == text_of(policy));
            if !same {
                let message = format!("takes the place of the shipped guard `{id}`");
                let help = "give it another `@id` to have both; a forbid beside it is enough \
                            where the guard is too weak";
                self.say(Severity::Warning, found, message, Some(help));
            }
        }
    }

    /// The policies of a text with the offsets they start at.
    fn parse(&mut self, file: &'a SourceFile) -> Vec<Piece> {
        if let Some(offset) = nested_too_deep(&file.text) {
            let message = format!("more than {NESTING} brackets within each other");
            self.say(Severity::Error, Found { file, offset }, message, None);
            return Vec::new();
        }
        let set: PolicySet = match file.text.parse() {
            Ok(set) => set,
            Err(errors) => {
                let errors: &cedar_policy::ParseErrors = &errors;
                for error in errors.iter() {
                    let offset = offset_of(error);
                    let help = error.help().map(|help| help.to_string());
                    self.say(
                        Severity::Error,
                        Found { file, offset },
                        error.to_string(),
                        help.as_deref(),
                    );
                }
                return Vec::new();
            }
        };
        for template in set.templates() {
            let text = template.to_cedar();
            let offset = file.text.find(&text).unwrap_or(0);
            self.say(
                Severity::Error,
                Found { file, offset },
                "this is a template that nothing links".to_owned(),
                Some("a folder's `links.json` gives entities for `?principal` and `?resource`"),
            );
        }
        in_order_of_text(&set, &file.text)
    }

    fn policy(&mut self, piece: Piece, file: &'a SourceFile) {
        let Piece {
            policy,
            offset,
            line,
        } = piece;
        let found = Found { file, offset };
        let tenant = tenants::tenant_of(file);
        let Some(id) = self.id(&policy, tenant, found) else {
            return;
        };
        let policy = match tenant.map(|tenant| tenants::confine(&policy, tenant)) {
            None => policy,
            Some(Ok(confined)) => confined,
            Some(Err((problem, help))) => {
                self.say(Severity::Error, found, problem, Some(help));
                return;
            }
        };
        self.annotations(&policy, found);
        for problem in trust::problems(&policy) {
            let help = "a signal is a plugin's word; a permit that goes by it says so with \
                        `@trusts(\"plugin\")` (several: `@trusts(\"geo, risk\")`)";
            self.say(Severity::Error, found, problem, Some(help));
        }
        self.policies.push(policy.new_id(PolicyId::new(&id)));
        self.found.insert(id, (found, line));
    }

    fn id(&mut self, policy: &Policy, tenant: Option<&str>, found: Found<'a>) -> Option<String> {
        let id = policy.annotation("id").unwrap_or_default();
        let whole = tenant.map_or_else(|| id.to_owned(), |tenant| tenants::id_of(tenant, id));
        let problem = if id.is_empty() {
            "this policy has no `@id`".to_owned()
        } else if id.len() > ID_BYTES || id.chars().any(char::is_control) {
            format!("`@id` must be at most {ID_BYTES} bytes without control characters")
        } else if let Some((first, _)) = self.found.get(&whole) {
            let (line, column) = line_and_column(&first.file.text, first.offset);
            format!(
                "`@id(\"{id}\")` is taken by {}:{line}:{column}",
                first.file.name
            )
        } else {
            return Some(whole);
        };
        let help = "decisions, logs and test cases name a policy by its id: put \
                    `@id(\"a-name-of-its-own\")` in front of it";
        self.say(Severity::Error, found, problem, Some(help));
        None
    }

    fn annotations(&mut self, policy: &Policy, found: Found<'a>) {
        for (name, value) in policy.annotations() {
            if !ANNOTATIONS.contains(&name) && !self.vocabulary.annotations.contains(name) {
                let message = format!("annotation `@{name}` means nothing to the hub");
                let help = "known are `@id`, `@error`, `@advice` and `@trusts`; an extension of \
                            the schema can name more";
                self.say(Severity::Warning, found, message, Some(help));
            }
            if name == "error" && !is_code(value) {
                let message = format!("`@error(\"{value}\")` is not a code");
                let help = "a code is in snake_case, at most 64 letters, such as `path_forbidden`";
                self.say(Severity::Error, found, message, Some(help));
            }
            if name == "error" && policy.effect() == Effect::Permit {
                let message = "`@error` on a permit has no effect".to_owned();
                let help = "a denial takes the code of the forbid that caused it";
                self.say(Severity::Warning, found, message, Some(help));
            }
        }
    }

    fn validate(&mut self) {
        let set = PolicySet::from_policies(self.policies.iter().cloned())
            .expect("ids were checked to differ, and none is linked");
        let validator = Validator::new(self.vocabulary.schema.clone());
        let result = validator.validate_with_level(&set, ValidationMode::Strict, LEVEL);
        for error in result.validation_errors() {
            let help = error.help().map(|help| help.to_string());
            let message = message_of(&error.to_string(), error.policy_id());
            self.at(error.policy_id(), error, Severity::Error, message, help);
        }
        for warning in result.validation_warnings() {
            let help = warning.help().map(|help| help.to_string());
            let message = message_of(&warning.to_string(), warning.policy_id());
            self.at(
                warning.policy_id(),
                warning,
                Severity::Warning,
                message,
                help,
            );
        }
    }

    /// Says what the validator found, at the part of the policy that it points to.
    fn at(
        &mut self,
        id: &PolicyId,
        about: &dyn miette::Diagnostic,
        severity: Severity,
        message: String,
        help: Option<String>,
    ) {
        let id: &str = id.as_ref();
        let Some((found, _)) = self.found.get(id).copied() else {
            return;
        };
        let offset = match offset_of(about) {
            0 => found.offset,
            offset => offset,
        };
        let place = Found { offset, ..found };
        self.say(severity, place, message, help.as_deref());
    }

    /// Without a permit everything of its kind is denied; seldom meant, so it is said.
    fn look_for_permits(&mut self, sources: &'a Sources) {
        let Some(file) = sources.policies.first() else {
            return;
        };
        for action in ["hello", "announce", "open"] {
            let permitted = self.policies.iter().any(|policy| {
                policy.effect() == Effect::Permit
                    && policy
                        .get_valid_request_envs(&self.vocabulary.schema)
                        .any(|env| env.action().id().unescaped() == action)
            });
            if !permitted {
                self.say(
                    Severity::Warning,
                    Found { file, offset: 0 },
                    format!("no policy permits `{action}`, so it is always denied"),
                    Some("`nowconnect policy init DIR` writes the shipped policies to start from"),
                );
            }
        }
    }

    fn say(&mut self, severity: Severity, found: Found<'_>, message: String, help: Option<&str>) {
        let (line, column) = line_and_column(&found.file.text, found.offset);
        self.diagnostics.push(Diagnostic {
            severity,
            file: found.file.name.clone(),
            line,
            column,
            message,
            help: help.map(ToOwned::to_owned),
        });
    }

    fn finish(mut self) -> Result<Checked, Vec<Diagnostic>> {
        self.diagnostics
            .sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        self.diagnostics.dedup();
        let refused = self
            .diagnostics
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error);
        if refused {
            return Err(self.diagnostics);
        }
        let places = self
            .policies
            .iter()
            .map(|policy| (policy.id().clone(), Arc::new(self.place(policy))))
            .collect();
        Ok(Checked {
            policies: self.policies,
            places,
            warnings: self.diagnostics,
        })
    }

    fn place(&self, policy: &Policy) -> PolicyRef {
        let id: &str = policy.id().as_ref();
        let (found, line) = self
            .found
            .get(id)
            .expect("each policy was put in with its place");
        PolicyRef {
            id: id.to_owned(),
            file: found.file.name.clone(),
            line: *line,
            error: policy.annotation("error").map(ToOwned::to_owned),
            advice: policy.annotation("advice").map(ToOwned::to_owned),
        }
    }
}

/// The engine numbers policies as `policy0`, `policy1`, … in the order of the text, and gives
/// each its own piece of text back.
fn in_order_of_text(set: &PolicySet, text: &str) -> Vec<Piece> {
    let mut policies: Vec<(usize, Policy)> = set
        .policies()
        .map(|policy| (number_of(policy), policy.clone()))
        .collect();
    policies.sort_by_key(|(number, _)| *number);
    let (mut from, mut line) = (0, 1);
    policies
        .into_iter()
        .map(|(_, policy)| {
            let piece = text_of(&policy);
            let rest = text.get(from..).unwrap_or_default();
            let skipped = rest.find(&piece).unwrap_or(0);
            line += lines_in(rest.get(..skipped).unwrap_or_default());
            let found = Piece {
                policy,
                offset: from + skipped,
                line,
            };
            line += lines_in(&piece);
            from = (from + skipped + piece.len()).min(text.len());
            found
        })
        .collect()
}

fn lines_in(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

fn number_of(policy: &Policy) -> usize {
    let id: &str = policy.id().as_ref();
    id.trim_start_matches("policy")
        .parse()
        .unwrap_or(usize::MAX)
}

fn text_of(policy: &Policy) -> String {
    policy.to_cedar().unwrap_or_default()
}

fn offset_of(diagnostic: &dyn miette::Diagnostic) -> usize {
    diagnostic
        .labels()
        .and_then(|mut labels| labels.next())
        .map_or(0, |label| label.offset())
}

/// The engine's sentences start with the policy, which stands in front of ours as a place.
fn message_of(sentence: &str, id: &PolicyId) -> String {
    let prefix = format!("for policy `{id}`, ");
    sentence
        .strip_prefix(&prefix)
        .unwrap_or(sentence)
        .to_owned()
}

/// Where brackets are nested deeper than [`NESTING`], strings and comments apart.
pub(crate) fn nested_too_deep(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((offset, byte)) = bytes.next() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some((_, byte)) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            b'/' if bytes.next_if(|(_, byte)| *byte == b'/').is_some() => {
                while bytes.next_if(|(_, byte)| *byte != b'\n').is_some() {}
            }
            _ => {}
        }
        if depth > NESTING {
            return Some(offset);
        }
    }
    None
}

fn is_code(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= CODE_BYTES
        && text.starts_with(|letter: char| letter.is_ascii_lowercase())
        && text
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
}

/// Line and column of a byte, both from 1; the column counts characters.
pub(crate) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before
        .chars()
        .rev()
        .take_while(|letter| *letter != '\n')
        .count()
        + 1;
    (line, column)
}
