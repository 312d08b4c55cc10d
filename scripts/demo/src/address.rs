//! A public address as a new user gets it: two programs, no configuration.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::Failed;
use crate::stage::{PATIENCE, listener_port};

/// A hub for this machine and an agent that publishes a service. Both are killed with it.
#[derive(Debug)]
pub struct Address {
    hub: Child,
    agent: Child,
    agent_lines: Receiver<String>,
    /// Where the hub serves HTTP.
    pub port: u16,
    /// What the agent printed: the address, and what it leads to.
    pub line: String,
}

impl Address {
    /// Starts both and waits until the address works; their state is kept in `folder`.
    ///
    /// # Errors
    /// A program is not there or ends, or no address comes in time.
    pub fn start(programs: &Path, folder: &Path, service: u16) -> Result<Self, Failed> {
        let ports = [18082, 18766, 18765].map(listener_port);
        let [port, control, tunnel] = ports;
        let (port, control, tunnel) = (port?, control?, tunnel?);
        let local = |port: u16| format!("127.0.0.1:{port}");
        let mut hub = quiet(&programs.join("nowconnect"), folder)
            .args(["dev", "--http", &local(port)])
            .args(["--control", &local(control)])
            .args(["--tunnel", &local(tunnel)])
            .spawn()
            .map_err(Failed::doing("nowconnect dev"))?;
        let greeted = lines(hub.stdout.take());
        let agent = greeted
            .recv_timeout(PATIENCE)
            .map_err(Failed::doing("the greeting of `nowconnect dev`"))
            .and_then(|_| {
                quiet(&programs.join("nowconnect-agent"), folder)
                    .args(["http", &service.to_string()])
                    .args(["--control", &format!("http://127.0.0.1:{control}")])
                    .spawn()
                    .map_err(Failed::doing("nowconnect-agent"))
            });
        let mut agent = match agent {
            Ok(agent) => agent,
            Err(error) => {
                end(&mut hub);
                return Err(error);
            }
        };
        let agent_lines = lines(agent.stdout.take());
        let mut address = Self {
            hub,
            agent,
            agent_lines,
            port,
            line: String::new(),
        };
        address.line = address.next_line("http://")?;
        Ok(address)
    }

    /// The address alone.
    #[must_use]
    pub fn url(&self) -> &str {
        self.line.split(" -> ").next().unwrap_or_default()
    }

    /// The agent's next line that begins so.
    ///
    /// # Errors
    /// It does not come in time.
    pub fn next_line(&self, begin: &str) -> Result<String, Failed> {
        loop {
            let line = self
                .agent_lines
                .recv_timeout(PATIENCE)
                .map_err(Failed::doing(format!("a line `{begin}…` of the agent")))?;
            if line.starts_with(begin) {
                return Ok(line);
            }
        }
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        end(&mut self.agent);
        end(&mut self.hub);
    }
}

fn quiet(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("XDG_STATE_HOME", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

fn end(child: &mut Child) {
    // One that has ended already needs neither.
    let _ = child.kill();
    let _ = child.wait();
}

/// Reads lines until the program ends.
fn lines(out: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(out) = out {
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // Whoever waited may have gone; the program is not to be held up by that.
                let _ = sender.send(line);
            }
        });
    }
    receiver
}
