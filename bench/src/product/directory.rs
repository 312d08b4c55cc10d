//! The LDAP workload: a directory of 2,000 people, searched directly and through the tunnel.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use clap::Parser;

use crate::failure::{Context, Failure};
use crate::figures::Figures;
use crate::ldap::{self, LdapOptions, LdapResult};
use crate::peers::nowconnect::{HubShape, start_shaped};
use crate::peers::{Site, Yard, free_port, run_tool};
use crate::process::Tied;
use crate::report::median;

/// Entries of the directory.
const PEOPLE: usize = 2_000;

/// The baseline workload: 10 workers, 2 searches a second each, pages of 100.
const WORKERS: &str = "10";
const RPS_PER_WORKER: &str = "2";
const PAGE_SIZE: &str = "100";

/// Searches for `seconds` directly and through hub and agent, `rounds` times in turn.
pub(crate) fn measure_ldap(site: &Site, seconds: u64, rounds: usize) -> Result<Figures, Failure> {
    let yard = Yard::new(site, "slapd")?;
    let port = free_port()?;
    let _slapd = start_slapd(&yard, port)?;
    let mut behind = site.clone();
    behind.backend = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let hub_yard = Yard::new(&behind, "ldap")?;
    let hub = start_shaped(&hub_yard, &HubShape::shipped())?;
    let tunnel_port = hub.peer.listener.port();
    wait_for_search(tunnel_port)
        .context(|| format!("LDAP through the hub (logs in {})", hub_yard.dir.display()))?;

    let mut added_p95 = Vec::new();
    let mut added_p50 = Vec::new();
    let (mut direct_runs, mut tunnel_runs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let direct = search(port, seconds)?;
        let tunnel = search(tunnel_port, seconds)?;
        let millis = |run: &LdapResult, quantile| run.latencies.micros(quantile) / 1e3;
        added_p95.push(millis(&tunnel, 0.95) - millis(&direct, 0.95));
        added_p50.push(millis(&tunnel, 0.5) - millis(&direct, 0.5));
        direct_runs.push(direct);
        tunnel_runs.push(tunnel);
    }
    let of = |runs: &[LdapResult], quantile| {
        let millis = runs.iter().map(|run| run.latencies.micros(quantile) / 1e3);
        median(millis.collect()).unwrap_or(f64::NAN)
    };
    let runs = direct_runs.iter().chain(&tunnel_runs);
    let errors: u64 = runs.map(|run| run.report.errors_total).sum();
    let searches: u64 = tunnel_runs
        .iter()
        .map(|run| run.report.requests_total)
        .sum();
    Ok(Figures::from([
        ("ldap.direct_p50_ms".to_owned(), of(&direct_runs, 0.5)),
        ("ldap.direct_p95_ms".to_owned(), of(&direct_runs, 0.95)),
        ("ldap.direct_p99_ms".to_owned(), of(&direct_runs, 0.99)),
        ("ldap.tunnel_p50_ms".to_owned(), of(&tunnel_runs, 0.5)),
        ("ldap.tunnel_p95_ms".to_owned(), of(&tunnel_runs, 0.95)),
        ("ldap.tunnel_p99_ms".to_owned(), of(&tunnel_runs, 0.99)),
        (
            "ldap.added_p50_ms".to_owned(),
            median(added_p50).unwrap_or(f64::NAN),
        ),
        (
            "ldap.added_p95_ms".to_owned(),
            median(added_p95).unwrap_or(f64::NAN),
        ),
        ("ldap.searches".to_owned(), searches as f64),
        ("ldap.errors".to_owned(), errors as f64),
    ]))
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    options: LdapOptions,
}

fn search(port: u16, seconds: u64) -> Result<LdapResult, Failure> {
    let (port, seconds) = (port.to_string(), seconds.to_string());
    let line = [
        "ldap",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
        "--base-dn",
        "ou=people,dc=corp,dc=local",
        "--filter",
        "(objectClass=person)",
        "--attrs",
        "cn,mail",
        "--page-size",
        PAGE_SIZE,
        "--concurrency",
        WORKERS,
        "--rps-per-worker",
        RPS_PER_WORKER,
        "--duration",
        &seconds,
    ];
    let command = Command::try_parse_from(line).context(|| "LDAP options".to_owned())?;
    ldap::run(&command.options)
}

fn wait_for_search(port: u16) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let seen = search_once(port)?;
        if seen.report.errors_total == 0 && seen.report.requests_total > 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::new("no search succeeded in time"));
        }
    }
}

fn search_once(port: u16) -> Result<LdapResult, Failure> {
    let port = port.to_string();
    let line = [
        "ldap",
        "--port",
        &port,
        "--concurrency",
        "1",
        "--rps-per-worker",
        "5",
        "--duration",
        "0.2",
        "--timeout",
        "1",
    ];
    let command = Command::try_parse_from(line).context(|| "LDAP options".to_owned())?;
    ldap::run(&command.options)
}

fn start_slapd(yard: &Yard<'_>, port: u16) -> Result<Tied, Failure> {
    let data = yard.dir.join("data");
    fs::create_dir_all(&data)?;
    let config = yard.write(
        "slapd.conf",
        &format!(
            "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
             include /etc/ldap/schema/inetorgperson.schema\n\
             modulepath /usr/lib/ldap\nmoduleload back_mdb\n\
             pidfile {0}/slapd.pid\nargsfile {0}/slapd.args\n\
             database mdb\nmaxsize 104857600\nsuffix \"dc=corp,dc=local\"\n\
             rootdn \"cn=admin,dc=corp,dc=local\"\nrootpw bench\n\
             directory {1}\nindex objectClass,uid eq\n",
            yard.dir.display(),
            data.display()
        ),
    )?;
    let ldif = yard.write("people.ldif", &people())?;
    let config = config.display().to_string();
    let ldif = ldif.display().to_string();
    run_tool(
        &yard.program("slapadd")?,
        &["-q", "-f", &config, "-l", &ldif],
    )?;
    let url = format!("ldap://127.0.0.1:{port}");
    let slapd = yard.spawn(
        "slapd",
        "slapd",
        &["-f", &config, "-h", &url, "-d", "0"],
        &[],
    )?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if Instant::now() > deadline {
            return Err(Failure::new("slapd does not listen"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(slapd)
}

fn people() -> String {
    let mut ldif = "dn: dc=corp,dc=local\nobjectClass: dcObject\nobjectClass: organization\n\
                    dc: corp\no: corp\n\n\
                    dn: ou=people,dc=corp,dc=local\nobjectClass: organizationalUnit\n\
                    ou: people\n\n"
        .to_owned();
    for number in 0..PEOPLE {
        // Writing to a string cannot fail.
        let _ = write!(
            ldif,
            "dn: uid=u{number:04},ou=people,dc=corp,dc=local\nobjectClass: inetOrgPerson\n\
             uid: u{number:04}\ncn: Person {number}\nsn: Number {number}\n\
             mail: u{number:04}@corp.example\n\n"
        );
    }
    ldif
}
