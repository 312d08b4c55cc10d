//! `nowconnect policy explain`.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use nowconnect_policy::Explanation;
use serde::{Deserialize, Serialize};

use super::{compile, open};
use crate::admin::client::AdminClient;
use crate::admin::view::ExplainRequest;
use crate::cli::Exit;
use crate::config::Env;
use crate::telemetry::decisions::{DecisionRecord, Why};

/// Says why a decision came out as it did.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A decision id stands in the hub's log, in a refusal that an agent got, \
                        and in `nowconnect status`.\n\
                        Offline: nowconnect policy explain request.json --policies policies\n\
                        Exit code: 0 explained, 1 the hub could not, 64 wrong arguments."
)]
pub struct Explain {
    /// A decision id, or a JSON file with a request (as a test case has it), which needs no hub
    #[arg(value_name = "ID|FILE", required_unless_present_any = ["client", "flow"])]
    pub what: Option<String>,
    /// Explain the last decision about this client instead
    #[arg(long, value_name = "IP[:PORT]", conflicts_with_all = ["what", "flow"])]
    pub client: Option<String>,
    /// Explain the last decision about this flow instead, as logs and `flows list` name it
    #[arg(long, value_name = "FLOW", conflicts_with = "what")]
    pub flow: Option<String>,
    /// With `--client`: the last decision, which is what is explained anyway
    #[arg(long, requires = "client")]
    pub last: bool,
    /// With a file: the folder with the policies; without it as in `policy check`
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
    /// With a file that holds a list of cases: the name of the case
    #[arg(long, value_name = "NAME")]
    pub case: Option<String>,
    /// The hub's admin socket
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What a hub answers to `POST /v1/explain`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Explained {
    /// The decision as it was recorded, a [`DecisionRecord`]; absent for a question that the
    /// caller stated. Redaction may have put something else in place of a field, so it is kept
    /// as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<serde_json::Value>,
    /// What the policies in force say about the same question now; absent where the decision
    /// was made before policies were asked, such as by a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
}

impl Explain {
    pub(super) fn run_with(
        self,
        env: &dyn Env,
        out: &mut dyn Write,
        problems: &mut dyn Write,
    ) -> io::Result<Exit> {
        let file = self.what.as_deref().map(Path::new).filter(|path| {
            path.extension().is_some_and(|ending| ending == "json") || path.is_file()
        });
        let explained = match file {
            Some(path) => {
                let opened = match open(self.policies.as_deref(), env) {
                    Ok(opened) => opened,
                    Err(refusal) => return refusal.print(problems),
                };
                let Some(bundle) = compile(&opened, problems)? else {
                    return Ok(Exit::Failure);
                };
                let explanation = read_request(path, self.case.as_deref())
                    .and_then(|request| bundle.explain_json(&request));
                match explanation {
                    Ok(explanation) => Explained {
                        record: None,
                        explanation: Some(explanation),
                    },
                    Err(problem) => {
                        writeln!(problems, "`{}`: {problem}", path.display())?;
                        return Ok(Exit::Usage);
                    }
                }
            }
            None => match self.ask_hub() {
                Ok(explained) => explained,
                Err(problem) => {
                    writeln!(problems, "{problem}")?;
                    return Ok(Exit::Failure);
                }
            },
        };
        if self.json {
            let json = serde_json::to_string_pretty(&explained)?;
            writeln!(out, "{json}")?;
        } else {
            out.write_all(text(&explained).as_bytes())?;
        }
        Ok(Exit::Success)
    }

    fn ask_hub(&self) -> Result<Explained, String> {
        let request = ExplainRequest {
            decision: self.what.clone(),
            client: self.client.clone(),
            flow: self.flow.clone(),
            question: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start: {error}"))?;
        let client = AdminClient::find(self.socket.as_deref());
        let answer = runtime
            .block_on(client.explain(&request))
            .map_err(|error| error.to_string())?;
        serde_json::from_value(answer)
            .map_err(|error| format!("the hub's answer is not understood: {error}"))
    }
}

/// The text of a request: the whole file, or one case of a list.
fn read_request(path: &Path, case: Option<&str>) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let Some(cases) = json.as_array() else {
        return Ok(text);
    };
    let names: Vec<&str> = cases
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    let Some(wanted) = case else {
        return Err(format!(
            "it holds {} cases; choose one with `--case NAME`: {}",
            cases.len(),
            names.join(" | ")
        ));
    };
    cases
        .iter()
        .find(|one| one["name"] == wanted)
        .map(ToString::to_string)
        .ok_or_else(|| {
            format!(
                "no case is named `{wanted}`; there are: {}",
                names.join(" | ")
            )
        })
}

pub(super) fn text(explained: &Explained) -> String {
    let mut text = String::new();
    let mut recorded = None;
    if let Some(json) = &explained.record {
        match DecisionRecord::deserialize(json) {
            Ok(record) => {
                text.push_str(&record_text(&record));
                recorded = Some(record);
            }
            Err(_) => {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "decision {json:#}");
            }
        }
    }
    match &explained.explanation {
        Some(explanation) => {
            if let Some(record) = &recorded {
                text.push_str(difference(record, explanation));
            } else if explained.record.is_some() {
                text.push_str("\nwhat the policies in force now say:\n");
            }
            text.push_str(&explanation.to_string());
        }
        None if explained.record.is_some() => text.push_str("\npolicies had no part in it\n"),
        None => text.push_str("the hub has nothing to say about it\n"),
    }
    text
}

/// How to read the explanation, which was made now, beside the record.
fn difference(record: &DecisionRecord, explanation: &Explanation) -> &'static str {
    let now = &explanation.decision;
    match (
        now.generation == record.generation,
        now.allow == record.allow,
    ) {
        (true, true) => "\nwhat the policies say:\n",
        (true, false) if record.why == Why::Pdp => {
            "\nwhat the policies say (they allow it; the external decision point does not, and \
             only its own answer would turn it):\n"
        }
        (true, false) if record.why == Why::Plugin => {
            "\nwhat the policies say (they allow it; the plugin named above does not, and only its \
             own answer would turn it):\n"
        }
        (true, false) => {
            "\nwhat the policies say (not what was decided: something else decided, or the facts \
             have changed):\n"
        }
        (false, _) => "\nwhat the policies in force now say:\n",
    }
}

/// The record in a few lines.
fn record_text(record: &DecisionRecord) -> String {
    let mut text = String::new();
    let verdict = if record.allow { "allowed" } else { "denied" };
    let code = record
        .code
        .as_deref()
        .filter(|code| *code != record.why.as_str())
        .map(|code| format!(", code {code}"))
        .unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "decision {} by {}", record.decision_id, record.hub);
    let _ = writeln!(
        text,
        "{verdict}: {}{code} (generation {}{}{}, {} µs)",
        record.why.as_str(),
        record.generation,
        record
            .revision
            .map(|revision| format!(", revision {revision}"))
            .unwrap_or_default(),
        record
            .policy_digest
            .as_deref()
            .map(|digest| format!(", digest {digest}"))
            .unwrap_or_default(),
        record.latency.total_us
    );
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    line("action", record.action.as_str());
    line("principal", &record.principal);
    line("resource", &record.resource);
    if let Some(client) = record.client {
        line("client", &client.to_string());
    }
    if let Some(network) = record.agent_network {
        line("from", &network.to_string());
    }
    if let Some(agent) = &record.agent {
        line("agent", agent);
    }
    if let Some(flow) = &record.flow {
        line("flow", flow);
    }
    if let Some(message) = &record.message {
        line("message", message);
    }
    if let Some(plugin) = &record.plugin {
        let reason = plugin.reason.as_deref().unwrap_or_default();
        line(
            "plugin",
            &format!("{} said {} {reason}", plugin.name, plugin.code),
        );
    }
    if let Some(pdp) = &record.pdp {
        let said = match (pdp.allow, pdp.cached) {
            (true, true) => "allow (kept from before)",
            (true, false) => "allow",
            (false, _) => "deny",
        };
        line(
            "pdp",
            &format!("{said} {}", pdp.reason.as_deref().unwrap_or_default()),
        );
    }
    for policy in &record.policies {
        let place = policy.place.as_deref().unwrap_or("?");
        line("policy", &format!("{} at {place}", policy.id));
    }
    text
}
