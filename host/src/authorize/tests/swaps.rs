//! What decisions rest on changes while they are under way.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::external::with_pdp;
use super::*;
use crate::pdp::tests::server::{Reply, Seen, Server, serve};

/// Set once the authorizer is there that the decision point is asked by.
type Later = Arc<OnceLock<Arc<Generations>>>;

/// A decision point during whose first `swaps` answers the policies are swapped for `next`.
async fn swapping(
    swaps: usize,
    next: &str,
    reply: impl Fn(usize, &Value) -> Value + Send + Sync + 'static,
) -> (At, Server) {
    let later = Later::default();
    let (generations, next) = (Arc::clone(&later), next.to_owned());
    let server = serve(move |number, seen: &Seen| {
        if number < swaps {
            let generations = generations.get().unwrap();
            let new = generations.next_number();
            generations.publish(Generation::new(new, bundle(&next, new), PluginSet::empty()));
        }
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        Reply::Json(reply(number, &body).to_string())
    })
    .await;
    let at = with_pdp(PERMIT, &server, |_| {});
    later.set(Arc::clone(&at.authorizer.generations)).unwrap();
    (at, server)
}

#[tokio::test]
async fn an_open_that_waited_across_a_swap_is_decided_by_the_new_generation_alone() {
    let allow = |_: usize, _: &Value| json!({"decision": true});
    let (at, server) = swapping(1, PERMIT, allow).await;
    let permit = open(&at, &identity()).await.unwrap();
    assert_eq!(permit.generation(), 2);
    assert_eq!(permit.stamp(), at.authorizer.generations.stamp());
    assert_eq!(
        server.seen().len(),
        2,
        "the answer under the old one counted"
    );
    let records = at.ring.recent(&DecisionFilter::default(), 10);
    let of: Vec<_> = records.iter().map(|record| record.generation).collect();
    assert_eq!(of, [2], "what counts for nothing leaves no record");

    let shut =
        "@id(\"shut\") forbid (principal, action == NowConnect::Action::\"open\", resource);";
    let (at, server) = swapping(1, shut, allow).await;
    let denial = open(&at, &identity()).await.unwrap_err();
    assert_eq!(denial.why, Why::Forbidden);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_decision_point_that_changes_its_mind_with_the_swap_is_heard() {
    let (at, _server) = swapping(1, PERMIT, |number, _| json!({"decision": number == 0})).await;
    let denial = open(&at, &identity()).await.unwrap_err();
    assert_eq!(denial.code, "pdp_denied");
    assert_eq!(at.ring.by_id(denial.decision).unwrap().generation, 2);
}

#[tokio::test]
async fn a_hello_that_waited_across_a_swap_is_asked_about_again_with_each_connector() {
    let narrower = "
        @id(\"p-hello\") permit (principal, action == NowConnect::Action::\"hello\", resource);
        @id(\"p-ldap\") permit (principal, action == NowConnect::Action::\"announce\",
                               resource == NowConnect::Connector::\"ldap\");";
    let all = |_: usize, body: &Value| {
        let asked = body["evaluations"].as_array().unwrap().len();
        json!({"evaluations": vec![json!({"decision": true}); asked]})
    };
    for reason in [HelloReason::New, HelloReason::Renew, HelloReason::Recheck] {
        let (at, server) = swapping(1, narrower, all).await;
        let identity = identity();
        let permit = hello_because(&at, &identity, "plant", reason)
            .await
            .unwrap();
        let accepted: Vec<_> = permit
            .accepted()
            .iter()
            .map(ConnectorName::as_str)
            .collect();
        assert_eq!(accepted, ["ldap"], "{reason:?}");
        assert_eq!(permit.refused()[0].code, "not_permitted");
        assert_eq!(permit.generation(), 2);
        assert_eq!(server.seen().len(), 2);
        let records = at.ring.recent(&DecisionFilter::default(), 10);
        assert!(
            records.iter().all(|record| record.generation == 2),
            "{records:?}"
        );
    }
}

#[tokio::test]
async fn a_hello_that_waited_while_scopes_became_required_is_held_to_them() {
    let policies = format!(
        "{PERMIT} @id(\"scopes\") forbid (principal, action == NowConnect::Action::\"announce\", \
         resource) when {{ context.scopesRequired }};"
    );
    for reason in [HelloReason::New, HelloReason::Renew, HelloReason::Recheck] {
        let later = Arc::new(OnceLock::<Arc<At>>::new());
        let asked_for = Arc::clone(&later);
        let server = serve(move |number, seen: &Seen| {
            if number == 0 {
                let at = asked_for.get().unwrap();
                at.authorizer.set_scopes_required(true);
                at.authorizer.generations.touch();
            }
            let body: Value = serde_json::from_str(&seen.body).unwrap();
            let reply = match body["evaluations"].as_array() {
                Some(asked) => json!({"evaluations": vec![json!({"decision": true}); asked.len()]}),
                None => json!({"decision": true}),
            };
            Reply::Json(reply.to_string())
        })
        .await;
        let at = Arc::new(with_pdp(&policies, &server, |_| {}));
        later.set(Arc::clone(&at)).ok().unwrap();
        let identity = identity();
        let permit = hello_because(&at, &identity, "plant", reason)
            .await
            .unwrap();
        assert!(permit.accepted().is_empty(), "{reason:?}");
        assert_eq!(permit.refused().len(), 2);
    }
}

#[tokio::test]
async fn who_is_overtaken_again_and_again_is_kept_out_with_a_code_of_its_own() {
    let (at, server) = swapping(usize::MAX, PERMIT, |_, body| {
        match body["evaluations"].as_array() {
            Some(asked) => json!({"evaluations": vec![json!({"decision": true}); asked.len()]}),
            None => json!({"decision": true}),
        }
    })
    .await;
    let denial = open(&at, &identity()).await.unwrap_err();
    assert_eq!((denial.code.as_ref(), denial.why), (CHANGING, Why::Limit));
    let attempts = usize::try_from(MAX_ATTEMPTS).unwrap();
    assert_eq!(server.seen().len(), attempts);
    assert!(!at.ring.by_id(denial.decision).unwrap().allow);
    let denial = hello(&at, &identity(), "plant").await.unwrap_err();
    assert_eq!(denial.code, CHANGING);
    let metrics = at.authorizer.metrics.render();
    for action in ["open", "hello"] {
        let line = format!("nowconnect_policy_decided_again_total{{action=\"{action}\"}} 3");
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn another_decision_point_is_a_change_like_another_generation() {
    let allows =
        serve(|_, _| Reply::Late(Duration::from_millis(200), "{\"decision\":true}".to_owned()))
            .await;
    let denies = serve(|_, _| Reply::Json("{\"decision\":false}".to_owned())).await;
    let at = with_pdp(PERMIT, &allows, |_| {});
    let other = with_pdp(PERMIT, &denies, |_| {});
    let identity = identity();
    let swapped = async {
        while allows.seen().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let denies = other.authorizer.pdp.swap(None);
        at.authorizer.pdp.store(denies);
        at.authorizer.generations.touch();
    };
    let (outcome, ()) = tokio::join!(open(&at, &identity), swapped);
    assert_eq!(outcome.unwrap_err().code, "pdp_denied");
}

#[tokio::test]
async fn what_ends_a_running_flow_is_what_is_in_force_when_it_ends() {
    let (at, server) = swapping(1, PERMIT, |number, _| json!({"decision": number > 0})).await;
    let flow = running_flow(&at);
    assert_eq!(at.authorizer.recheck(&flow, &identity()).await.unwrap(), 2);
    assert_eq!(server.seen().len(), 2);
}
