//! The proof that a staged set lets nothing new in.
//!
//! A proof takes seconds to minutes, so it is made beside everything else: the first who requires
//! it begins it, and until it is there the bundle counts as not proved. It is thrown away with
//! the pair of sets that it is about.

use futures_util::FutureExt as _;
use nowconnect_policy::{ProofLimits, ProofReport};
use tokio::task::JoinHandle;

use super::life::Set;
use super::refused::{BundleRefused, codes};
use crate::prove::{ProveError, compare};

/// Makes one proof at a time.
#[derive(Debug, Default)]
pub(crate) struct Prover {
    proof: Option<Proof>,
}

#[derive(Debug)]
struct Proof {
    active: u64,
    staged: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Running(Running),
    Done(Result<Proved, BundleRefused>),
}

/// What was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proved {
    /// Groups or the schema change too, which no proof covers.
    pub(crate) facts_change: bool,
}

/// Ends with its value, and the program with it.
#[derive(Debug)]
struct Running(JoinHandle<Result<ProofReport, ProveError>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Prover {
    /// Whether `staged` is proved to let in nothing that `active` does not; begins the proof
    /// where there is none yet.
    ///
    /// # Errors
    /// It is not proved, or not yet, or there is nothing here that could prove it.
    pub(crate) fn nothing_new(
        &mut self,
        active: &Set,
        staged: &Set,
    ) -> Result<Proved, BundleRefused> {
        let pair = (active.revision, staged.revision);
        if self
            .proof
            .as_ref()
            .map(|proof| (proof.active, proof.staged))
            != Some(pair)
        {
            let (before, after) = (active.sources.clone(), staged.sources.clone());
            let task = async move { compare(&before, &after, ProofLimits::default()).await };
            self.proof = Some(Proof {
                active: active.revision,
                staged: staged.revision,
                state: State::Running(Running(tokio::spawn(task))),
            });
        }
        match &mut self.proof {
            Some(proof) => proof.state.look(),
            None => Err(BundleRefused::internal()),
        }
    }
}

impl State {
    fn look(&mut self) -> Result<Proved, BundleRefused> {
        if let Self::Running(running) = self {
            match (&mut running.0).now_or_never() {
                None => return Err(unproved("the proof is under way; try again".to_owned())),
                Some(Ok(Ok(report))) => *self = Self::Done(judged(&report)),
                Some(Ok(Err(error))) => *self = Self::Done(Err(unproved(error.to_string()))),
                Some(Err(_)) => *self = Self::Done(Err(BundleRefused::internal())),
            }
        }
        match self {
            Self::Done(result) => result.clone(),
            Self::Running(_) => Err(BundleRefused::internal()),
        }
    }
}

fn judged(report: &ProofReport) -> Result<Proved, BundleRefused> {
    if report.lets_nothing_new_in() {
        return Ok(Proved {
            facts_change: !report.changed_facts.is_empty(),
        });
    }
    Err(unproved(
        "it is not proved to let nothing new in; `nowconnect policy diff` of both bundles with \
         `--prove` shows a request, or says what could not be proved"
            .to_owned(),
    ))
}

fn unproved(why: String) -> BundleRefused {
    BundleRefused::new(codes::UNPROVED, why)
}
