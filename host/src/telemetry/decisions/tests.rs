#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;

use super::*;

#[test]
fn the_newest_record_of_a_client_comes_first() {
    let ring = DecisionRing::default();
    let ids = DecisionIds::new(0xb007);
    for port in [5001, 5002, 5001] {
        ring.push(Arc::new(open(&ids, &format!("10.0.0.9:{port}"))));
    }
    ring.push(Arc::new(open(&ids, "10.0.0.8:5001")));
    let filter = DecisionFilter {
        client_ip: Some("::ffff:10.0.0.9".parse().unwrap()),
        ..DecisionFilter::default()
    };
    let ids_seen: Vec<String> = ring
        .recent(&filter, 10)
        .iter()
        .map(|record| record.decision_id.to_string())
        .collect();
    assert_eq!(ids_seen, ["b007-3", "b007-2", "b007-1"]);
    let filter = DecisionFilter {
        client_port: Some(5001),
        ..filter
    };
    assert_eq!(ring.recent(&filter, 1).len(), 1);
    assert_eq!(ring.recent(&filter, 10).len(), 2);
}

#[test]
fn a_record_is_found_by_its_id_until_it_is_forgotten() {
    let ring = DecisionRing::new(2, MAX_DECISION_BYTES);
    let ids = DecisionIds::new(1);
    let first = open(&ids, "10.0.0.9:1");
    let id = first.decision_id;
    ring.push(Arc::new(first));
    assert!(ring.by_id(id).is_some());
    ring.push(Arc::new(open(&ids, "10.0.0.9:1")));
    ring.push(Arc::new(open(&ids, "10.0.0.9:1")));
    assert!(ring.by_id(id).is_none());
    assert_eq!(ring.counts(), (2, 1));
}

#[test]
fn bytes_bound_the_ring_too() {
    let ids = DecisionIds::new(1);
    let weight = open(&ids, "10.0.0.9:1").weight_bytes();
    let ring = DecisionRing::new(1000, weight * 3);
    for _ in 0..10 {
        ring.push(Arc::new(open(&ids, "10.0.0.9:1")));
    }
    assert_eq!(ring.counts(), (3, 7));
}

#[test]
fn free_text_passes_the_floor() {
    let ids = DecisionIds::new(1);
    let mut record = open(&ids, "10.0.0.9:1");
    record.message = Some(String::from("pdp said Bearer s3cr3tvalue"));
    record.errors = vec![String::from("https://u:hunter2@pdp/ failed")];
    record.plugin = Some(PluginAnswer {
        name: "geo".into(),
        digest: None,
        code: String::from("geo_denied"),
        reason: Some(String::from("token=s3cr3tvalue")),
    });
    let json = serde_json::to_string(&record.redacted()).unwrap();
    assert!(
        !json.contains("s3cr3tvalue") && !json.contains("hunter2"),
        "{json}"
    );
}

#[test]
fn a_record_survives_its_json_but_for_the_question() {
    let ids = DecisionIds::new(0xfeed);
    let mut record = open(&ids, "[2001:db8::1]:443");
    record.question = Some(Question::new(Arc::new(7_u32)));
    let json = serde_json::to_value(&record).unwrap();
    assert_eq!(json["decision_id"], "feed-1");
    assert_eq!(json["action"], "open");
    assert_eq!(json["why"], "not_permitted");
    let back: DecisionRecord = serde_json::from_value(json).unwrap();
    assert_eq!(back.client, record.client);
    assert!(back.question.is_none());
    let question = record.question.unwrap();
    assert_eq!(question.downcast::<u32>().as_deref(), Some(&7));
    assert!(question.downcast::<String>().is_none());
}

#[test]
fn ids_that_are_none_are_refused() {
    for text in ["", "1", "-", "1-", "x-1", "1-2-3"] {
        assert!(text.parse::<DecisionId>().is_err(), "{text}");
    }
    let id: DecisionId = "18c2f-2f".parse().unwrap();
    assert_eq!(id.to_string(), "18c2f-2f");
}

fn open(ids: &DecisionIds, client: &str) -> DecisionRecord {
    let answer = (false, Why::NotPermitted);
    let mut record = DecisionRecord::new(
        ids.next_id(),
        1_700_000_000_000,
        "hub-1".into(),
        3,
        DecisionAction::Open,
        answer,
    );
    record.client = Some(client.parse().unwrap());
    record
}
