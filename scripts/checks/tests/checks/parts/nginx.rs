//! nginx as a service behind an agent.

use std::path::Path;

use super::{Daemon, program};

/// Starts nginx with one server: `server` is what stands in its block, and listens on `port`. What
/// it writes stays below `folder`.
pub(crate) fn start(folder: &Path, port: u16, server: &str) -> Daemon {
    let own = folder.join("nginx");
    std::fs::create_dir_all(own.join("logs")).unwrap();
    let config = own.join("nginx.conf");
    let text = format!(
        "pid nginx.pid;\nevents {{ worker_connections 4096; }}\nhttp {{\n  access_log off;\n  \
         client_body_temp_path body;\n  proxy_temp_path proxy;\n  fastcgi_temp_path fastcgi;\n  \
         uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n  server {{\n{server}\n  }}\n}}\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = program("nginx");
    command
        .arg("-p")
        .arg(&own)
        .arg("-c")
        .arg(&config)
        .args(["-e", "error.log"])
        .args(["-g", "daemon off; master_process off;"]);
    let mut daemon = Daemon::start("nginx", &mut command, folder);
    daemon.wait_for_port(port);
    daemon
}
