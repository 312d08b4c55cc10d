//! Texts become an immutable set of policies, whole or not at all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use cedar_policy::{Authorizer, PolicyId, Response};
use sha2::{Digest as _, Sha256};

use crate::check::{Checked, check};
use crate::context::ContextReaders;
use crate::core_schema::CoreVersion;
use crate::decision::{Decision, PolicyRef, ReasonKind};
use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::facts::Facts;
use crate::groups::Groups;
use crate::index::Index;
use crate::question::Question;
use crate::request::{Asked, Kit, Shared};
use crate::scene::Scene;
use crate::slices::Slices;
use crate::source::Sources;
use crate::vocabulary::Vocabulary;

/// A checked, indexed, immutable set of policies. Share it in an `Arc`.
#[derive(Debug)]
pub struct PolicyBundle {
    pub(crate) index: Index,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) groups: Groups,
    slices: Slices,
    readers: ContextReaders,
    pub(crate) authorizer: Authorizer,
    places: HashMap<PolicyId, Arc<PolicyRef>>,
    warnings: Vec<Diagnostic>,
    generation: u64,
    digest: String,
    schema_digest: String,
}

impl PolicyBundle {
    /// Compiles the texts, with the shipped guards that they do not bring themselves. Takes
    /// tens of milliseconds for a thousand policies: call it off the runtime threads.
    ///
    /// # Errors
    /// Every problem found, each with its place; nothing of the texts is in force then.
    pub fn compile(sources: &Sources, generation: u64) -> Result<Self, Diagnostics> {
        let Some(core) = sources.core else {
            return Self::newest(sources, generation);
        };
        let vocabulary =
            Vocabulary::extended(core, sources.extension.as_ref()).map_err(Diagnostics)?;
        let groups = read_groups(sources, &vocabulary);
        let (groups, checked) = match (groups, check(sources, &vocabulary)) {
            (Ok(groups), Ok(checked)) => (groups, checked),
            (Err(problems), Ok(_)) | (Ok(_), Err(problems)) => return Err(Diagnostics(problems)),
            (Err(mut problems), Err(more)) => {
                problems.extend(more);
                return Err(Diagnostics(problems));
            }
        };
        let Checked {
            policies,
            places,
            warnings,
        } = checked;
        let schema_digest = crate::archive::sha256(vocabulary.json.to_string().as_bytes());
        Ok(Self {
            readers: ContextReaders::of(&policies, &vocabulary),
            index: Index::new(policies, &vocabulary),
            vocabulary,
            groups,
            slices: Slices::new(),
            authorizer: Authorizer::new(),
            places,
            warnings,
            generation,
            digest: digest_of(sources),
            schema_digest,
        })
    }

    /// A set that does not say what it was written for: the newest core first, so that it gains
    /// what is new, and the one before where an upgrade would break it.
    fn newest(sources: &Sources, generation: u64) -> Result<Self, Diagnostics> {
        let under = |core| {
            let mut stated = sources.clone();
            stated.core = Some(core);
            Self::compile(&stated, generation)
        };
        let refused = match under(CoreVersion::CURRENT) {
            Ok(bundle) => return Ok(bundle),
            Err(refused) => refused,
        };
        let older = CoreVersion::SERVED
            .into_iter()
            .rev()
            .filter(|core| *core != CoreVersion::CURRENT)
            .find_map(|core| under(core).ok());
        let Some(mut bundle) = older else {
            return Err(refused);
        };
        let number = bundle.core().number();
        bundle
            .warnings
            .extend(refused.0.into_iter().map(|problem| Diagnostic {
            severity: Severity::Warning,
            message: format!(
                "{}; taken as written for core schema {number}, which a later hub will not serve",
                problem.message
            ),
            ..problem
        }));
        Ok(bundle)
    }

    /// The version of the core schema that it is asked in.
    #[must_use]
    pub fn core(&self) -> CoreVersion {
        self.vocabulary.core.version
    }

    pub(crate) fn schema_json(&self) -> &serde_json::Value {
        &self.vocabulary.json
    }

    pub(crate) fn schema(&self) -> &cedar_policy::Schema {
        &self.vocabulary.schema
    }

    /// Answers a question. Denies where anything goes wrong. Does not wait and does no IO;
    /// takes microseconds, whatever the number of policies.
    #[must_use]
    pub fn decide(&self, facts: &Facts, question: &Question) -> Decision {
        self.decide_one(facts, question, &mut Shared::default())
    }

    /// Answers the questions of one HELLO (the hello itself, then one announce for each
    /// connector) in order. Where they hold the same `Arc` of the agent's facts, these are
    /// made ready once.
    #[must_use]
    pub fn decide_all(&self, facts: &Facts, questions: &[Question]) -> Vec<Decision> {
        let mut shared = Shared::default();
        questions
            .iter()
            .map(|question| self.decide_one(facts, question, &mut shared))
            .collect()
    }

    /// What is worth a look although the bundle works.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// The number given at [`compile`](Self::compile).
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// SHA-256 in hex over the schema that the set was compiled with, extension included: equal
    /// wherever requests have the same shape.
    #[must_use]
    pub fn schema_digest(&self) -> &str {
        &self.schema_digest
    }

    /// SHA-256 over all texts and the names of their files in hex: equal for equal sources,
    /// whatever folder they lie in.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Policies in the set, guards included.
    #[must_use]
    pub fn policy_count(&self) -> usize {
        self.index.policies().len()
    }

    /// Every policy of the set, in the order of files and then of text.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyRef> {
        self.index
            .policies()
            .iter()
            .filter_map(|policy| self.places.get(policy.id()))
            .map(|place| &**place)
    }

    fn decide_one(&self, facts: &Facts, question: &Question, shared: &mut Shared) -> Decision {
        let started = Instant::now();
        let mut decision = match Asked::new(question, facts, self.kit(false), shared) {
            Ok(asked) => self.answer(&Scene::from(&asked)),
            Err(problem) => self.unanswerable(problem),
        };
        decision.took = started.elapsed();
        decision
    }

    /// What a question is made ready with. To be decided it needs only what some policy
    /// reads; to be explained, all.
    pub(crate) fn kit(&self, explain: bool) -> Kit<'_> {
        Kit {
            vocabulary: &self.vocabulary,
            generation: self.generation,
            groups: &self.groups,
            slices: &self.slices,
            readers: (!explain).then_some(&self.readers),
        }
    }

    pub(crate) fn answer(&self, scene: &Scene<'_>) -> Decision {
        match self
            .index
            .select(scene.action, scene.principal, scene.resource)
        {
            Some(set) => {
                let response = self
                    .authorizer
                    .is_authorized(scene.request, &set, scene.entities);
                self.decision(&response)
            }
            None => self.unanswerable("the schema knows no such request".to_owned()),
        }
    }

    pub(crate) fn decision(&self, response: &Response) -> Decision {
        let diagnostics = response.diagnostics();
        let mut policies: Vec<Arc<PolicyRef>> = diagnostics
            .reason()
            .filter_map(|id| self.places.get(id).cloned())
            .collect();
        policies.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let mut errors: Vec<String> = diagnostics.errors().map(ToString::to_string).collect();
        errors.sort_unstable();
        let kind = match response.decision() {
            // The engine skips what it cannot evaluate, so a forbid may be missing here.
            cedar_policy::Decision::Allow if !errors.is_empty() => ReasonKind::Error,
            cedar_policy::Decision::Allow => ReasonKind::Permitted,
            cedar_policy::Decision::Deny if !policies.is_empty() => ReasonKind::Forbidden,
            cedar_policy::Decision::Deny if !errors.is_empty() => ReasonKind::Error,
            cedar_policy::Decision::Deny => ReasonKind::NotPermitted,
        };
        Decision {
            allow: kind == ReasonKind::Permitted,
            kind,
            policies,
            errors,
            generation: self.generation,
            took: std::time::Duration::ZERO,
        }
    }

    pub(crate) fn unanswerable(&self, problem: String) -> Decision {
        Decision {
            allow: false,
            kind: ReasonKind::Error,
            policies: Vec::new(),
            errors: vec![problem],
            generation: self.generation,
            took: std::time::Duration::ZERO,
        }
    }

    pub(crate) fn place_of(&self, id: &PolicyId) -> Option<&Arc<PolicyRef>> {
        self.places.get(id)
    }
}

fn read_groups(sources: &Sources, vocabulary: &Vocabulary) -> Result<Groups, Vec<Diagnostic>> {
    let files = sources.entities.iter().chain(&sources.tenant_entities);
    Groups::read(files, vocabulary).map_err(|problems| {
        problems
            .into_iter()
            .map(|(file, message)| {
                let (line, column) = place_in_message(&message).unwrap_or((1, 1));
                Diagnostic {
                    severity: Severity::Error,
                    file,
                    line,
                    column,
                    message,
                    help: Some(
                        "an entry is `{\"uid\": {\"type\": \"NowConnect::Connector\", \"id\": \
                         \"ldap\"}, \"parents\": [{\"type\": \"NowConnect::Group\", \"id\": \
                         \"directory\"}]}`"
                            .to_owned(),
                    ),
                }
            })
            .collect()
    })
}

/// The place that a JSON parser's message ends with: `… at line 3 column 7`.
fn place_in_message(message: &str) -> Option<(usize, usize)> {
    let (_, place) = message.rsplit_once(" at line ")?;
    let (line, column) = place.split_once(" column ")?;
    Some((line.parse().ok()?, column.parse().ok()?))
}

fn digest_of(sources: &Sources) -> String {
    let mut hash = Sha256::new();
    hash.update(sources.core.map_or(0, CoreVersion::number).to_le_bytes());
    let files = sources.policies.iter();
    let files = files.chain(&sources.entities).chain(&sources.extension);
    for file in files.chain(&sources.tenant_entities) {
        let name = file.name.rsplit(['/', '\\']).next().unwrap_or_default();
        for part in [name, &file.text] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
