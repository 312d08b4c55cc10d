//! A permit that goes by a plugin's word has to say whose.
//!
//! An enricher cannot allow anything by itself; a permit that reads `context.signals` lets it.
//! So that nobody gives that power away unseen, such a permit carries `@trusts("plugin")`.

use std::sync::Arc;

use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal, Var};
use cedar_policy::{Effect, Policy};

/// What is wrong with a policy in this respect; one sentence each.
pub(crate) fn problems(policy: &Policy) -> Vec<String> {
    if policy.effect() == Effect::Forbid {
        return Vec::new();
    }
    let Ok(pst) = policy.to_pst() else {
        return vec!["this policy cannot be looked into".to_owned()];
    };
    let mut reading = Reading::default();
    for clause in pst.body().clauses() {
        match clause {
            Clause::When(expr) | Clause::Unless(expr) => reading.walk(expr),
        }
    }
    if !reading.reads {
        return Vec::new();
    }
    let Some(trusted) = policy.annotation("trusts") else {
        return vec!["this permit reads `context.signals` without `@trusts`".to_owned()];
    };
    let trusted: Vec<&str> = trusted.split(',').map(str::trim).collect();
    reading
        .signals
        .iter()
        .filter_map(|signal| match signal.split_once('/') {
            None => Some(format!(
                "signal `{signal}` has no plugin in front, so it is never present"
            )),
            Some((plugin, _)) => (!trusted.contains(&plugin))
                .then(|| format!("signal `{signal}` is of a plugin that `@trusts` does not name")),
        })
        .collect()
}

/// What a condition reads of the signals.
#[derive(Debug, Default)]
struct Reading {
    reads: bool,
    /// Signals that it looks for by name.
    signals: Vec<String>,
}

impl Reading {
    fn walk(&mut self, expr: &Arc<Expr>) {
        match &**expr {
            // The whole context has the signals in it.
            Expr::Var(Var::Context) => self.reads = true,
            Expr::GetAttr { expr: inner, attr } => {
                if is_context(inner) {
                    self.reads |= attr == "signals";
                } else {
                    self.walk(inner);
                }
            }
            Expr::HasAttr { expr: inner, .. } => {
                if !is_context(inner) {
                    self.walk(inner);
                }
            }
            Expr::BinaryOp { op, left, right } => {
                if matches!(
                    op,
                    BinaryOp::Contains | BinaryOp::ContainsAll | BinaryOp::ContainsAny
                ) && is_signals(left)
                {
                    self.collect(right);
                }
                self.walk(left);
                self.walk(right);
            }
            Expr::UnaryOp { expr: inner, .. } | Expr::Like { expr: inner, .. } => self.walk(inner),
            Expr::Is {
                expr: inner,
                in_expr,
                ..
            } => {
                self.walk(inner);
                if let Some(in_expr) = in_expr {
                    self.walk(in_expr);
                }
            }
            Expr::IfThenElse {
                cond,
                then_expr,
                else_expr,
            } => {
                self.walk(cond);
                self.walk(then_expr);
                self.walk(else_expr);
            }
            Expr::Set(items) => items.iter().for_each(|item| self.walk(item)),
            Expr::Record(fields) => fields.values().for_each(|field| self.walk(field)),
            Expr::Literal(_) | Expr::Var(_) | Expr::Slot(_) | Expr::Unknown { .. } => {}
            // A kind of expression that is newer than this code may read anything.
            _ => self.reads = true,
        }
    }

    fn collect(&mut self, expr: &Expr) {
        if let Expr::Literal(Literal::String(signal)) = expr {
            self.signals.push(signal.to_string());
        }
        if let Expr::Set(items) = expr {
            items.iter().for_each(|item| self.collect(item));
        }
    }
}

fn is_context(expr: &Expr) -> bool {
    matches!(expr, Expr::Var(Var::Context))
}

fn is_signals(expr: &Expr) -> bool {
    matches!(expr, Expr::GetAttr { expr, attr } if is_context(expr) && attr == "signals")
}
