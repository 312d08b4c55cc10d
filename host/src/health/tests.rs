#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use tower_service::Service as _;

use super::*;

#[tokio::test]
async fn healthz_answers_the_published_body() {
    let (status, body) = ask(Readiness::Starting, "/healthz").await;
    assert_eq!(
        (status, body.as_str()),
        (StatusCode::OK, r#"{"status":"ok"}"#)
    );
}

#[tokio::test]
async fn readyz_says_why_and_only_by_code() {
    let degraded = Readiness::serving(vec![
        reason(ReasonCode::PluginQuarantined, "geo"),
        reason(ReasonCode::BundleStale, "secret path"),
        reason(ReasonCode::PluginQuarantined, "mask"),
    ]);
    let (status, body) = ask(degraded, "/readyz").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        r#"{"status":"degraded","reasons":["bundle_stale","plugin_quarantined"]}"#
    );
}

#[tokio::test]
async fn readyz_takes_traffic_away_before_and_after_serving() {
    for (readiness, status, word) in [
        (Readiness::serving(Vec::new()), StatusCode::OK, "ready"),
        (
            Readiness::Starting,
            StatusCode::SERVICE_UNAVAILABLE,
            "starting",
        ),
        (
            Readiness::Draining,
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
        ),
    ] {
        let (seen, body) = ask(readiness, "/readyz").await;
        assert_eq!(seen, status);
        assert_eq!(body, format!(r#"{{"status":"{word}"}}"#));
    }
}

#[tokio::test]
async fn metrics_are_served_only_where_mounted() {
    let (status, _) = ask(Readiness::Ready, "/metrics").await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let routes = HealthRoutes::new(Arc::new(Fixed(Readiness::Ready))).with_metrics(Metrics::new());
    let (status, body) = send(routes, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("nowconnect_tcp_active_connections 0"));
}

#[test]
fn the_codes_of_reasons_are_their_json_names() {
    for code in ReasonCode::ALL {
        let json = serde_json::to_string(&code).unwrap();
        assert_eq!(json, format!("\"{}\"", code.as_str()));
    }
}

struct Fixed(Readiness);

impl ReadyState for Fixed {
    fn readiness(&self) -> Readiness {
        self.0.clone()
    }
}

fn reason(code: ReasonCode, detail: &str) -> Reason {
    Reason {
        code,
        detail: detail.to_owned(),
    }
}

async fn ask(readiness: Readiness, path: &str) -> (StatusCode, String) {
    send(HealthRoutes::new(Arc::new(Fixed(readiness))), path).await
}

async fn send(routes: HealthRoutes, path: &str) -> (StatusCode, String) {
    let mut router: Router = routes.into_router();
    let request = Request::get(path).body(Body::empty()).unwrap();
    let answer = router.call(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
