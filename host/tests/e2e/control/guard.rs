//! What one host, one web page or one lost secret may cost others.

use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::{anonymous, ask_token, control_hub, open_hub};

/// More than one host gets; what is over is cut, and the others wait for nobody.
const TOO_MANY: usize = 20;

#[tokio::test]
async fn one_host_does_not_get_every_connection() {
    let hub = open_hub().start().await;
    let mut idle = Vec::new();
    for _ in 0..TOO_MANY {
        idle.push(TcpStream::connect(hub.control_address()).await.unwrap());
    }
    // The last one is told so at once, not after the time for a head.
    let mut last = idle.pop().unwrap();
    let mut byte = [0];
    assert!(matches!(last.read(&mut byte).await, Ok(0) | Err(_)));
    let first = idle.swap_remove(0);
    let waits = first.try_read(&mut byte).unwrap_err();
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock);
    drop((idle, first));
}

#[tokio::test]
async fn a_web_page_of_another_host_gets_nothing() {
    let hub = open_hub().start().await;
    let caller = anonymous(&hub);
    let ask = async |origin: &str| {
        let fields = [("origin", origin)];
        let wish = json!({});
        caller
            .call("POST", "/tunnels/create", &fields, Some(&wish))
            .await
    };
    let foreign = ask("http://evil.example:8766").await;
    assert_eq!((foreign.status, foreign.code()), (403, "foreign_origin"));
    assert_eq!(ask("http://127.0.0.1:8766").await.status, 201);
}

#[tokio::test]
async fn who_shows_nothing_that_counts_gives_his_place_back() {
    let hub = control_hub("").start().await;
    let wrong = ask_token(&hub, "ops", "0123456789abcdef0123456789abcdef").await;
    assert_eq!((wrong.status, wrong.code()), (401, "unauthenticated"));
    assert_eq!(wrong.message.field("connection").as_deref(), Some("close"));
}
