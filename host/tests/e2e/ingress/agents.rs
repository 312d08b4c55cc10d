//! Several agents behind one route: who is looked at, who is chosen, who keeps whom.

use super::{SHOP, web, web_hub, web_hub_with};
use crate::cluster::web::{Message, Origin, ask, get, origin, origin_at};
use crate::cluster::{HubPlan, TestAgent, TestHub, eventually};

const OFTEN: &str = "interval_ms: 100, timeout_ms: 2000, rise: 1, fall: 2";

#[tokio::test]
async fn an_agent_whose_target_is_down_is_not_chosen() {
    let route = format!("{SHOP}, balance: round_robin, retries: 0");
    let plan = checked(web_hub(&[&route]), "").admin();
    let (hub, [one, two], _agents) = two_agents(plan).await;
    let (address, seen) = (one.address(), two.seen().len());
    drop(one);
    down(&hub, 1).await;
    for _ in 0..6 {
        assert_eq!(get(web(&hub), "shop.example.com", "/").await.status(), 200);
    }
    assert_eq!(two.seen().len(), seen + 6);

    let status = hub.operator().status().await.unwrap().http;
    assert_eq!(status.listeners[0].address, web(&hub));
    let route = &status.routes[0];
    assert_eq!((route.agents, route.down), (2, 1));
    let agents = hub.operator().agents().await.unwrap().agents;
    let why = |agent: &str| {
        let agent = agents.iter().find(|status| status.agent == agent).unwrap();
        agent.connectors[0].down.clone()
    };
    assert_eq!(why("one").as_deref(), Some("connect_failed"));
    assert_eq!(why("two"), None);

    let one = origin_at(address, &[]).await;
    down(&hub, 0).await;
    for _ in 0..2 {
        assert_eq!(get(web(&hub), "shop.example.com", "/").await.status(), 200);
    }
    assert_eq!(one.seen().len(), 1);
}

#[tokio::test]
async fn a_target_has_to_answer_with_an_expected_status() {
    let failing = "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n";
    let origin = origin(&[("/healthz", failing)]).await;
    let http = ", http: {path: \"/healthz?deep=1\", host: shop.internal, status: [200]}";
    let mut hub = checked(web_hub(&[SHOP]), http).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    down(&hub, 1).await;
    let asked = &origin.seen()[0];
    assert_eq!(asked.first_line, "GET /healthz?deep=1 HTTP/1.1");
    assert_eq!(asked.field("host").as_deref(), Some("shop.internal"));
    let answer = get(web(&hub), "shop.example.com", "/").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (503, "endpoint_offline")
    );
    // Nobody looks any more, so nothing is known to be down.
    hub.clear_top();
    hub.rewrite(|plan| plan.top(&super::ingress(&[SHOP], "")));
    assert!(hub.reload().await.ok);
    eventually("it is chosen again", || async {
        get(web(&hub), "shop.example.com", "/").await.status() == 200
    })
    .await;
}

/// The head of an answer is the verdict: a page that streams is as good as any.
#[tokio::test]
async fn a_target_whose_page_does_not_end_is_up() {
    let endless = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n";
    let origin = origin(&[("/healthz", endless)]).await;
    let check = "interval_ms: 100, timeout_ms: 300, rise: 1, fall: 1, http: {path: /healthz}";
    let top = format!("connectors: {{shop: {{health_check: {{{check}}}}}}}");
    let hub = web_hub(&[SHOP]).top(&top).start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    eventually("it was looked at and is up", || async {
        let up = "nowconnect_health_checks_total{connector=\"shop\",result=\"up\"} ";
        let metrics = hub.metrics();
        let count = metrics.lines().find_map(|line| line.strip_prefix(up));
        count.is_some_and(|count| count.parse::<u64>().unwrap() > 2)
    })
    .await;
    let metrics = hub.metrics();
    assert!(
        metrics.contains("nowconnect_health_checks_total{connector=\"shop\",result=\"down\"} 0"),
        "{metrics}"
    );
}

/// An agent that comes back with a target that is down gets no request before its target answers.
#[tokio::test]
async fn what_is_down_stays_down_when_its_agent_comes_back() {
    let refusing = crate::cluster::refuse().await;
    let slow = "interval_ms: 100, fall: 50, rise: 50";
    let top = format!("connectors: {{shop: {{health_check: {{{slow}}}}}}}");
    let hub = web_hub(&[SHOP]).top(&top).start().await;
    let agent = hub.agent("one").target("shop", refusing).ready().await;
    // The first look decides, whatever `fall` is.
    down(&hub, 1).await;
    drop(agent);
    down(&hub, 0).await;
    let _agent = hub.agent("one").target("shop", refusing).ready().await;
    down(&hub, 1).await;
}

#[tokio::test]
async fn policies_are_asked_about_looks_and_a_denial_says_nothing_of_a_target() {
    let origin = origin(&[]).await;
    let hub = checked(web_hub(&[SHOP]), "")
        .policy_file(
            "no-looks.cedar",
            "@id(\"no-looks\")\n\
             forbid (principal, action == NowConnect::Action::\"upstream-open\", resource)\n\
             when { context.why == \"health\" };\n",
        )
        .start()
        .await;
    let _agent = hub.plant("shop", origin.address()).await;
    eventually("looks are refused", || async {
        let metrics = hub.metrics();
        let count = metrics.lines().find_map(|line| {
            line.strip_prefix(
                "nowconnect_health_checks_total{connector=\"shop\",result=\"not_asked\"} ",
            )
        });
        count.is_some_and(|count| count.parse::<u64>().unwrap() > 3)
    })
    .await;
    assert_eq!(origin.connections(), 0);
    assert_eq!(get(web(&hub), "shop.example.com", "/").await.status(), 200);
}

#[tokio::test]
async fn a_cookie_keeps_a_viewer_with_its_agent() {
    let route = format!("{SHOP}, balance: round_robin, sticky: cookie");
    let (hub, origins, agents) = two_agents(web_hub(&[&route])).await;
    let first = with(&hub, "x-a: 1").await;
    let cookie = first.field("set-cookie").unwrap();
    let pair = cookie.split(';').next().unwrap();
    assert!(pair.starts_with("nowconnect-agent-shop="), "{cookie}");
    assert!(cookie.contains("HttpOnly"), "{cookie}");
    for id in ["one", "two"] {
        assert!(!cookie.contains(id), "{cookie} names the agent");
    }
    let home = usize::from(origins[0].seen().is_empty());
    for _ in 0..5 {
        let answer = with(&hub, &format!("cookie: mine=1; {pair}")).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.field("set-cookie"), None);
    }
    assert_eq!(origins[home].seen().len(), 6);
    assert_eq!(
        origins[home].last().field("cookie").as_deref(),
        Some("mine=1")
    );
    // One that the hub has not made leads nowhere.
    let made_up = with(&hub, "cookie: nowconnect-agent-shop=one").await;
    assert!(made_up.field("set-cookie").is_some());

    let [one, two] = agents;
    let (gone, _kept) = if home == 0 { (one, two) } else { (two, one) };
    drop(gone);
    eventually("the agent has left", || async {
        hub.metrics().contains("\nnowconnect_tunnels 1\n")
    })
    .await;
    let before = origins[1 - home].seen().len();
    let moved = with(&hub, &format!("cookie: {pair}")).await;
    assert_eq!(moved.status(), 200);
    assert_eq!(origins[1 - home].seen().len(), before + 1);
    let next = moved.field("set-cookie").unwrap();
    assert!(!next.starts_with(pair), "{next}");
}

#[tokio::test]
async fn the_value_of_a_field_keeps_a_viewer_with_its_agent() {
    let route = format!("{SHOP}, balance: round_robin, sticky: {{header: x-session}}");
    let (hub, origins, _agents) = two_agents(web_hub(&[&route])).await;
    for session in 0..16 {
        let before = origins[0].seen().len();
        for _ in 0..3 {
            with(&hub, &format!("x-session: {session}")).await;
        }
        let taken = origins[0].seen().len() - before;
        assert!(taken == 0 || taken == 3, "session {session} was torn");
    }
    let taken = origins[0].seen().len();
    assert!(taken > 0 && taken < 48, "all sessions have one agent");
}

#[tokio::test]
async fn a_hosts_first_label_names_the_agent() {
    let route = "name: agents, host: \"*.agents.example.com\", agent_label: true, \
                 connector: http, public: true";
    let hub = web_hub_with(&[route], "agent_label: true").start().await;
    let (one, two, mute) = (origin(&[]).await, origin(&[]).await, origin(&[]).await);
    let _one = hub.agent("one").target("http", one.address()).ready().await;
    let _two = hub.agent("two").target("http", two.address()).ready().await;
    let _mute = hub
        .agent("mute")
        .target("other", mute.address())
        .ready()
        .await;
    for (host, origin) in [("one", &one), ("two", &two), ("ONE", &one)] {
        let before = origin.seen().len();
        let answer = get(web(&hub), &format!("{host}.agents.example.com"), "/").await;
        assert_eq!(answer.status(), 200, "{host}");
        assert_eq!(origin.seen().len(), before + 1, "{host}");
    }
    for host in ["three", "mute", "a.one", "one.two"] {
        let answer = get(web(&hub), &format!("{host}.agents.example.com"), "/").await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (404, "unknown_host"),
            "{host}"
        );
    }
    assert!(mute.seen().is_empty());
}

/// Who is nobody learns nothing of which agents there are.
#[tokio::test]
async fn who_is_nobody_does_not_learn_which_agents_are_connected() {
    let agents = "name: agents, host: \"*.agents.example.com\", agent_label: true, connector: http";
    let known = "name: known, host: \"*.known.example.com\", agent_label: true, connector: http, \
                 viewer_auth: staff";
    let more = "agent_label: true\nviewer_auth:\n  \
                - {name: staff, required: false, ways: [{basic: {users_file: users}}]}";
    let hub = web_hub_with(&[agents, known], more)
        .file("users", super::viewers::ANN)
        .start()
        .await;
    let service = origin(&[]).await;
    let _one = hub
        .agent("one")
        .target("http", service.address())
        .ready()
        .await;
    for (below, expected) in [
        ("agents", (404, "unknown_host")),
        ("known", (401, "sign_in_required")),
    ] {
        let mut told = Vec::new();
        for agent in ["one", "two"] {
            let answer = get(web(&hub), &format!("{agent}.{below}.example.com"), "/").await;
            assert_eq!(
                (answer.status(), answer.code().as_str()),
                expected,
                "{agent}"
            );
            let mut names: Vec<String> = answer.fields.iter().map(|f| f.0.clone()).collect();
            names.retain(|name| name != "date");
            told.push((answer.field("www-authenticate"), names, answer.body.len()));
        }
        assert_eq!(told[0], told[1], "{below}");
    }
    assert!(service.seen().is_empty());
}

/// What a cache keeps for all would lead all of them to one agent.
#[tokio::test]
async fn no_cookie_is_on_what_shared_caches_keep() {
    let answer = |control: &str| format!("HTTP/1.1 200 OK\r\n{control}content-length: 0\r\n\r\n");
    let service = origin(&[
        (
            "/logo.svg",
            &answer("cache-control: public, max-age=60\r\n"),
        ),
        ("/own", &answer("cache-control: private\r\n")),
        ("/page", &answer("")),
    ])
    .await;
    let route = format!("{SHOP}, sticky: cookie");
    let hub = web_hub(&[&route]).start().await;
    let _agent = hub.plant("shop", service.address()).await;
    for (path, has_cookie, control) in [
        ("/logo.svg", false, "public, max-age=60"),
        ("/own", true, "private"),
        ("/page", true, "no-cache=\"set-cookie\""),
    ] {
        let answer = get(web(&hub), "shop.example.com", path).await;
        assert_eq!(answer.field("set-cookie").is_some(), has_cookie, "{path}");
        assert_eq!(answer.field("cache-control").as_deref(), Some(control));
    }
}

fn checked(plan: HubPlan, more: &str) -> HubPlan {
    plan.top(&format!(
        "connectors: {{shop: {{health_check: {{{OFTEN}{more}}}}}}}"
    ))
}

async fn down(hub: &TestHub, targets: usize) {
    let line = format!("nowconnect_targets_down{{connector=\"shop\"}} {targets}\n");
    eventually(&format!("{targets} targets are down"), || async {
        hub.metrics().contains(&line)
    })
    .await;
}

async fn two_agents(plan: HubPlan) -> (TestHub, [Origin; 2], [TestAgent; 2]) {
    let origins = [origin(&[]).await, origin(&[]).await];
    let hub = plan.start().await;
    let one = hub.agent("one").target("shop", origins[0].address());
    let one = one.ready().await;
    let two = hub.agent("two").target("shop", origins[1].address());
    let two = two.ready().await;
    (hub, origins, [one, two])
}

async fn with(hub: &TestHub, field: &str) -> Message {
    let head = format!("GET / HTTP/1.1\r\nhost: shop.example.com\r\n{field}\r\n\r\n");
    ask(web(hub), head).await
}
