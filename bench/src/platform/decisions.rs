//! One Cedar decision about a new flow, by the number of policies.
//!
//! *Warm*: about a service, an agent and an address that the set was asked about before; time,
//! id and port differ, as they do in a hub. *Cold*: the first question that a newly compiled set
//! gets about each of a thousand services, every one from another address, so that nothing that
//! the set keeps is there yet.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use nowconnect_policy::{
    AgentFacts, ConnectorFacts, Facts, ListenerFacts, Meta, Name, Net, Open, PolicyBundle,
    Question, Signals, SourceFile, Sources, Viewer, shipped,
};

use super::put_quantiles;
use crate::failure::{Context, Failure};
use crate::figures::Figures;
use crate::load::Latencies;
use crate::peers::nowconnect::generated_policy;

/// Policies beside the shipped ones; the first shows what the engine costs by itself, the last is
/// the largest set that there may be, the shipped ones included.
const SIZES: [usize; 5] = [0, 10, 100, 1_000, LARGEST];

/// Policies that a set may have.
const LARGEST: usize = 10_000;

/// Services that are asked about.
const SERVICES: usize = 1_000;

/// Agents that offer them.
const AGENTS: usize = 100;

/// Policies in one file.
const PER_FILE: usize = 100;

pub(super) fn measure(quick: bool) -> Result<Figures, Failure> {
    let (sets, questions) = if quick { (1, 5_000) } else { (3, 20_000) };
    let facts = facts();
    let mut figures = Figures::new();
    for policies in SIZES {
        let name = format!("decide.p{policies}");
        let sources = sources(policies);
        let (mut cold, mut warm) = (Latencies::new(), Latencies::new());
        let mut compiling = Latencies::new();
        for generation in 0..sets {
            let started = Instant::now();
            let bundle = PolicyBundle::compile(&sources, generation)
                .context(|| format!("compile {policies} policies"))?;
            compiling.record(started.elapsed());
            for number in 0..SERVICES {
                ask(
                    &bundle,
                    &facts,
                    &question(number, far_address(number)),
                    &mut cold,
                )?;
            }
            // Each service once more, from the addresses of the measured questions.
            let mut warming = Latencies::new();
            for number in 0..questions + SERVICES {
                let into = if number < SERVICES {
                    &mut warming
                } else {
                    &mut warm
                };
                ask(
                    &bundle,
                    &facts,
                    &question(number, near_address(number)),
                    into,
                )?;
            }
        }
        put_quantiles(&mut figures, &format!("{name}_cold"), &cold);
        put_quantiles(&mut figures, &format!("{name}_warm"), &warm);
        figures.insert(format!("{name}_compile_ms"), compiling.micros(0.5) / 1e3);
    }
    Ok(figures)
}

fn ask(
    bundle: &PolicyBundle,
    facts: &Facts,
    question: &Question,
    into: &mut Latencies,
) -> Result<(), Failure> {
    let started = Instant::now();
    let decision = bundle.decide(facts, question);
    into.record(started.elapsed());
    if decision.allow {
        Ok(())
    } else {
        Err(Failure::new(format!("a flow was denied: {decision:?}")))
    }
}

fn sources(policies: usize) -> Sources {
    let mut sources = shipped();
    let shipped: usize = sources.policies.iter().map(policies_in).sum();
    let numbers: Vec<usize> = (0..policies.min(LARGEST - shipped)).collect();
    for (file, numbers) in numbers.chunks(PER_FILE).enumerate() {
        let text: String = numbers.iter().map(|n| generated_policy(*n)).collect();
        let name = format!("generated-{file:02}.cedar");
        sources.policies.push(SourceFile::new(&name, text));
    }
    sources
}

/// Every shipped policy has an `@id`.
fn policies_in(file: &SourceFile) -> usize {
    file.text.matches("@id(").count()
}

fn question(number: usize, source_ip: IpAddr) -> Question {
    let service = number % SERVICES;
    Question::Open(Open {
        net: Net {
            source_ip,
            source_port: u16::try_from(1024 + number % 60_000).unwrap_or(u16::MAX),
            listener: Name::bare("public"),
            tls: None,
        },
        meta: Meta {
            now_ms: 1_795_248_000_000 + number as u64,
            hub: "hub-1".into(),
            request_id: format!("{number:032x}").into(),
            trace_id: None,
            recheck: false,
        },
        viewer: Viewer::Anonymous,
        connector: Name::bare(&format!("service-{service}")),
        agent: Name::bare(&format!("agent-{}", service % AGENTS)),
        open_flows: 3,
        via_mesh: false,
        signals: Signals::default(),
    })
}

/// One of 250 clients that come again and again.
fn near_address(number: usize) -> IpAddr {
    let host = u8::try_from(number % 250).unwrap_or(0);
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, host))
}

/// A client that comes once.
fn far_address(number: usize) -> IpAddr {
    let [.., high, low] = u32::try_from(number).unwrap_or(0).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(198, 18, high, low))
}

fn facts() -> Facts {
    let facts = Facts::new();
    for number in 0..SERVICES {
        let connector = Name::bare(&format!("service-{number}"));
        facts.put_connector(&ConnectorFacts::tcp(connector));
    }
    for number in 0..AGENTS {
        facts.put_agent(&AgentFacts {
            agent: Name::bare(&format!("agent-{number}")),
            scopes: (0..SERVICES / AGENTS)
                .map(|own| Name::bare(&format!("service-{}", number + own * AGENTS)))
                .collect(),
            ephemeral: false,
            token_expires_ms: u64::MAX,
            groups: vec!["prod".into()],
            tags: vec![("zone".to_owned(), "inner".to_owned())],
        });
    }
    facts.put_listener(&ListenerFacts {
        listener: Name::bare("public"),
        port: 10389,
        protocol: "tcp".to_owned(),
    });
    facts
}
