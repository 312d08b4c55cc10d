//! A real Redis on a port of its own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::eventually;

/// See the module. Ends with its value.
pub(crate) struct Redis {
    port: u16,
    folder: TempDir,
    child: Option<Child>,
}

impl Redis {
    /// One without persistence; `None` where there is no `redis-server` and `ALLOW_SKIP=1` lets
    /// tests do without.
    pub(crate) async fn start() -> Option<Self> {
        let found = Command::new("redis-server")
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        if found.is_err() {
            let allowed = std::env::var("ALLOW_SKIP").is_ok_and(|value| value == "1");
            assert!(
                allowed,
                "redis-server is missing; `make install-parts` installs it, ALLOW_SKIP=1 does \
                 without"
            );
            return None;
        }
        let mut redis = Self {
            port: free_port(),
            folder: TempDir::new().unwrap(),
            child: None,
        };
        redis.start_again().await;
        Some(redis)
    }

    /// Starts it anew and empty, on the same port.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let child = Command::new("redis-server")
            .args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"])
            .args(["--port", &self.port.to_string()])
            .arg("--dir")
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let port = self.port;
        eventually("redis answers", || async move { answers(port).await }).await;
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// The section `ha` of a hub on it.
    pub(crate) fn ha(&self, hub: &str, mode: &str) -> String {
        format!(
            "ha: {{enabled: true, mode: {mode}, replica_id: {hub}, \
             redis_url: \"redis://127.0.0.1:{}\", redis: {{claim_lease_sec: 3}}}}",
            self.port
        )
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else {
        return false;
    };
    let mut answer = [0; 5];
    stream.write_all(b"PING\r\n").await.is_ok()
        && stream.read_exact(&mut answer).await.is_ok()
        && answer == *b"+PONG"
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
