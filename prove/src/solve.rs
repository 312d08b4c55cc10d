//! From queries to formulas and back.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use cedar_policy::{EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, RequestEnv, Schema};
use cedar_policy_symcc::err::Error;
use cedar_policy_symcc::solver::LocalSolver;
use cedar_policy_symcc::{CedarSymCompiler, CompiledPolicy, CompiledPolicySet, Env};

use crate::answer::{Answer, Line, counterexample};
use crate::task::{Environment, Kind, Task};

/// Why the whole task ends.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The solver cannot be started.
    NoSolver(String),
    /// The task makes no sense.
    Task(String),
    /// The output is closed.
    Gone,
}

type Out<'a> = &'a mut dyn FnMut(&Line) -> std::io::Result<()>;

pub(crate) async fn run(task: &Task, out: Out<'_>) -> Result<(), Trouble> {
    let mut say = |line: Line| out(&line).map_err(|_| Trouble::Gone);
    let schema = Schema::from_json_value(task.schema.clone())
        .map_err(|error| Trouble::Task(format!("schema: {error}")))?;
    let mut policies = Vec::with_capacity(task.policies.len());
    for (number, text) in task.policies.iter().enumerate() {
        let policy = Policy::parse(Some(PolicyId::new(number.to_string())), text)
            .map_err(|error| Trouble::Task(format!("policy {number}: {error}")))?;
        policies.push(policy);
    }
    let solver = solver(task.limits.query_ms)?;
    say(Line::Hello {
        engine: cedar_policy::get_sdk_version().to_string(),
    })?;
    let mut prover = Prover {
        task,
        schema,
        policies,
        compiler: Some(solver),
    };
    for environment in &task.environments {
        let env = request_env(environment)?;
        let mut errors = HashMap::new();
        for query in &environment.queries {
            let answer = prover.answer(&query.kind, &env, &mut errors).await?;
            say(Line::Answer {
                query: query.id,
                answer,
            })?;
        }
    }
    say(Line::Done { done: true })
}

type Compiler = CedarSymCompiler<LocalSolver>;

fn solver(query_ms: u64) -> Result<Compiler, Trouble> {
    let program = std::env::var("CVC5").unwrap_or_else(|_| "cvc5".to_owned());
    let mut command = tokio::process::Command::new(&program);
    command
        .args(["--lang", "smt"])
        .arg(format!("--tlimit-per={query_ms}"))
        .kill_on_drop(true);
    LocalSolver::from_command(&mut command)
        .map_err(|error| error.to_string())
        .and_then(|solver| CedarSymCompiler::new(solver).map_err(|error| error.to_string()))
        .map_err(|error| {
            Trouble::NoSolver(format!(
                "cannot start the solver `{program}`: {error}; install the package cvc5, or name \
                 the program in CVC5"
            ))
        })
}

fn request_env(environment: &Environment) -> Result<RequestEnv, Trouble> {
    let bad = |what: &str, text: &str| Trouble::Task(format!("bad {what} `{text}`"));
    let principal = EntityTypeName::from_str(&environment.principal)
        .map_err(|_| bad("principal", &environment.principal))?;
    let action =
        EntityUid::from_str(&environment.action).map_err(|_| bad("action", &environment.action))?;
    let resource = EntityTypeName::from_str(&environment.resource)
        .map_err(|_| bad("resource", &environment.resource))?;
    Ok(RequestEnv::new(principal, action, resource))
}

struct Prover<'a> {
    task: &'a Task,
    schema: Schema,
    policies: Vec<Policy>,
    /// `None` after the solver broke off; the next query starts another.
    compiler: Option<Compiler>,
}

/// What is known about each policy in one environment.
type Errors = HashMap<usize, Option<Answer>>;

impl Prover<'_> {
    async fn answer(
        &mut self,
        kind: &Kind,
        env: &RequestEnv,
        errors: &mut Errors,
    ) -> Result<Answer, Trouble> {
        match kind {
            Kind::NeverErrors { policy } => {
                let compiled = match self.compile(*policy, env)? {
                    Ok(compiled) => compiled,
                    Err(answer) => return Ok(answer),
                };
                let mut compiler = self.take_compiler()?;
                let wait = compiler.check_never_errors_with_counterexample_opt(&compiled);
                let found = self.bounded(wait).await;
                Ok(self.settle(compiler, found))
            }
            Kind::AlwaysDenies { set } => {
                if let Some(answer) = self.may_error(set, env, errors).await? {
                    return Ok(answer);
                }
                let set = match self.compile_set(set, env)? {
                    Ok(set) => set,
                    Err(answer) => return Ok(answer),
                };
                let mut compiler = self.take_compiler()?;
                let wait = compiler.check_always_denies_with_counterexample_opt(&set);
                let found = self.bounded(wait).await;
                Ok(self.settle(compiler, found))
            }
            Kind::Implies { left, right } => {
                for set in [left, right] {
                    if let Some(answer) = self.may_error(set, env, errors).await? {
                        return Ok(answer);
                    }
                }
                let left = match self.compile_set(left, env)? {
                    Ok(set) => set,
                    Err(answer) => return Ok(answer),
                };
                let right = match self.compile_set(right, env)? {
                    Ok(set) => set,
                    Err(answer) => return Ok(answer),
                };
                let mut compiler = self.take_compiler()?;
                let wait = compiler.check_implies_with_counterexample_opt(&left, &right);
                let found = self.bounded(wait).await;
                Ok(self.settle(compiler, found))
            }
        }
    }

    /// The engine skips a policy that it cannot evaluate, and the hub denies then. Only where no
    /// policy can fail are the two the same.
    async fn may_error(
        &mut self,
        set: &[usize],
        env: &RequestEnv,
        errors: &mut Errors,
    ) -> Result<Option<Answer>, Trouble> {
        for policy in set {
            if !errors.contains_key(policy) {
                let kind = Kind::NeverErrors { policy: *policy };
                let answer = match Box::pin(self.answer(&kind, env, &mut HashMap::new())).await? {
                    Answer::Proved => None,
                    Answer::Counterexample { .. } => Some(Answer::MayError { policy: *policy }),
                    other @ (Answer::Unsupported { .. }
                    | Answer::MayError { .. }
                    | Answer::Unknown { .. }) => Some(other),
                };
                errors.insert(*policy, answer);
            }
            if let Some(Some(answer)) = errors.get(policy) {
                return Ok(Some(answer.clone()));
            }
        }
        Ok(None)
    }

    fn policy(&self, number: usize) -> Result<&Policy, Trouble> {
        self.policies
            .get(number)
            .ok_or_else(|| Trouble::Task(format!("there is no policy {number}")))
    }

    fn compile(
        &self,
        number: usize,
        env: &RequestEnv,
    ) -> Result<Result<CompiledPolicy, Answer>, Trouble> {
        let policy = self.policy(number)?;
        Ok(CompiledPolicy::compile(policy, env, &self.schema)
            .map_err(|error| unsupported(number, &error)))
    }

    fn compile_set(
        &self,
        numbers: &[usize],
        env: &RequestEnv,
    ) -> Result<Result<CompiledPolicySet, Answer>, Trouble> {
        let mut set = PolicySet::new();
        for number in numbers {
            set.add(self.policy(*number)?.clone())
                .map_err(|error| Trouble::Task(error.to_string()))?;
        }
        match CompiledPolicySet::compile(&set, env, &self.schema) {
            Ok(set) => Ok(Ok(set)),
            Err(error) => {
                // Which of them it is makes the answer useful.
                for number in numbers {
                    if let Err(answer) = self.compile(*number, env)? {
                        return Ok(Err(answer));
                    }
                }
                Ok(Err(Answer::Unknown {
                    message: error.to_string(),
                }))
            }
        }
    }

    fn take_compiler(&mut self) -> Result<Compiler, Trouble> {
        match self.compiler.take() {
            Some(compiler) => Ok(compiler),
            None => solver(self.task.limits.query_ms),
        }
    }

    /// Twice the solver's own limit: a solver that hangs does not keep it.
    async fn bounded(
        &self,
        wait: impl Future<Output = Result<Option<Env>, Error>>,
    ) -> Result<Option<Env>, String> {
        let limit = Duration::from_millis(self.task.limits.query_ms.saturating_mul(2));
        match tokio::time::timeout(limit, wait).await {
            Ok(found) => found.map_err(|error| with_causes(&error)),
            Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
        }
    }

    /// A solver that failed may be in any state, so another takes its place.
    fn settle(&mut self, compiler: Compiler, found: Result<Option<Env>, String>) -> Answer {
        match found {
            Ok(found) => {
                self.compiler = Some(compiler);
                found.map_or(Answer::Proved, |found| counterexample(&found))
            }
            Err(message) => Answer::Unknown { message },
        }
    }
}

fn unsupported(policy: usize, error: &Error) -> Answer {
    Answer::Unsupported {
        policy,
        message: with_causes(error),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
