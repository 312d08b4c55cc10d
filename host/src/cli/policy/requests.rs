//! `nowconnect policy requests`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;

use crate::admin::client::AdminClient;
use crate::admin::{RequestPage, RequestQuery};
use crate::cli::Exit;

/// Prints what a hub was asked, for `policy test` and for comparing sets of policies.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "One line of JSON for each distinct request, the latest first: request, entities, \
                  decision, reason, count, first_ms, last_ms.\n\
                  Try them against other policies: nowconnect policy requests --cases > \
                  cases/recorded.json && nowconnect policy test new --cases cases\n\
                  Exit code: 0 printed, 1 the hub could not, 64 wrong arguments."
)]
pub struct Requests {
    /// Only requests of the last so long, such as `2h`, `30m` or `90s`
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub since: Option<Duration>,
    /// At most this many
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<usize>,
    /// Print one list, which is a file of test cases
    #[arg(long)]
    pub cases: bool,
    /// The hub's admin socket
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

impl Requests {
    pub(super) fn run_with(
        self,
        out: &mut dyn Write,
        problems: &mut dyn Write,
    ) -> io::Result<Exit> {
        let page = match self.ask_hub() {
            Ok(page) => page,
            Err(problem) => {
                writeln!(problems, "{problem}")?;
                return Ok(Exit::Failure);
            }
        };
        if self.cases {
            let json = serde_json::to_string_pretty(&page.requests)?;
            writeln!(out, "{json}")?;
        } else {
            for request in &page.requests {
                writeln!(out, "{}", serde_json::to_string(request)?)?;
            }
        }
        let counts = page.counts;
        if counts.forgotten > 0 || counts.skipped > 0 {
            writeln!(
                problems,
                "not all are here: {} were forgotten for lack of room \
                 (`policy.requests_kept_bytes`), and {} times a new one came when too many did",
                counts.forgotten, counts.skipped
            )?;
        }
        Ok(Exit::Success)
    }

    fn ask_hub(&self) -> Result<RequestPage, String> {
        let since = self
            .since
            .and_then(|since| SystemTime::now().checked_sub(since));
        let query = RequestQuery {
            since_ms: since.map(crate::authorize::unix_ms),
            limit: self.limit,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start: {error}"))?;
        let client = AdminClient::find(self.socket.as_deref());
        runtime
            .block_on(client.requests(&query))
            .map_err(|error| error.to_string())
    }
}

/// A number and a unit.
fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write it as `90s`, `30m`, `2h` or `1d`");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let unit = match text.get(digits.len()..) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        Some("d") => 86_400,
        Some(_) | None => return Err(wrong()),
    };
    number
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(parse_time("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse_time("90s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "h", "2", "2w", "-1h", "1.5h", "99999999999999999999d"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
