#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod external;
mod swaps;

use std::collections::BTreeMap;

use nowconnect_plugins::PluginSet;
use nowconnect_policy::{ConnectorFacts, ListenerFacts, PolicyBundle, SourceFile, Sources};
use nowconnect_protocol::{AgentId, FlowRef, ReplicaId};

use super::*;
use crate::flow_table::FlowEntry;
use crate::registry::{AgentKey, ConnectorKey};
use crate::telemetry::decisions::{DecisionFilter, DecisionRing};

#[tokio::test]
async fn an_allowed_open_gives_a_permit_and_a_record_under_its_id() {
    let at = authorizer(PERMIT);
    let permit = open(&at, &identity()).await.unwrap();
    let record = at.ring.by_id(permit.decision()).unwrap();
    assert!(record.allow);
    assert_eq!(record.why, Why::Permitted);
    assert_eq!(record.generation, 1);
    let digest = record.policy_digest.clone().unwrap();
    assert!(
        at.authorizer
            .generations
            .current()
            .policies()
            .digest()
            .starts_with(&*digest)
    );
    assert_eq!(record.policies[0].id.as_ref(), "p-open");
    assert!(record.question.is_some(), "it cannot be explained later");
    assert_eq!(permit.request_id().as_ref(), permit.decision().to_string());
}

#[tokio::test]
async fn a_denied_open_names_the_policy_its_code_and_its_advice() {
    let at = authorizer(
        "@id(\"p-open\") permit (principal, action == NowConnect::Action::\"open\", resource);
         @id(\"curfew\") @error(\"too_late\") @advice(\"come at nine\")
         forbid (principal, action == NowConnect::Action::\"open\", resource);",
    );
    let denial = open(&at, &identity()).await.unwrap_err();
    assert_eq!(denial.code, "too_late");
    assert_eq!(denial.message, "come at nine");
    assert_eq!(denial.by.as_deref(), Some("curfew"));
    assert_eq!(denial.why, Why::Forbidden);
    assert!(!at.ring.by_id(denial.decision).unwrap().allow);
}

#[tokio::test]
async fn expiry_comes_before_any_policy() {
    let at = authorizer(PERMIT);
    let mut old = identity();
    old.expires_at = SystemTime::now() - Duration::from_secs(1);
    let denial = open(&at, &old).await.unwrap_err();
    assert_eq!(denial.code, "token_expired");
    assert_eq!(denial.why, Why::Identity);
    let denial = hello(&at, &old, "plant").await.unwrap_err();
    assert_eq!(denial.code, "token_expired");
}

#[tokio::test]
async fn a_revoked_credential_is_denied_though_every_policy_permits() {
    let at = authorizer(PERMIT);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("revoked.jsonl");
    std::fs::write(&file, "{\"agent\":\"plant\",\"revoked_at\":1}\n").unwrap();
    at.authorizer
        .set_revocations(RevocationList::open(&file, 100).unwrap());
    let denial = open(&at, &identity()).await.unwrap_err();
    assert_eq!(denial.code, "revoked");
    let denial = hello(&at, &identity(), "plant").await.unwrap_err();
    assert_eq!(denial.code, "revoked");
    let flow = running_flow(&at);
    let denial = at.authorizer.recheck(&flow, &identity()).await.unwrap_err();
    assert_eq!(denial.code, "revoked");
    let record = at.ring.by_id(denial.decision).unwrap();
    assert_eq!(record.flow, Some(flow.flow_ref.to_string()));
}

#[tokio::test]
async fn a_hello_may_get_some_connectors_and_lose_others() {
    let at = authorizer(
        "@id(\"h\") permit (principal, action == NowConnect::Action::\"hello\", resource);
         @id(\"a\") permit (principal, action == NowConnect::Action::\"announce\",
                            resource == NowConnect::Connector::\"ldap\");",
    );
    let permit = hello(&at, &identity(), "plant").await.unwrap();
    assert_eq!(permit.accepted().len(), 1);
    assert_eq!(permit.accepted()[0].as_str(), "ldap");
    assert_eq!(permit.refused().len(), 1);
    assert_eq!(permit.refused()[0].connector.as_str(), "ssh");
    assert_eq!(permit.refused()[0].code, "not_permitted");
    // The hello and each connector leave a record of their own.
    let records = at.ring.recent(&DecisionFilter::default(), 10);
    assert_eq!(records.len(), 3);
    assert!(
        records
            .iter()
            .any(|record| record.decision_id.to_string() == permit.refused()[0].decision)
    );
}

#[tokio::test]
async fn a_claimed_id_that_policies_let_pass_is_refused_all_the_same() {
    // A policy with the id of a guard takes its place, and this one lets everything pass.
    let at = authorizer(
        "@id(\"hello-own-id\") permit (principal, action == NowConnect::Action::\"hello\", resource);",
    );
    let denial = hello(&at, &identity(), "somebody-else").await.unwrap_err();
    assert_eq!(denial.code, "agent_id_mismatch");
}

#[tokio::test]
async fn too_many_waiting_decisions_deny() {
    let at = authorizer(PERMIT);
    at.authorizer.pending.set_limit(0);
    let denial = hello(&at, &identity(), "plant").await.unwrap_err();
    assert_eq!(denial.code, "overloaded");
    assert_eq!(denial.why, Why::Limit);
}

#[tokio::test]
async fn an_agent_that_is_not_known_denies() {
    let at = authorizer(PERMIT);
    at.authorizer
        .facts()
        .remove_agent(&policy_name(&TenantName::default(), "plant"));
    let denial = open(&at, &identity()).await.unwrap_err();
    assert_eq!(denial.why, Why::Error);
}

const PERMIT: &str = "
    @id(\"p-hello\") permit (principal, action == NowConnect::Action::\"hello\", resource);
    @id(\"p-announce\") permit (principal, action == NowConnect::Action::\"announce\", resource);
    @id(\"p-open\") permit (principal, action == NowConnect::Action::\"open\", resource);
";

const CLIENT: &str = "192.0.2.7:4711";

struct At {
    authorizer: Authorizer,
    ring: Arc<DecisionRing>,
}

fn bundle(policies: &str, generation: u64) -> PolicyBundle {
    let sources = Sources {
        policies: vec![SourceFile {
            name: "test.cedar".to_owned(),
            text: policies.to_owned(),
        }],
        ..Sources::default()
    };
    PolicyBundle::compile(&sources, generation).unwrap()
}

fn authorizer(policies: &str) -> At {
    let bundle = bundle(policies, 1);
    let metrics = Metrics::new();
    let ring = Arc::new(DecisionRing::default());
    let facts = Facts::new();
    for (name, protocol) in [("front", "tcp"), (TUNNEL_LISTENER, "tunnel")] {
        facts.put_listener(&ListenerFacts {
            listener: Name::bare(name),
            port: 389,
            protocol: protocol.to_owned(),
        });
    }
    facts.put_connector(&ConnectorFacts::tcp(Name::bare("ldap")));
    let authorizer = Authorizer::new(AuthorizerParts {
        hub: Arc::from("hub"),
        facts: Arc::new(facts),
        generations: Arc::new(Generations::new(Generation::new(
            1,
            bundle,
            PluginSet::empty(),
        ))),
        revocations: RevocationList::empty(),
        pdp: None,
        scopes_required: false,
        log: DecisionLog::new(Arc::clone(&metrics), Arc::clone(&ring), None),
        requests: Arc::new(Requests::new(
            1 << 20,
            crate::telemetry::redact::Covers::default(),
        )),
        metrics,
        boot: 1,
    });
    authorizer
        .facts()
        .put_agent(&nowconnect_policy::AgentFacts {
            agent: Name::bare("plant"),
            scopes: Vec::new(),
            ephemeral: false,
            token_expires_ms: unix_ms(SystemTime::now()) + 60_000,
            groups: Vec::new(),
            tags: Vec::new(),
        });
    At { authorizer, ring }
}

fn identity() -> AgentIdentity {
    let now = SystemTime::now();
    AgentIdentity {
        tenant: TenantName::default(),
        agent_id: AgentId::parse("plant").unwrap(),
        issuer: Arc::from("https://idp.example"),
        subject: None,
        jti: None,
        issued_at: Some(now - Duration::from_secs(60)),
        expires_at: now + Duration::from_secs(60),
        scopes: None,
        tags: BTreeMap::new(),
        groups: Vec::new(),
        ephemeral: false,
    }
}

async fn open(at: &At, identity: &AgentIdentity) -> Result<OpenPermit, Denial> {
    at.authorizer
        .open(&OpenAsk {
            listener: &Name::bare("front"),
            listener_text: &Arc::from("front"),
            connector: &Name::bare("ldap"),
            connector_text: "ldap",
            tenant: &TenantName::default(),
            client: CLIENT.parse().unwrap(),
            identity,
            agent: &Name::bare("plant"),
            plugin_agent: &plugins::Agent::default(),
            open_flows: 0,
            pipeline_timeout: Duration::from_secs(1),
        })
        .await
}

async fn hello(at: &At, identity: &AgentIdentity, claimed: &str) -> Result<HelloPermit, Denial> {
    hello_because(at, identity, claimed, HelloReason::New).await
}

async fn hello_because(
    at: &At,
    identity: &AgentIdentity,
    claimed: &str,
    reason: HelloReason,
) -> Result<HelloPermit, Denial> {
    let connectors = ["ldap", "ssh"].map(|name| ConnectorName::parse(name).unwrap());
    at.authorizer
        .hello(&HelloAsk {
            identity,
            claimed_agent: &AgentId::parse(claimed).unwrap(),
            claimed_tenant: None,
            agent_version: "1.0",
            labels: &[],
            connectors: &connectors,
            remote: CLIENT.parse().unwrap(),
            replacing: false,
            reason,
            carry: None,
            pipeline_timeout: Duration::from_secs(1),
        })
        .await
}

fn running_flow(at: &At) -> FlowEntry {
    let tenant = TenantName::default();
    FlowEntry {
        flow_ref: FlowRef {
            origin: ReplicaId::parse("hub").unwrap(),
            boot: 1,
            number: 7,
        },
        agent: AgentKey {
            tenant: tenant.clone(),
            agent: AgentId::parse("plant").unwrap(),
        },
        connector: ConnectorKey {
            tenant,
            name: ConnectorName::parse("ldap").unwrap(),
        },
        listener: Arc::from("front"),
        client: Some(CLIENT.parse().unwrap()),
        decision: at.authorizer.ids.next_id(),
        question: Arc::new(open_question(at)),
        generation: 1.into(),
        asked: 0.into(),
        opened: Instant::now(),
        opened_at: SystemTime::now(),
        acknowledged: true.into(),
        is_condemned: false.into(),
        is_insisted: false.into(),
        bytes_c2a: 0.into(),
        bytes_a2c: 0.into(),
    }
}

fn open_question(at: &At) -> Question {
    Question::Open(nowconnect_policy::Open {
        net: net(CLIENT.parse().unwrap(), Name::bare("front")),
        meta: at.authorizer.meta(SystemTime::now(), &Arc::from("r")),
        viewer: nowconnect_policy::Viewer::Anonymous,
        connector: Name::bare("ldap"),
        agent: Name::bare("plant"),
        open_flows: 0,
        via_mesh: false,
        signals: Signals::default(),
    })
}

/// The bound of the plugins' chain and the frame's own bound are kept in two crates.
#[test]
fn what_plugins_may_attach_fits_one_open_with_the_longest_names() {
    use nowconnect_plugins::{
        ATTRIBUTE_OVERHEAD_BYTES, MAX_CHAIN_ATTRIBUTE_BYTES, MAX_CHAIN_ATTRIBUTES,
    };
    use nowconnect_protocol::frame::{Frame, Open, decode, encode};
    use nowconnect_protocol::{ConnectorName, FlowKind, FlowRef, ReplicaId};

    let each = MAX_CHAIN_ATTRIBUTE_BYTES / MAX_CHAIN_ATTRIBUTES - ATTRIBUTE_OVERHEAD_BYTES;
    let name = "n".repeat(80);
    let open = Open {
        cid: u32::MAX,
        flow_ref: FlowRef {
            origin: ReplicaId::parse(&"r".repeat(ReplicaId::MAX_BYTES)).unwrap(),
            boot: u64::MAX,
            number: u64::MAX,
        },
        connector: ConnectorName::parse(&"c".repeat(ConnectorName::MAX_BYTES)).unwrap(),
        kind: FlowKind::Tcp,
        client_address: Some("[2001:db8:1111:2222:3333:4444:5555:6666]:65535".to_owned()),
        trace_parent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        metadata: vec![(name.clone(), "v".repeat(each - name.len())); MAX_CHAIN_ATTRIBUTES],
        proxy_protocol: Some(nowconnect_protocol::ProxyProtocol::V2),
    };
    let mut bytes = bytes::BytesMut::new();
    encode(&Frame::Open(Box::new(open.clone())), &mut bytes);
    let Some(Frame::Open(read)) = decode(&mut bytes.freeze()).unwrap() else {
        panic!("another frame");
    };
    assert_eq!(*read, open);
}
