//! Which claims there are to prove.

use std::collections::BTreeSet;
use std::str::FromStr as _;

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, RequestEnv, ValidationMode, Validator};

use super::{Claim, Environment, Open, Proof, Query, State, Verdict};
use crate::bundle::PolicyBundle;
use crate::check::{line_and_column, nested_too_deep};
use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::source::SourceFile;

/// What its author says of every request that it describes: an assertion is written like a
/// policy, and its scope and conditions pick the requests.
///
/// ```text
/// @id("ldap-only-from-inside")
/// @assert("never_allows")
/// forbid (principal, action == NowConnect::Action::"open", resource)
/// when { resource.hasTag("kind") && resource.getTag("kind") == "ldap" }
/// unless { context.net.srcIp.isInRange(ip("10.0.0.0/8")) };
/// ```
#[derive(Clone, Debug)]
pub struct Assertion {
    id: String,
    policy: Policy,
    /// Permits exactly the requests that it describes.
    described: Policy,
}

/// Reads assertions, strictly like policies.
///
/// # Errors
/// Every problem found, with its place.
pub fn read_assertions(
    files: &[SourceFile],
    bundle: &PolicyBundle,
) -> Result<Vec<Assertion>, Diagnostics> {
    let mut reading = Reading::default();
    for file in files {
        reading.file(file, bundle);
    }
    if reading.problems.is_empty() {
        Ok(reading.assertions)
    } else {
        Err(Diagnostics(reading.problems))
    }
}

#[derive(Default)]
struct Reading {
    assertions: Vec<Assertion>,
    ids: BTreeSet<String>,
    problems: Vec<Diagnostic>,
}

impl Reading {
    fn file(&mut self, file: &SourceFile, bundle: &PolicyBundle) {
        if let Some(offset) = nested_too_deep(&file.text) {
            self.problem(
                file,
                offset,
                "too many brackets within each other".to_owned(),
            );
            return;
        }
        let set = match PolicySet::from_str(&file.text) {
            Ok(set) => set,
            Err(error) => {
                self.problem(file, 0, error.to_string());
                return;
            }
        };
        if set.templates().next().is_some() {
            self.problem(file, 0, "an assertion cannot be a template".to_owned());
        }
        for policy in set.policies() {
            let text = policy.to_cedar().unwrap_or_default();
            let offset = file.text.find(&text).unwrap_or(0);
            match self.assertion(policy, bundle) {
                Ok(assertion) => self.assertions.push(assertion),
                Err(problem) => self.problem(file, offset, problem),
            }
        }
    }

    fn assertion(&mut self, policy: &Policy, bundle: &PolicyBundle) -> Result<Assertion, String> {
        let id = policy.annotation("id").unwrap_or_default().to_owned();
        if id.is_empty() || !self.ids.insert(id.clone()) {
            return Err("an assertion has an `@id` of its own".to_owned());
        }
        match (policy.annotation("assert"), policy.effect()) {
            (Some("never_allows"), Effect::Forbid) | (Some("always_allows"), Effect::Permit) => {}
            (Some("never_allows"), Effect::Permit) => {
                return Err("`@assert(\"never_allows\")` is written as a forbid".to_owned());
            }
            (Some("always_allows"), Effect::Forbid) => {
                return Err("`@assert(\"always_allows\")` is written as a permit".to_owned());
            }
            (Some(_) | None, _) => {
                return Err(
                    "an assertion says `@assert(\"never_allows\")` or `@assert(\"always_allows\")`"
                        .to_owned(),
                );
            }
        }
        let policy = policy.new_id(PolicyId::new(&id));
        let set = PolicySet::from_policies([policy.clone()]).map_err(|error| error.to_string())?;
        let result = Validator::new(bundle.schema().clone()).validate(&set, ValidationMode::Strict);
        if let Some(error) = result.validation_errors().next() {
            return Err(error.to_string());
        }
        let schema = bundle.schema();
        if policy.get_valid_request_envs(schema).next().is_none() {
            return Err(
                "it describes no request: its scope and conditions leave out every kind of \
                 request, so it would hold whatever the policies say"
                    .to_owned(),
            );
        }
        let described = as_permit(&policy)?;
        Ok(Assertion {
            id,
            policy,
            described,
        })
    }

    fn problem(&mut self, file: &SourceFile, offset: usize, message: String) {
        let (line, column) = line_and_column(&file.text, offset);
        self.problems.push(Diagnostic {
            severity: Severity::Error,
            file: file.name.clone(),
            line,
            column,
            message,
            help: None,
        });
    }
}

impl Proof {
    /// Claims about a change.
    pub(super) fn compare(&mut self) {
        let Some(after) = self.after.take() else {
            return;
        };
        let old = self.before.core().number();
        for env in environments(&after) {
            let left = self.table.add_all(of(&self.before, &env));
            let right = self.table.add_all(of(&after, &env));
            // A kind of request that only one core knows cannot be compared.
            let known = self
                .before
                .schema()
                .request_envs()
                .any(|known| known == env);
            let state = |left: &[usize], right: &[usize]| {
                if !known {
                    State::Settled(Verdict::NotProved {
                        why: format!("core schema {old} has no such request"),
                    })
                } else if left == right {
                    State::Settled(Verdict::Unchanged)
                } else {
                    State::Asked(Query::Implies {
                        left: left.to_vec(),
                        right: right.to_vec(),
                    })
                }
            };
            let allow = state(&right, &left);
            let deny = state(&left, &right);
            self.claim(Claim::LetsNothingNewIn, &env, allow);
            self.claim(Claim::DeniesNothingNew, &env, deny);
        }
        self.after = Some(after);
    }

    /// Claims about one set.
    pub(super) fn check(&mut self, assertions: &[Assertion]) {
        for env in environments(&self.before) {
            let policies: Vec<Policy> = of(&self.before, &env).into_iter().cloned().collect();
            let set = self.table.add_all(&policies);
            for policy in &policies {
                let number = self.table.add(policy);
                let id: &str = policy.id().as_ref();
                let claim = Claim::NeverErrors {
                    policy: id.to_owned(),
                };
                self.claim(
                    claim,
                    &env,
                    State::Asked(Query::NeverErrors { policy: number }),
                );
            }
            let denies = Query::AlwaysDenies { set: set.clone() };
            self.claim(Claim::SometimesAllows, &env, State::Asked(denies));
            for assertion in assertions {
                self.assertion(assertion, &env, &set);
            }
        }
    }

    fn assertion(&mut self, assertion: &Assertion, env: &RequestEnv, set: &[usize]) {
        let schema = self.before.schema();
        let meant = assertion
            .policy
            .get_valid_request_envs(schema)
            .any(|valid| valid == *env);
        if !meant {
            return;
        }
        let described = Query::AlwaysDenies {
            set: vec![self.table.add(&assertion.described)],
        };
        let claim = Claim::Describes {
            id: assertion.id.clone(),
        };
        self.claim(claim, env, State::Asked(described));
        let number = self.table.add(&assertion.policy);
        let query = match assertion.policy.effect() {
            // With it as one more forbid, nothing that was allowed is lost.
            Effect::Forbid => {
                let mut with = set.to_vec();
                with.push(number);
                with.sort_unstable();
                with.dedup();
                Query::Implies {
                    left: set.to_vec(),
                    right: with,
                }
            }
            Effect::Permit => Query::Implies {
                left: vec![number],
                right: set.to_vec(),
            },
        };
        let claim = Claim::Assertion {
            id: assertion.id.clone(),
        };
        self.claim(claim, env, State::Asked(query));
    }

    fn claim(&mut self, claim: Claim, env: &RequestEnv, state: State) {
        self.claims.push(Open {
            claim,
            environment: Environment::of(env),
            state,
        });
    }
}

/// The same requests, permitted.
fn as_permit(policy: &Policy) -> Result<Policy, String> {
    let mut json = policy.to_json().map_err(|error| error.to_string())?;
    json["effect"] = "permit".into();
    Policy::from_json(Some(policy.id().clone()), json).map_err(|error| error.to_string())
}

/// In the order of their names.
fn environments(bundle: &PolicyBundle) -> Vec<RequestEnv> {
    let mut environments: Vec<RequestEnv> = bundle.schema().request_envs().collect();
    environments.sort_by_key(Environment::of);
    environments
}

/// The policies whose scope can match a request of the environment.
fn of<'a>(bundle: &'a PolicyBundle, env: &RequestEnv) -> Vec<&'a Policy> {
    bundle
        .index
        .environment(env.action(), env.principal(), env.resource())
}
