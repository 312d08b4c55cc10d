//! A master, a replica, and three Sentinels that watch them.

use super::Server;
use crate::wait::eventually;

/// Under which the Sentinels know the master.
const MASTER: &str = "registry";

pub(crate) struct Sentinels {
    pub(crate) master: Server,
    pub(crate) replica: Server,
    pub(crate) sentinels: Vec<Server>,
}

impl Sentinels {
    pub(crate) async fn start() -> Self {
        let master = Server::start(&["--repl-diskless-sync-delay", "0"]);
        let port = master.port.to_string();
        let replica = Server::start(&[
            "--repl-diskless-sync-delay",
            "0",
            "--replicaof",
            "127.0.0.1",
            &port,
        ]);
        eventually("the replica follows", async || {
            let state = replica.cli(&["INFO", "replication"]);
            state.contains("master_link_status:up").then_some(())
        })
        .await;
        let sentinels: Vec<_> = (0..3).map(|_| sentinel(master.port)).collect();
        let whole = Self {
            master,
            replica,
            sentinels,
        };
        for sentinel in &whole.sentinels {
            eventually(
                "the Sentinels know each other and the replica",
                async || {
                    let state = sentinel.cli(&["SENTINEL", "MASTER", MASTER]);
                    let field = |name: &str| {
                        let mut lines = state.lines().skip_while(|line| *line != name);
                        lines.nth(1).map(str::to_owned)
                    };
                    let others = field("num-other-sentinels")?;
                    let replicas = field("num-slaves")?;
                    (others == "2" && replicas == "1").then_some(())
                },
            )
            .await;
        }
        whole
    }

    pub(crate) fn url(&self) -> String {
        let addresses: Vec<_> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        format!("redis+sentinel://{}/{MASTER}", addresses.join(","))
    }
}

fn sentinel(master: u16) -> Server {
    let mut server = Server::prepare(&[]);
    let config = server.folder().join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {folder}\n\
         sentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds {MASTER} 1000\n\
         sentinel failover-timeout {MASTER} 5000\n",
        port = server.port,
        folder = server.folder().display(),
    );
    std::fs::write(&config, text).unwrap();
    // All of it stands in the file, which the Sentinel writes to.
    server.arguments = vec![config.display().to_string(), "--sentinel".to_owned()];
    server.started()
}
