//! What is left of decisions: the decision log, and requests to try against other policies.

use nowconnect::admin::RequestQuery;
use nowconnect_policy::{PolicyBundle, Sources};
use serde_json::Value;

use crate::cluster::{SOON, echo, forbid_open, hub};

#[tokio::test]
async fn every_decision_is_a_line_and_a_moved_file_is_begun_anew() {
    let hub = hub()
        .listener("echo")
        .listener("shut")
        .policy_file("shut.cedar", &forbid_open("shut"))
        .observability("decision_log: {file: decisions.jsonl}")
        .start()
        .await;
    let target = echo().await;
    let address = target.address();
    let agent = hub
        .agent("plant")
        .target("echo", address)
        .target("shut", address);
    let _agent = agent.ready().await;
    hub.client("echo").await.echoes(b"hello").await;
    hub.client("shut").await.is_closed().await;
    let path = hub.path("decisions.jsonl");
    let lines = until_lines(&path, |lines| {
        let seen = |action: &str, allow: bool| {
            lines
                .iter()
                .any(|line| line["action"] == action && line["allow"] == allow)
        };
        seen("hello", true) && seen("open", true) && seen("open", false)
    })
    .await;
    let deny = lines.iter().find(|line| line["allow"] == false).unwrap();
    assert_eq!(deny["record"], "decision");
    assert_eq!(deny["code"], "closed_today");
    assert_eq!(deny["policies"][0]["id"], "no-shut");
    assert!(
        deny["policies"][0]["place"]
            .as_str()
            .unwrap()
            .contains("shut.cedar:")
    );
    let old = hub.path("decisions.jsonl.1");
    std::fs::rename(&path, &old).unwrap();
    assert!(hub.reload().await.ok);
    hub.client("echo").await.echoes(b"again").await;
    until_lines(&path, |lines| {
        lines.iter().any(|line| line["action"] == "open")
    })
    .await;
}

#[tokio::test]
async fn what_was_asked_can_be_tried_against_other_policies() {
    let hub = hub().listener("echo").admin().start().await;
    let target = echo().await;
    let address = target.address();
    let _agent = hub.agent("plant").target("echo", address).ready().await;
    for _ in 0..3 {
        hub.client("echo").await.echoes(b"hello").await;
    }
    let page = hub
        .operator()
        .requests(&RequestQuery::default())
        .await
        .unwrap();
    let open = page
        .requests
        .iter()
        .find(|request| request.request["action"].as_str().unwrap().contains("open"))
        .unwrap();
    assert_eq!((open.decision.as_str(), open.count), ("allow", 3));
    assert_eq!(open.reason, ["base-open"]);
    // The policies in force say the same, others something else.
    let folder = tempfile::tempdir().unwrap();
    let json = serde_json::to_string(&page.requests).unwrap();
    std::fs::write(folder.path().join("recorded.json"), json).unwrap();
    let tried = |policies: &std::path::Path| {
        let sources = Sources::from_dir(policies).unwrap();
        let bundle = PolicyBundle::compile(&sources, 1).unwrap();
        nowconnect_policy::run_cases(&bundle, folder.path()).unwrap()
    };
    let report = tried(&hub.path("policies"));
    assert_eq!(report.failed(), 0, "{report:?}");
    hub.write_policy("shut.cedar", &forbid_open("echo"));
    assert_eq!(tried(&hub.path("policies")).failed(), 1);
}

async fn until_lines(path: &std::path::Path, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let look = async {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<Value> = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect();
            if enough(&lines) {
                return lines;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, look).await.unwrap()
}
