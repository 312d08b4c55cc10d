//! `nowconnect certificates`: the certificates of a running hub's HTTP ports.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;

use super::Exit;
use super::control::{Socket, call};
use crate::certificates::view::{CertificatePage, CertificateStatus};

const DAY_S: i64 = 86_400;

/// `nowconnect certificates`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// List them: names, source, end, next order, and why the last order failed
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Where the hub is
        #[command(flatten)]
        socket: Socket,
    },
    /// Order a name's certificate now, whatever was planned; `list` tells what comes of it
    Renew {
        /// The name, one of those that certificates are issued for
        name: String,
        /// Where the hub is
        #[command(flatten)]
        socket: Socket,
    },
}

impl Command {
    /// Runs it.
    pub fn run(self) -> Exit {
        match self {
            Self::List { json, socket } => {
                let admin = socket.client();
                call(async move { admin.certificates().await }, |page, out| {
                    if json {
                        let text = serde_json::to_string_pretty(&page)?;
                        writeln!(out, "{text}")?;
                    } else {
                        list(&page, SystemTime::now(), out)?;
                    }
                    Ok(Exit::Success)
                })
            }
            Self::Renew { name, socket } => {
                let admin = socket.client();
                let wanted = name.clone();
                let answer = async move { admin.renew_certificate(&wanted).await };
                call(answer, |_, out| {
                    writeln!(out, "the certificate of {name} is ordered")?;
                    Ok(Exit::Success)
                })
            }
        }
    }
}

fn list(page: &CertificatePage, now: SystemTime, out: &mut dyn Write) -> io::Result<()> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    writeln!(
        out,
        "{:<40} {:<6} {:<22} NEXT ORDER",
        "NAME", "SOURCE", "ENDS"
    )?;
    for one in &page.certificates {
        let mut names = one.names.iter();
        let first = names.next().or(one.file.as_ref());
        writeln!(
            out,
            "{:<40} {:<6} {:<22} {}",
            first.map_or("", String::as_str),
            one.source.as_str(),
            ends(one, now),
            next_order(one, now)
        )?;
        for name in names {
            writeln!(out, "  {name}")?;
        }
        if let Some(error) = &one.last_error {
            let times = match one.failures {
                0 | 1 => String::new(),
                times => format!(" ({times} times)"),
            };
            writeln!(out, "  {}{times}: {}", error.code, error.message)?;
        }
    }
    Ok(())
}

fn ends(one: &CertificateStatus, now: i64) -> String {
    match one.not_after {
        None => "none yet".to_owned(),
        Some(end) if end <= now => "has ended".to_owned(),
        Some(end) if one.ending => format!("in {} (soon)", span(end - now)),
        Some(end) => format!("in {}", span(end - now)),
    }
}

fn next_order(one: &CertificateStatus, now: i64) -> String {
    if one.under_way {
        return "under way".to_owned();
    }
    match one.next_order_ms {
        None => "-".to_owned(),
        Some(at) => {
            let at = i64::try_from(at / 1000).unwrap_or(i64::MAX);
            format!("in {}", span((at - now).max(0)))
        }
    }
}

/// In the largest unit of which there are at least two.
fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / DAY_S),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::time::Duration;

    use super::*;
    use crate::certificates::view::{CertificateError, CertificateSource};

    #[test]
    fn each_certificate_has_its_line() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let issued = CertificateStatus {
            names: vec!["shop.example.com".to_owned()],
            source: CertificateSource::Acme,
            file: None,
            not_after: Some(1_000_000 + 60 * DAY_S),
            ending: false,
            next_order_ms: Some(1_000_000_000 + 5_400_000),
            under_way: false,
            failures: 2,
            last_error: Some(CertificateError {
                code: "acme_refused".to_owned(),
                message: "no".to_owned(),
            }),
        };
        let page = CertificatePage {
            certificates: vec![
                CertificateStatus {
                    not_after: None,
                    under_way: true,
                    last_error: None,
                    ..issued.clone()
                },
                issued,
                CertificateStatus {
                    names: vec!["a".to_owned(), "*.b".to_owned()],
                    source: CertificateSource::File,
                    file: Some("tls/web.pem".to_owned()),
                    not_after: Some(5),
                    ending: true,
                    next_order_ms: None,
                    under_way: false,
                    failures: 0,
                    last_error: None,
                },
            ],
        };
        let mut out = Vec::new();
        list(&page, now, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[1].join(" "),
            "shop.example.com acme none yet under way"
        );
        assert_eq!(
            lines[2].join(" "),
            "shop.example.com acme in 60 days in 90 min"
        );
        assert_eq!(lines[3].join(" "), "acme_refused (2 times): no");
        assert_eq!(lines[4].join(" "), "a file has ended -");
        assert_eq!(lines[5].join(" "), "*.b");
    }
}
