//! An explanation for a terminal.

use std::fmt;

use super::{ConditionShown, Explanation, PolicyShown, ScopeShown};
use crate::decision::PolicyRef;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decision = &self.decision;
        let verdict = if decision.allow { "allowed" } else { "denied" };
        write!(f, "{verdict}: {}", decision.kind.as_str())?;
        if let Some(code) = decision
            .code()
            .filter(|code| *code != decision.kind.as_str())
        {
            write!(f, ", code {code}")?;
        }
        writeln!(f, " (generation {})", decision.generation)?;
        if let Some(request) = &self.request {
            writeln!(f, "  principal  {}", request.principal)?;
            writeln!(f, "  action     {}", request.action)?;
            writeln!(f, "  resource   {}", request.resource)?;
        }
        for error in &decision.errors {
            writeln!(f, "  error      {error}")?;
        }
        section(f, "decided by", &self.determining, policy)?;
        section(f, "could not be evaluated", &self.failing, policy)?;
        section(f, "nearly permitted by", &self.near_misses, policy)?;
        if !decision.allow {
            section(
                f,
                "permits about somebody or something else",
                &self.out_of_scope,
                scope,
            )?;
        }
        if self.unlisted > 0 {
            writeln!(f, "\nand {} more permits that did not apply", self.unlisted)?;
        }
        section(f, "what would turn it", &self.turns, |f, turn| {
            writeln!(f, "  - {turn}")
        })
    }
}

fn section<T>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    items: &[T],
    item: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    items.iter().try_for_each(|one| item(f, one))
}

fn place(f: &mut fmt::Formatter<'_>, effect: &str, policy: &PolicyRef) -> fmt::Result {
    writeln!(
        f,
        "  {effect} `{}` at {}:{}",
        policy.id, policy.file, policy.line
    )
}

fn policy(f: &mut fmt::Formatter<'_>, shown: &PolicyShown) -> fmt::Result {
    place(f, &shown.effect, &shown.policy)?;
    if let Some(advice) = &shown.policy.advice {
        writeln!(f, "    advice: {advice}")?;
    }
    shown
        .conditions
        .iter()
        .try_for_each(|one| condition(f, one))
}

fn condition(f: &mut fmt::Formatter<'_>, shown: &ConditionShown) -> fmt::Result {
    let mark = match (shown.holds, &shown.error) {
        (Some(true), _) => "holds      ",
        (Some(false), _) => "fails      ",
        (None, Some(_)) => "error      ",
        (None, None) => "not reached",
    };
    writeln!(f, "    {mark} {}", shown.text)?;
    if let Some(error) = &shown.error {
        writeln!(f, "                  {error}")?;
    }
    for (path, value) in &shown.values {
        writeln!(f, "                  {path} = {value}")?;
    }
    Ok(())
}

fn scope(f: &mut fmt::Formatter<'_>, shown: &ScopeShown) -> fmt::Result {
    place(f, "permit", &shown.policy)?;
    writeln!(f, "    wants       {}", shown.wants.join(", "))
}
