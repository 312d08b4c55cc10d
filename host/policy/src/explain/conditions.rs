//! A policy's conditions one by one.

use std::str::FromStr as _;

use cedar_policy::pst::{BinaryOp, Clause, Expr, UnaryOp, Var};
use cedar_policy::{Entities, EvalResult, Expression, Policy, eval_expression};

use super::ConditionShown;
use crate::scene::Scene;

/// Letters of a value that are shown; a set of a thousand scopes helps nobody.
const VALUE_LETTERS: usize = 200;

/// What a policy needs to apply: one part of an `&&`.
#[derive(Debug)]
pub(super) struct Condition {
    /// The expression, without the `!` in front of it.
    bare: String,
    /// Whether it has to be false: from an `unless`, or behind a `!`.
    negated: bool,
    pub(super) outcome: Outcome,
    values: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Holds(bool),
    /// A condition before it failed, so the engine did not get here; and here alone it makes
    /// no sense, as in `principal has email && principal.email like "…"`.
    NotReached,
    Error(String),
}

impl Condition {
    /// How it would have to be: as the policy wants it, or otherwise.
    pub(super) fn wish(&self, as_wanted: bool) -> String {
        let seen = match self.values.as_slice() {
            [] => String::new(),
            values => {
                let seen: Vec<String> = values
                    .iter()
                    .map(|(path, value)| format!("`{path}` is {value}"))
                    .collect();
                format!(" ({})", seen.join(", "))
            }
        };
        if self.negated == as_wanted {
            format!("`{}` did not hold{seen}", self.bare)
        } else {
            format!("`{}` held{seen}", self.bare)
        }
    }

    pub(super) fn shown(self) -> ConditionShown {
        let text = if self.negated {
            format!("!({})", self.bare)
        } else {
            self.bare
        };
        let (holds, error) = match self.outcome {
            Outcome::Holds(holds) => (Some(holds), None),
            Outcome::NotReached => (None, None),
            Outcome::Error(error) => (None, Some(error)),
        };
        ConditionShown {
            text,
            holds,
            error,
            values: self.values,
        }
    }
}

/// The conditions of a policy, evaluated each on its own.
pub(super) fn seen(policy: &Policy, scene: &Scene<'_>) -> Vec<Condition> {
    let Ok(pst) = policy.to_pst() else {
        return Vec::new();
    };
    let mut parts = Vec::new();
    for clause in pst.body().clauses() {
        match clause {
            Clause::When(expr) => split(expr, false, &mut parts),
            Clause::Unless(expr) => split(expr, true, &mut parts),
        }
    }
    let mut reached = true;
    parts
        .into_iter()
        .map(|(expr, negated)| {
            let condition = evaluate(expr, negated, reached, scene);
            reached &= condition.outcome == Outcome::Holds(true);
            condition
        })
        .collect()
}

/// `a && b` has to hold in both parts, and `!(a || b)` too.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "any other expression is one part"
)]
fn split<'a>(expr: &'a Expr, negated: bool, parts: &mut Vec<(&'a Expr, bool)>) {
    match expr {
        Expr::BinaryOp {
            op: BinaryOp::And,
            left,
            right,
        } if !negated => {
            split(left, negated, parts);
            split(right, negated, parts);
        }
        Expr::BinaryOp {
            op: BinaryOp::Or,
            left,
            right,
        } if negated => {
            split(left, negated, parts);
            split(right, negated, parts);
        }
        Expr::UnaryOp {
            op: UnaryOp::Not,
            expr,
        } => split(expr, !negated, parts),
        _ => parts.push((expr, negated)),
    }
}

fn evaluate(expr: &Expr, negated: bool, reached: bool, scene: &Scene<'_>) -> Condition {
    let bare = expr.to_string();
    let outcome = match value_of(&bare, scene) {
        Ok(EvalResult::Bool(value)) => Outcome::Holds(value != negated),
        Ok(other) => Outcome::Error(format!("it is {other}, not true or false")),
        Err(_) if !reached => Outcome::NotReached,
        Err(error) => Outcome::Error(error),
    };
    let mut paths = Vec::new();
    let mut membership = false;
    look(expr, &mut paths, &mut membership);
    paths.dedup();
    let values = paths
        .into_iter()
        .filter_map(|path| {
            let value = value_of(&path, scene).ok()?;
            Some((path, show(&value, membership, scene.entities)))
        })
        .collect();
    Condition {
        bare,
        negated,
        outcome,
        values,
    }
}

fn value_of(text: &str, scene: &Scene<'_>) -> Result<EvalResult, String> {
    let expression = Expression::from_str(text).map_err(|error| error.to_string())?;
    eval_expression(scene.request, scene.entities, &expression).map_err(|error| error.to_string())
}

/// What an expression looks at: variables with their attributes, and tags.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others look at nothing")]
fn look(expr: &Expr, paths: &mut Vec<String>, membership: &mut bool) {
    if is_path(expr) {
        paths.push(expr.to_string());
        return;
    }
    match expr {
        Expr::BinaryOp {
            op: BinaryOp::GetTag,
            ..
        } => paths.push(expr.to_string()),
        Expr::BinaryOp { op, left, right } => {
            *membership |= *op == BinaryOp::In;
            look(left, paths, membership);
            look(right, paths, membership);
        }
        Expr::Is { expr, in_expr, .. } => {
            *membership |= in_expr.is_some();
            look(expr, paths, membership);
        }
        Expr::UnaryOp { expr, .. } | Expr::Like { expr, .. } | Expr::HasAttr { expr, .. } => {
            look(expr, paths, membership);
        }
        Expr::IfThenElse {
            cond,
            then_expr,
            else_expr,
        } => {
            look(cond, paths, membership);
            look(then_expr, paths, membership);
            look(else_expr, paths, membership);
        }
        Expr::Set(items) => items.iter().for_each(|item| look(item, paths, membership)),
        _ => {}
    }
}

/// `context.net.srcIp` and the like; not `context` alone, which would be shown whole.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "any other expression is no path"
)]
fn is_path(expr: &Expr) -> bool {
    match expr {
        Expr::Var(Var::Principal | Var::Resource) => true,
        Expr::GetAttr { expr, .. } => is_path(expr) || matches!(**expr, Expr::Var(Var::Context)),
        _ => false,
    }
}

fn show(value: &EvalResult, membership: bool, entities: &Entities) -> String {
    let mut text = value.to_string();
    if membership && let EvalResult::EntityUid(uid) = value {
        let mut groups: Vec<String> = entities
            .ancestors(uid)
            .map(|groups| groups.map(ToString::to_string).collect())
            .unwrap_or_default();
        groups.sort_unstable();
        text.push_str(&format!(", in [{}]", groups.join(", ")));
    }
    if text.chars().count() > VALUE_LETTERS {
        text = text.chars().take(VALUE_LETTERS).collect();
        text.push('…');
    }
    text
}
