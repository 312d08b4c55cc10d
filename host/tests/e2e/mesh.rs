//! Links between hubs, from the configuration to the metrics.

use std::sync::Arc;

use nowconnect::registry::MemoryRegistry;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

use crate::cluster::{HubPlan, TestHub, eventually, hub};

/// An authority for hubs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key of a hub.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let address = "127.0.0.1".parse().unwrap();
        params.subject_alt_names.push(SanType::IpAddress(address));
        let uri = format!("nowconnect://replica/{name}");
        let uri = uri.as_str().try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.0).unwrap();
        (signed.pem(), key.serialize_pem())
    }

    /// A hub of this name, with a port of the mesh's own.
    fn plan(&self, name: &str, mode: &str, mesh: &str) -> HubPlan {
        let (certificate, key) = self.sign(name);
        hub()
            .listener("echo")
            .file("ca.pem", self.0.pem())
            .file("mesh.pem", certificate)
            .file("mesh.key", key)
            .policy_file("mesh.cedar", MESH)
            .top(&ha(name, mode, mesh))
    }
}

/// Lets hubs link.
const MESH: &str = r#"
@id("mesh")
permit (principal is NowConnect::Node, action in NowConnect::Action::"mesh", resource);
"#;

fn ha(name: &str, mode: &str, mesh: &str) -> String {
    format!(
        "ha:\n  enabled: true\n  mode: {mode}\n  replica_id: {name}\n  mesh:\n    \
         listen: \"127.0.0.1:0\"\n    require_mtls: true\n    connect_backoff_max_sec: 1\n    \
         tls: {{ca_bundle: ca.pem, cert_file: mesh.pem, key_file: mesh.key}}\n    {mesh}\n"
    )
}

fn url(hub: &TestHub) -> String {
    format!("wss://{}/mesh", hub.running().mesh_address().unwrap())
}

fn state(hub: &TestHub, peer: &str) -> Option<String> {
    let links = hub.running().cluster().links;
    let link = links.into_iter().find(|link| link.peer == peer);
    link.map(|link| link.state)
}

async fn established(hub: &TestHub, peer: &str) {
    eventually("a link stands", || async {
        state(hub, peer).as_deref() == Some("established")
    })
    .await;
}

#[tokio::test]
async fn hubs_link_by_configuration_are_measured_and_leave_with_a_word() {
    let authority = Authority::new();
    let mut b = authority.plan("hub-b", "shadow", "peers: []").start().await;
    let peers = format!("peers: [\"{}\"]", url(&b));
    let a = authority.plan("hub-a", "shadow", &peers).start().await;
    established(&a, "hub-b").await;
    established(&b, "hub-a").await;
    eventually("the round trip is measured", || async {
        let page = a.metrics();
        let counted = |line: &str| page.lines().any(|found| found.starts_with(line));
        counted("nowconnect_mesh_links{peer=\"hub-b\",state=\"established\"} 1")
            && counted("nowconnect_mesh_rtt_seconds_count{peer=\"hub-b\"} ")
            && counted("nowconnect_mesh_frames_total{dir=\"in\",type=\"M_PONG\"} ")
            && counted("nowconnect_certificate_not_after_seconds{certificate=\"mesh\"} ")
    })
    .await;
    assert!(!a.metrics().contains("nowconnect_mesh_link_errors_total{"));

    b.take_running().shutdown().await;
    eventually("the link is gone", || async {
        state(&a, "hub-b").as_deref() != Some("established")
    })
    .await;
}

#[tokio::test]
async fn hubs_find_each_other_in_the_registry_and_link_over_the_tunnel_port() {
    let authority = Authority::new();
    let registry = Arc::new(MemoryRegistry::default());
    let allow = "discovery: {allow: [\"localhost\"]}";
    let b = authority.plan("hub-b", "active", allow).tls();
    let mut b = b.registry(registry.clone()).start().await;
    // It is known only now where its port is.
    let advertise = format!(
        "advertise: \"wss://localhost:{}/mesh\"",
        b.tunnel_address().port()
    );
    b.clear_top();
    b.rewrite(|plan| plan.top(&ha("hub-b", "active", &advertise)));
    let report = b.reload().await;
    assert!(report.errors.is_empty(), "{report:?}");

    // The tunnel port has a certificate of its own: whoever dials it has to trust that too.
    let tunnel_ca = std::fs::read_to_string(b.path("hub.pem")).unwrap();
    let a = authority
        .plan("hub-a", "active", allow)
        .file("ca.pem", authority.0.pem() + &tunnel_ca);
    let a = a.registry(registry).start().await;
    established(&a, "hub-b").await;
    established(&b, "hub-a").await;
    let (code, body) = a.get("/readyz").await;
    assert_eq!(code, 200, "{body}");
    assert!(!body.contains("mesh_missing"), "{body}");
    drop(b);
    // It is present for as long as nobody has missed it, and not linked.
    eventually("the mesh is missing", || async {
        a.get("/readyz").await.1.contains("mesh_missing")
    })
    .await;
}

#[tokio::test]
async fn links_follow_a_reload_and_bad_files_change_nothing() {
    let authority = Authority::new();
    let b = authority.plan("hub-b", "shadow", "peers: []").start().await;
    let peers = format!("peers: [\"{}\"]", url(&b));
    let mut a = authority.plan("hub-a", "shadow", &peers).start().await;
    established(&a, "hub-b").await;

    // A certificate of another hub is refused, and the link stands.
    let (certificate, key) = authority.sign("hub-z");
    std::fs::write(a.path("mesh.pem"), certificate).unwrap();
    std::fs::write(a.path("mesh.key"), key).unwrap();
    a.clear_top();
    a.rewrite(|plan| {
        plan.top(&ha(
            "hub-a",
            "shadow",
            &format!("{peers}\n    send_queue_depth: 900"),
        ))
    });
    let report = a.reload().await;
    let told = report.errors.concat();
    assert!(
        told.contains("`ha.mesh.tls`") && told.contains("hub `hub-z`"),
        "{told}"
    );
    established(&a, "hub-b").await;

    let (certificate, key) = authority.sign("hub-a");
    std::fs::write(a.path("mesh.pem"), certificate).unwrap();
    std::fs::write(a.path("mesh.key"), key).unwrap();
    assert!(a.reload().await.errors.is_empty());
    established(&a, "hub-b").await;

    // Off and on again.
    a.clear_top();
    a.rewrite(|plan| plan.top(&ha("hub-a", "off", &peers)));
    assert!(a.reload().await.errors.is_empty());
    eventually("the link is closed", || async {
        state(&b, "hub-a").as_deref() != Some("established")
            && a.running().cluster().links.is_empty()
    })
    .await;
    a.clear_top();
    a.rewrite(|plan| plan.top(&ha("hub-a", "shadow", &peers)));
    assert!(a.reload().await.errors.is_empty());
    established(&a, "hub-b").await;
}

#[tokio::test]
async fn a_hub_that_the_policies_do_not_want_gets_no_link() {
    let authority = Authority::new();
    let b = authority.plan("hub-b", "shadow", "peers: []").start().await;
    b.write_policy(
        "mesh.cedar",
        &MESH.replace(
            "resource);",
            "resource) unless { principal == NowConnect::Node::\"hub-a\" };",
        ),
    );
    assert!(b.reload().await.errors.is_empty());
    let peers = format!("peers: [\"{}\"]", url(&b));
    let a = authority.plan("hub-a", "shadow", &peers).start().await;
    eventually("it is told so", || async {
        a.metrics()
            .contains("nowconnect_mesh_link_errors_total{peer=\"hub-b\"} ")
    })
    .await;
    let denied = b
        .decisions()
        .iter()
        .any(|record| !record.allow && record.principal.contains("hub-a"));
    assert!(denied);
    let c = authority.plan("hub-c", "shadow", &peers).start().await;
    established(&c, "hub-b").await;
}
