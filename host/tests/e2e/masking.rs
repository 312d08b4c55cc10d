//! What mask plugins do to the lines of a live hub.

use std::path::Path;

use crate::cluster::{HubPlan, echo, eventually, hub};

#[tokio::test]
async fn a_mask_plugin_covers_addresses_in_the_log_of_a_live_hub() {
    // The same story without the plugin shows that there is something to cover.
    let (clear, address) = log_of_one_client(hub()).await;
    assert!(
        clear.iter().any(|line| line.contains(&address)),
        "{clear:#?}"
    );

    let component =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/target/components/log-mask.wasm");
    let masked = hub().top(&format!(
        "plugins:\n  require_signature: false\n  list:\n    - name: log-mask\n      file: \"{}\"\n      grants: [config]\n      \
         limits: {{time_ms: 1000, wall_ms: 5000}}\n      config: {{ips: erase, emails: \"off\", tokens: erase}}",
        component.display()
    ));
    let (covered, address) = log_of_one_client(masked).await;
    let shown: Vec<&String> = covered
        .iter()
        .filter(|line| line.contains(&address))
        .collect();
    assert!(shown.is_empty(), "{shown:#?}");
    let closed = covered
        .iter()
        .find(|line| line.contains("\"connection closed\""))
        .unwrap();
    let closed: serde_json::Value = serde_json::from_str(closed).unwrap();
    assert!(closed["client"].is_string(), "{closed}");
    assert_eq!(closed["connector"], "echo", "{closed}");
    assert_eq!(closed["agent_id"], "plant", "{closed}");
}

/// What a hub logs until a client's flow has ended, and that client's address.
async fn log_of_one_client(plan: HubPlan) -> (Vec<String>, String) {
    let target = echo().await;
    let mut hub = plan.listener("echo").start_process().await;
    let agent = hub.plant("echo", target.address()).await;
    let mut client = hub.client("echo").await;
    let address = client.stream.local_addr().unwrap().to_string();
    client.echoes(b"hello").await;
    client.finish().await;
    assert!(client.rest().await.is_empty());
    let process = hub.process();
    eventually("the end of the flow is logged", || async {
        process
            .log()
            .iter()
            .any(|line| line.contains("\"connection closed\""))
    })
    .await;
    drop(agent);
    process.signal("TERM").await;
    assert!(process.ended().await.success());
    (process.log(), address)
}
