//! `nowconnect agent address`: where agents have dialled in from.

use std::io::{self, Write};

use super::super::Exit;
use super::super::control::{Socket, call};
use crate::admin::view::{AgentAddressPage, AgentAddressQuery};
use crate::revocation::time;

/// Whose address, and when.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The agent, as `name` or `tenant/name`; without it all that are remembered
    agent: Option<String>,
    /// The latest that came up before then: `now`, `2026-01-31T12:00:00Z` or seconds since 1970. It
    /// may have ended since
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// The one that this decision was about, which a log line names
    #[arg(long, value_name = "ID", conflicts_with_all = ["agent", "at"])]
    decision: Option<String>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: Socket,
}

impl Args {
    /// Asks the hub and prints what it tells.
    pub(super) fn run(self) -> Exit {
        let query = match self.query(time::now_seconds()) {
            Ok(query) => query,
            Err(problem) => {
                // Where stderr is closed the exit code still tells.
                let _ = writeln!(io::stderr().lock(), "error: {problem}");
                return Exit::Usage;
            }
        };
        let admin = self.socket.client();
        call(
            async move { admin.agent_addresses(&query).await },
            |page, out| {
                if self.json {
                    let text = serde_json::to_string_pretty(&page)?;
                    writeln!(out, "{text}")?;
                } else {
                    list(&page, out)?;
                }
                Ok(Exit::Success)
            },
        )
    }

    fn query(&self, now: u64) -> Result<AgentAddressQuery, String> {
        let at = self.at.as_deref().map(|text| time::parse(text, now));
        Ok(AgentAddressQuery {
            agent: self.agent.clone(),
            at_ms: at.transpose()?.map(|seconds| seconds.saturating_mul(1000)),
            decision: self.decision.clone(),
        })
    }
}

fn list(page: &AgentAddressPage, out: &mut dyn Write) -> io::Result<()> {
    if page.addresses.is_empty() {
        return writeln!(out, "no tunnel like this is remembered");
    }
    writeln!(
        out,
        "{:<32} {:<46} {:<20} SESSION",
        "AGENT", "ADDRESS", "SINCE"
    )?;
    for one in &page.addresses {
        let session = one
            .session
            .map_or_else(|| "-".to_owned(), |session| session.to_string());
        writeln!(
            out,
            "{:<32} {:<46} {:<20} {session}",
            one.agent,
            one.address.to_string(),
            time::show(one.since_ms / 1000),
        )?;
    }
    if page.forgotten > 0 {
        writeln!(out, "{} earlier tunnels are forgotten", page.forgotten)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use clap::Parser;

    use super::*;
    use crate::admin::view::AgentAddress;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn query(line: &[&str]) -> Result<AgentAddressQuery, String> {
        let line = std::iter::once(&"address").chain(line);
        let parsed = Line::try_parse_from(line).map_err(|error| error.to_string())?;
        parsed.args.query(1_000)
    }

    #[test]
    fn an_agent_a_time_or_a_decision_is_asked_about() {
        let asked = query(&["acme/plant", "--at", "1970-01-01T00:01:00Z"]).unwrap();
        assert_eq!(asked.agent.as_deref(), Some("acme/plant"));
        assert_eq!(asked.at_ms, Some(60_000));
        assert_eq!(query(&["--at", "now"]).unwrap().at_ms, Some(1_000_000));
        let asked = query(&["--decision", "1a-2"]).unwrap();
        assert_eq!(asked.decision.as_deref(), Some("1a-2"));
        assert_eq!(query(&[]).unwrap(), AgentAddressQuery::default());
        assert!(query(&["--at", "soon"]).unwrap_err().contains("no time"));
        let both = query(&["plant", "--decision", "1a-2"]).unwrap_err();
        assert!(both.contains("cannot be used with"), "{both}");
    }

    #[test]
    fn each_tunnel_has_its_line() {
        let one = AgentAddress {
            agent: "plant".to_owned(),
            session: Some(7),
            address: ([192, 0, 2, 1], 4000).into(),
            since_ms: 60_000,
        };
        let denied = AgentAddress {
            session: None,
            ..one.clone()
        };
        let text = shown(&AgentAddressPage {
            addresses: vec![one, denied],
            forgotten: 2,
        });
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines[1..],
            [
                "plant 192.0.2.1:4000 1970-01-01T00:01:00Z 7",
                "plant 192.0.2.1:4000 1970-01-01T00:01:00Z -",
                "2 earlier tunnels are forgotten",
            ]
        );
        assert!(shown(&AgentAddressPage::default()).contains("no tunnel"));
    }

    fn shown(page: &AgentAddressPage) -> String {
        let mut out = Vec::new();
        list(page, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }
}
