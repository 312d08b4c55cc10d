//! Three masters.

use super::Server;
use crate::wait::eventually;

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let nodes: Vec<_> = (0..3)
            .map(|_| Server::start(&["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]))
            .collect();
        let addresses: Vec<_> = nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        let mut create = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        create.extend(["--cluster-replicas", "0", "--cluster-yes"]);
        nodes[0].cli(&create);
        let whole = Self { nodes };
        whole.wait_until_ok().await;
        whole
    }

    /// Until every node says that all slots are served.
    pub(crate) async fn wait_until_ok(&self) {
        for node in &self.nodes {
            eventually("the cluster is whole", async || {
                let state = node.cli(&["CLUSTER", "INFO"]);
                state.contains("cluster_state:ok").then_some(())
            })
            .await;
        }
    }

    /// By two of its nodes; the client finds the third.
    pub(crate) fn url(&self) -> String {
        let [one, two, ..] = &self.nodes[..] else {
            unreachable!("three nodes")
        };
        format!(
            "redis+cluster://127.0.0.1:{},127.0.0.1:{}",
            one.port, two.port
        )
    }
}
