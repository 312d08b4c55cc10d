//! `nowconnect dev`: a hub for this machine, from built-in settings alone.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args as ClapArgs;
use nowconnect_store::Store;

use super::Exit;
use super::run::{complain, serve};
use crate::admin::{DEV_SOCKET, dev_folder};
use crate::config::{self, CloudConfig, ConfigError, ProcessEnv};

/// Serves this machine alone: names below `localhost`, without certificates, tokens or files
///
/// Whoever is on this machine may publish a service with `nowconnect-agent http PORT`. Names, keys
/// and used tokens are kept below $XDG_STATE_HOME/nowconnect, or ~/.local/state/nowconnect, so that
/// addresses outlive the hub. NOWCONNECT_* variables change its settings as they do those of a
/// file.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// Where viewers come in
    #[arg(long, value_name = "ADDRESS", default_value_t = local(8082))]
    http: SocketAddr,
    /// Where agents ask for names; theirs is this one unless they are told otherwise
    #[arg(long, value_name = "ADDRESS", default_value_t = local(8766))]
    control: SocketAddr,
    /// Where agents dial
    #[arg(long, value_name = "ADDRESS", default_value_t = local(8765))]
    tunnel: SocketAddr,
    /// The folder of its state
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// Print its settings, as the beginning of a file of one's own, and end
    #[arg(long)]
    print_config: bool,
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Args {
    /// Runs the hub to its end.
    pub fn run(self) -> Exit {
        if self.print_config {
            // Nobody reads a closed pipe.
            let _ = write!(std::io::stdout(), "{}", self.settings());
            return Exit::Success;
        }
        for address in [self.http, self.control, self.tunnel] {
            if !address.ip().is_loopback() {
                let problem = format!(
                    "`{address}` is not of this machine alone: without certificates and tokens \
                     nobody else is served; see `nowconnect dev --print-config` and `nowconnect run`"
                );
                return complain(&problem, Exit::Usage);
            }
        }
        let Some(folder) = self.state_dir.clone().or_else(dev_folder) else {
            return complain(
                "no folder for the state: set HOME, XDG_STATE_HOME or `--state-dir`",
                Exit::Usage,
            );
        };
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder);
        if let Err(error) = made {
            let problem = format!("`{}` cannot be made: {error}", folder.display());
            return complain(&problem, Exit::Failure);
        }
        // The first start loses nothing that the hub would have to warn of.
        let state = folder.join(STATE_FILE);
        if !state.exists()
            && let Err(error) = Store::open(&state)
        {
            return complain(&error.to_string(), Exit::Failure);
        }
        let settings = self.settings();
        let load = move || load(&settings, &folder);
        let config = match load() {
            Ok(config) => config,
            Err(error) => return complain(&error.to_string(), Exit::Usage),
        };
        let control = self.control;
        serve(config, Arc::new(load), move |running| {
            let web = running.listener_address(WEB);
            let port = web.map_or(self.http.port(), |address| address.port());
            let more = if control == local(8766) {
                String::new()
            } else {
                format!(" --control http://{control}")
            };
            let _ = writeln!(
                std::io::stdout(),
                "A hub for this machine serves http://NAME.localhost:{port}\n\n  \
                 nowconnect-agent http 3000{more}\n\n\
                 in another terminal gives what listens on port 3000 such a name; `nowconnect status` shows \
                 them. Ctrl-C ends the hub."
            );
        })
    }

    fn settings(&self) -> String {
        let Self {
            http,
            control,
            tunnel,
            ..
        } = self;
        format!(
            "\
# A hub for this machine alone. For others it needs certificates: tunnel.tls, control.tls and
# ingress.listeners[].tls; and a domain of its own, whose names lead to it.
tunnel:
  host: \"{}\"
  port: {}
ingress:
  listeners:
    - {{name: {WEB}, bind: \"{http}\"}}
control:
  listen: \"{control}\"
  state_file: {STATE_FILE}
  domain: localhost
  # Whoever reaches control.listen may publish, without a token.
  anonymous: {{enabled: true}}
  # For `nowconnect-agent tcp`.
  tcp_ports: {{bind: \"{}\", first: 20000, last: 20099, host: localhost}}
admin:
  socket: {DEV_SOCKET}
observability:
  metrics_port: null
  log_level: warn
  log_format: text
",
            tunnel.ip(),
            tunnel.port(),
            http.ip()
        )
    }
}

/// What it keeps, in its folder.
const STATE_FILE: &str = "control.redb";

/// The name of the port for viewers.
const WEB: &str = "web";

/// Relative paths start at the folder, as if the settings were a file there.
fn load(settings: &str, folder: &Path) -> Result<CloudConfig, ConfigError> {
    let file = folder.join("built-in settings");
    let mut config = config::parse(settings, Some(&file), &ProcessEnv)?;
    // There is no file that could be watched.
    config.source = None;
    Ok(config)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn the_settings_are_those_of_a_hub_for_this_machine() {
        let args = Args {
            http: local(1),
            control: local(2),
            tunnel: local(3),
            state_dir: None,
            print_config: false,
        };
        let config = load(&args.settings(), Path::new("/state")).unwrap();
        assert_eq!(config.ingress.listeners[0].bind, local(1));
        assert_eq!(config.control.listen, Some(local(2)));
        assert_eq!(config.tunnel.listen(), local(3));
        assert_eq!(config.control.domain, "localhost");
        assert!(config.observability.metrics_listen().is_none());
        assert!(config.control.anonymous_tenant.is_some());
        let state = config.control.state_file.unwrap();
        assert_eq!(state, Path::new("/state/control.redb"));
        assert_eq!(config.source, None);
    }
}
