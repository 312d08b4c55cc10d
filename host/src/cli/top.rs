//! `nowconnect top`: the hub while it works.
//!
//! Redraws a screen of plain ANSI at an interval; keys choose the view and the order. Without a
//! terminal it prints one screen and ends.

mod screen;
mod terminal;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Exit;
use super::status::{failed, look};
use crate::admin::view::FlowQuery;
use crate::admin::{AdminClient, ClientError};
use screen::{Frame, Order, Size, View};
use terminal::{Key, Terminal};

/// Most flows asked for; no screen shows more.
const MAX_FLOWS: usize = 500;

/// Shortest time between two looks, milliseconds.
const MIN_INTERVAL_MS: u64 = 100;

/// Shows the hub live: agents, listeners or flows, the busiest first.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The hub's admin socket; without it the usual places are tried
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Milliseconds between two looks
    #[arg(long, value_name = "MS", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(MIN_INTERVAL_MS..=60_000))]
    pub interval_ms: u64,
    /// What to show first
    #[arg(long, value_enum, default_value_t = View::Agents)]
    pub view: View,
    /// What stands on top
    #[arg(long, value_enum, default_value_t = Order::Bytes)]
    pub sort: Order,
    /// Print one screen and end; so it is too where the output is no terminal
    #[arg(long)]
    pub once: bool,
}

impl Args {
    /// Runs it until `q` or Ctrl-C.
    #[must_use]
    pub fn run(self) -> Exit {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return failed(&mut io::stderr().lock(), &error),
        };
        let live = !self.once && io::stdout().is_terminal() && io::stdin().is_terminal();
        if !live {
            let (mut out, mut problems) = (io::stdout().lock(), io::stderr().lock());
            return runtime.block_on(self.print_once(&mut out, &mut problems));
        }
        match runtime.block_on(self.watch()) {
            Ok(()) => Exit::Success,
            Err(error) => failed(&mut io::stderr().lock(), &error),
        }
    }

    /// Looks twice, an interval apart, and prints one screen of any length.
    pub async fn print_once(self, out: &mut dyn Write, problems: &mut dyn Write) -> Exit {
        let client = AdminClient::find(self.socket.as_deref());
        let interval = Duration::from_millis(self.interval_ms);
        let looked = async {
            let mut frame = Frame::new(self.view, self.sort);
            look_into(&client, &mut frame).await?;
            tokio::time::sleep(interval).await;
            look_into(&client, &mut frame).await?;
            Ok::<_, ClientError>(frame)
        };
        match looked.await {
            Ok(frame) => {
                let text = frame.render(Size::UNBOUNDED);
                match out.write_all(text.as_bytes()) {
                    Ok(()) => Exit::Success,
                    Err(_) => Exit::Failure,
                }
            }
            Err(error) => failed(problems, &error),
        }
    }

    async fn watch(self) -> io::Result<()> {
        let client = AdminClient::find(self.socket.as_deref());
        let mut terminal = Terminal::enter()?;
        let mut frame = Frame::new(self.view, self.sort);
        let mut ticks = tokio::time::interval(Duration::from_millis(self.interval_ms));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    if let Err(error) = look_into(&client, &mut frame).await {
                        frame.problem = Some(error.to_string());
                    }
                }
                key = terminal.key() => match key {
                    Some(Key::Quit) | None => return Ok(()),
                    Some(Key::NextView) => {
                        frame.view = frame.view.next();
                        ticks.reset_immediately();
                    }
                    Some(Key::Order(order)) => frame.order = order,
                    Some(Key::Other) => {}
                },
            }
            terminal.draw(&frame.render(terminal.size()))?;
        }
    }
}

async fn look_into(client: &AdminClient, frame: &mut Frame) -> Result<(), ClientError> {
    let snapshot = look(client).await?;
    let flows = match frame.view {
        View::Flows => {
            let query = FlowQuery {
                limit: Some(MAX_FLOWS),
                ..FlowQuery::default()
            };
            client.flows(&query).await?.flows
        }
        View::Agents | View::Listeners => Vec::new(),
    };
    frame.update(snapshot, flows, Instant::now());
    Ok(())
}
