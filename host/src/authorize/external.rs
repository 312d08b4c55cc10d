//! The step of the external decision point: after the policies, before the gates.
//!
//! It is asked only about what the policies allow, and its answer can only take away. A question
//! that cannot be stated has a fate of its own like any other: it counts as not answered, and is
//! never allowed instead.

use std::time::Instant;

use nowconnect_policy::Question;

use super::{Asking, Authorizer, Refused};
use crate::codes::DenialCode;
use crate::config::{PdpKind, PdpRecheck};
use crate::pdp::{Answer, Evaluation, Pdp};
use crate::telemetry::decisions::Why;

impl Authorizer {
    /// Asks about a client's flow.
    pub(super) async fn open_external(
        &self,
        asking: &mut Asking,
        pdp: &Pdp,
        question: &Question,
    ) -> Result<(), Refused> {
        let started = Instant::now();
        let generation = asking.generation.number();
        let answer = match self.evaluation(asking, pdp, question) {
            Ok(evaluation) => pdp
                .ask(generation, &asking.request_id, vec![evaluation])
                .await
                .pop(),
            Err(unstated) => Some(unstated),
        };
        asking.pdp_time += started.elapsed();
        judged(asking, answer.as_ref())
    }

    /// Asks about a running flow again; trouble is no news unless the operator wants it so.
    pub(super) async fn recheck_external(
        &self,
        asking: &mut Asking,
        question: &Question,
    ) -> Result<(), Refused> {
        let Some(pdp) = self.pdp() else {
            return Ok(());
        };
        let close_on_error = match pdp.recheck() {
            PdpRecheck::Off => return Ok(()),
            PdpRecheck::KeepOnError => false,
            PdpRecheck::CloseOnError => true,
        };
        let started = Instant::now();
        let generation = asking.generation.number();
        let answer = match self.evaluation(asking, &pdp, question) {
            Ok(evaluation) => {
                pdp.ask_again(generation, &asking.request_id, evaluation)
                    .await
            }
            Err(unstated) => Some(unstated),
        };
        asking.pdp_time += started.elapsed();
        let failed = answer.as_ref().is_none_or(|answer| answer.failed);
        if failed && !close_on_error {
            return Ok(());
        }
        judged(asking, answer.as_ref())
    }

    /// Asks about a HELLO and the connectors that the policies accept, in one batch; one answer for
    /// each. `None` where it is not asked about that.
    pub(super) async fn hello_external(
        &self,
        asking: &mut Asking,
        questions: &[&Question],
        again: bool,
    ) -> Option<Vec<Answer>> {
        let pdp = self.pdp()?;
        match pdp.kind() {
            PdpKind::Authzen => {}
            // Its form knows connecting only.
            PdpKind::Simple => return None,
        }
        let keep_on_error = match pdp.recheck() {
            PdpRecheck::Off if again => return None,
            PdpRecheck::KeepOnError => again,
            PdpRecheck::Off | PdpRecheck::CloseOnError => false,
        };
        let mut evaluations = Vec::with_capacity(questions.len());
        let unstated: Vec<Option<Answer>> = questions
            .iter()
            .map(|question| match self.evaluation(asking, &pdp, question) {
                Ok(evaluation) => {
                    evaluations.push(evaluation);
                    None
                }
                Err(unstated) => Some(unstated),
            })
            .collect();
        let started = Instant::now();
        let generation = asking.generation.number();
        let mut answered = pdp
            .ask(generation, &asking.request_id, evaluations)
            .await
            .into_iter();
        asking.pdp_time += started.elapsed();
        let mut answers: Vec<Answer> = unstated
            .into_iter()
            .filter_map(|unstated| unstated.or_else(|| answered.next()))
            .collect();
        if keep_on_error {
            // A deny that came counts, whatever went wrong with the other questions.
            answers.iter_mut().for_each(Answer::keep_on_error);
        }
        Some(answers)
    }

    /// The question as it is sent, or the answer where it cannot be stated.
    fn evaluation(
        &self,
        asking: &Asking,
        pdp: &Pdp,
        question: &Question,
    ) -> Result<Evaluation, Answer> {
        if let (PdpKind::Simple, Question::Open(open)) = (pdp.kind(), question) {
            return Ok(Evaluation::simple(
                open.agent.as_str(),
                open.connector.as_str(),
                &self.hub,
                pdp.audience(),
            ));
        }
        asking
            .generation
            .policies()
            .state(&self.facts, question)
            .and_then(|stated| Evaluation::authzen(&stated, pdp.subject_properties()))
            .map_err(|problem| Answer::unstated(&problem))
    }
}

fn judged(asking: &mut Asking, answer: Option<&Answer>) -> Result<(), Refused> {
    let Some(answer) = answer else {
        return Err(Refused::by_hub(
            Why::Pdp,
            DenialCode::PdpUnavailable,
            "the decision point did not answer, try again later",
        ));
    };
    asking.pdp = Some(answer.recorded());
    if answer.allow {
        Ok(())
    } else {
        Err(Refused::by_pdp(answer))
    }
}
