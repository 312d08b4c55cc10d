//! The external decision point within the pipeline.

use serde_json::{Value, json};

use super::*;
use crate::config::{CloudConfig, PdpConfig, PdpKind, PdpOnError, PdpRecheck};
use crate::pdp::tests::server::{Reply, Server, serve};

#[tokio::test]
async fn it_is_asked_what_policies_allow_and_its_deny_counts() {
    let server = serve(|_, _| {
        let context = json!({"reason_admin": "rule 7", "reason_user": {"en": "ask your boss"}});
        Reply::Json(json!({"decision": false, "context": context}).to_string())
    })
    .await;
    let at = with_pdp(PERMIT, &server, |_| {});
    let denial = open(&at, &identity()).await.unwrap_err();
    assert_eq!(denial.code, "pdp_denied");
    assert_eq!(denial.why, Why::Pdp);
    assert_eq!(denial.message, "ask your boss");
    let record = at.ring.by_id(denial.decision).unwrap();
    let pdp = record.pdp.clone().unwrap();
    assert!(!pdp.allow && !pdp.cached);
    assert_eq!(pdp.reason.as_deref(), Some("rule 7"));
    assert_eq!(
        record.policies[0].id.as_ref(),
        "p-open",
        "the policies did allow it"
    );
    let seen = &server.seen()[0];
    assert_eq!(
        seen.header("x-request-id"),
        Some(denial.decision.to_string().as_str())
    );
    let body: Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(body["subject"]["type"], "Viewer");
    assert_eq!(body["subject"]["id"], "anonymous");
    assert_eq!(body["action"]["name"], "open");
    assert_eq!(body["resource"]["type"], "Connector");
    assert_eq!(body["resource"]["id"], "ldap");
    assert_eq!(body["resource"]["properties"]["protocol"], "tcp");
    let context = &body["context"];
    assert_eq!(context["net"]["srcIp"], "192.0.2.7");
    assert_eq!(context["net"]["listener"]["id"], "front");
    assert_eq!(context["agent"]["type"], "Agent");
    assert_eq!(context["agent"]["id"], "plant");
    assert!(
        context["agent"]["properties"]["tenant"].is_object(),
        "{body}"
    );
    assert_eq!(context["hub"], "hub");
    // What differs for each client is left out, so that equal questions are equal.
    assert!(context["net"].get("srcPort").is_none());
    assert!(context.get("meta").is_none() && context.get("openFlows").is_none());
}

#[tokio::test]
async fn what_policies_deny_is_never_put_to_it() {
    let server = serve(|_, _| Reply::Json("{\"decision\":true}".to_owned())).await;
    let at = with_pdp(
        "@id(\"only-hello\") permit (principal, action == NowConnect::Action::\"hello\", resource);",
        &server,
        |_| {},
    );
    let denial = open(&at, &identity()).await.unwrap_err();
    assert_eq!(denial.why, Why::NotPermitted);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_hello_is_one_batch_of_what_policies_accept() {
    let server = serve(|_, seen| {
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        let answers: Vec<Value> = body["evaluations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|asked| json!({"decision": asked["resource"]["id"] != "ssh"}))
            .collect();
        Reply::Json(json!({"evaluations": answers}).to_string())
    })
    .await;
    let at = with_pdp(PERMIT, &server, |_| {});
    let permit = hello(&at, &identity(), "plant").await.unwrap();
    assert_eq!(permit.accepted().len(), 1);
    assert_eq!(permit.accepted()[0].as_str(), "ldap");
    assert_eq!(permit.refused()[0].code, "pdp_denied");
    assert_eq!(server.seen().len(), 1);
    let id = permit.refused()[0].decision.parse().unwrap();
    assert!(!at.ring.by_id(id).unwrap().pdp.clone().unwrap().allow);
}

#[tokio::test]
async fn a_hello_that_it_denies_is_refused_whole() {
    let server = serve(|_, seen| {
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        let answers: Vec<Value> = body["evaluations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|asked| json!({"decision": asked["action"]["name"] != "hello"}))
            .collect();
        Reply::Json(json!({"evaluations": answers}).to_string())
    })
    .await;
    let at = with_pdp(PERMIT, &server, |_| {});
    let denial = hello(&at, &identity(), "plant").await.unwrap_err();
    assert_eq!(denial.code, "pdp_denied");
}

#[tokio::test]
async fn an_agent_that_is_asked_about_again_stays_in_trouble_and_goes_on_a_deny() {
    let server = serve(|number, seen| {
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        let asked = body["evaluations"].as_array().unwrap().len();
        match number {
            0 => Reply::Json("trouble".to_owned()),
            _ => Reply::Json(
                json!({"evaluations": vec![json!({"decision": false}); asked]}).to_string(),
            ),
        }
    })
    .await;
    let at = with_pdp(PERMIT, &server, |_| {});
    let ask = async || {
        let identity = identity();
        hello_because(&at, &identity, "plant", HelloReason::Recheck).await
    };
    assert_eq!(ask().await.unwrap().accepted().len(), 2);
    assert_eq!(ask().await.unwrap_err().code, "pdp_denied");
}

#[tokio::test]
async fn the_simple_form_is_asked_about_connecting_only() {
    let server = serve(|_, _| Reply::Json("{\"allow\":true,\"ttl_sec\":5}".to_owned())).await;
    let at = with_pdp(PERMIT, &server, |config| config.kind = PdpKind::Simple);
    hello(&at, &identity(), "plant").await.unwrap();
    assert!(server.seen().is_empty());
    open(&at, &identity()).await.unwrap();
    let permit = open(&at, &identity()).await.unwrap();
    assert!(
        at.ring
            .by_id(permit.decision())
            .unwrap()
            .pdp
            .clone()
            .unwrap()
            .cached
    );
    assert_eq!(server.seen().len(), 1);
    let body: Value = serde_json::from_str(&server.seen()[0].body).unwrap();
    let expected = json!({
        "subject": {"agent_id": "plant"},
        "action": "connect",
        "resource": {"type": "connector", "id": "ldap"},
        "context": {"replica_id": "hub", "aud": CloudConfig::default().pdp.audience},
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_running_flow_is_asked_about_and_trouble_alone_does_not_end_it() {
    let server = serve(|number, _| match number {
        0 => Reply::Json("{\"decision\":false}".to_owned()),
        _ => Reply::Json("trouble".to_owned()),
    })
    .await;
    let ask = async |at: &At| {
        let (flow, identity) = (running_flow(at), identity());
        at.authorizer.recheck(&flow, &identity).await
    };
    let at = with_pdp(PERMIT, &server, |_| {});
    assert_eq!(ask(&at).await.unwrap_err().code, "pdp_denied");
    assert!(ask(&at).await.is_ok(), "trouble ended a running flow");
    let strict = with_pdp(PERMIT, &server, |config| {
        config.recheck = PdpRecheck::CloseOnError;
    });
    assert_eq!(ask(&strict).await.unwrap_err().code, "pdp_unavailable");
    let asked = server.seen().len();
    let off = with_pdp(PERMIT, &server, |config| config.recheck = PdpRecheck::Off);
    assert!(ask(&off).await.is_ok());
    assert_eq!(server.seen().len(), asked);
}

/// A question about an agent that nobody knows: it cannot be stated, whatever the policies say.
fn unstatable(at: &At) -> Question {
    let Question::Open(open) = open_question(at) else {
        panic!("another question");
    };
    Question::Open(nowconnect_policy::Open {
        agent: Name::bare("nobody"),
        ..open
    })
}

#[tokio::test]
async fn a_running_flow_whose_question_cannot_be_stated_goes_on_unless_trouble_is_to_end_it() {
    let server = serve(|_, _| Reply::Json("{\"decision\":true}".to_owned())).await;
    let at = with_pdp(PERMIT, &server, |_| {});
    let mut asking = Asking::begin(&at.authorizer);
    let question = unstatable(&at);
    let kept = at.authorizer.recheck_external(&mut asking, &question);
    assert!(kept.await.is_ok(), "it ended for a fault of the hub");
    let strict = with_pdp(PERMIT, &server, |config| {
        config.recheck = PdpRecheck::CloseOnError;
    });
    let mut asking = Asking::begin(&strict.authorizer);
    let question = unstatable(&strict);
    let ended = strict.authorizer.recheck_external(&mut asking, &question);
    assert_eq!(ended.await.unwrap_err().code, "pdp_unavailable");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_question_that_cannot_be_stated_fails_alone_and_is_never_allowed_instead() {
    let server = serve(|_, seen| {
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        Reply::Json(
            match body["evaluations"].as_array() {
                Some(asked) => {
                    json!({"evaluations": vec![json!({"decision": false}); asked.len()]})
                }
                None => json!({"decision": false}),
            }
            .to_string(),
        )
    })
    .await;
    let at = with_pdp(PERMIT, &server, |config| {
        config.on_error = PdpOnError::Allow;
    });
    let (good, bad) = (open_question(&at), unstatable(&at));
    for again in [false, true] {
        let mut asking = Asking::begin(&at.authorizer);
        let asked = [&bad, &good];
        let answers = at.authorizer.hello_external(&mut asking, &asked, again);
        let [of_bad, of_good]: [pdp::Answer; 2] = answers.await.unwrap().try_into().unwrap();
        assert_eq!(of_bad.allow, again, "{of_bad:?}");
        assert!(of_bad.failed);
        assert_eq!((of_good.allow, of_good.code), (false, "pdp_denied"));
    }
    let mut asking = Asking::begin(&at.authorizer);
    let pdp = at.authorizer.pdp().unwrap();
    let open = at.authorizer.open_external(&mut asking, &pdp, &bad);
    assert_eq!(open.await.unwrap_err().code, "pdp_unavailable");
}

pub(super) fn with_pdp(policies: &str, server: &Server, change: impl FnOnce(&mut PdpConfig)) -> At {
    let at = authorizer(policies);
    let mut config = CloudConfig::default();
    config.pdp.url = Some(server.url.parse().unwrap());
    config.pdp.timeout = Duration::from_secs(10);
    change(&mut config.pdp);
    let pdp = Pdp::new(&config.pdp, &at.authorizer.metrics).unwrap();
    at.authorizer.set_pdp(pdp);
    at
}
