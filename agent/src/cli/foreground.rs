//! Agents in the foreground, with what they do on the screen.

use std::io::{IsTerminal, Stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

use super::run::Signals;
use super::say_error;
use super::screen::{Screen, Style};
use crate::agent::{Agent, Running, StartError, build_runtime};
use crate::backoff;
use crate::config::{
    AgentConfig, Auth, BackoffSettings, LogLevel, Observability, Outbound, PublishConfig, Service,
};
use crate::publish::{
    ControlApi, ControlPoint, Memory, MemoryError, News, Publication, PublishError, Undiallable,
    begin,
};
use crate::state::AgentState;
use crate::tap::{SEEN_WAITING_MAX, Seen, Tap};
use crate::telemetry;

/// Events that wait for the screen; whoever has more waits, but for what passes.
const EVENTS_WAITING_MAX: usize = 256;
/// A person waits: the longest pause between two dials.
const DIAL_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long what runs may finish after Ctrl-C. A hub keeps connections to a service for later
/// requests, which are no reason to wait longer.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// What is to run.
#[derive(Debug)]
pub(super) struct Plan {
    /// An agent with an identity of its own.
    pub(super) agent: Option<AgentConfig>,
    /// Services that get public names.
    pub(super) publish: Option<PublishConfig>,
    pub(super) outbound: Outbound,
    pub(super) observability: Observability,
    /// The least that is logged; `None` leaves it to the terminal.
    pub(super) log_level: Option<LogLevel>,
    pub(super) allow_plaintext: bool,
    /// Where the tokens to come back are kept; `None` keeps none.
    pub(super) memory: Option<PathBuf>,
    /// Whether to wait for a control API that is not there.
    pub(super) patient: bool,
}

/// Why nothing runs.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no address: {0}")]
    Publish(#[from] PublishError),
    #[error("{0}")]
    Undiallable(#[from] Undiallable),
    #[error("{0}")]
    Start(#[from] StartError),
}

/// What an agent tells.
enum Event {
    State(Box<AgentState>),
    Seen(Seen),
    News(News),
}

/// A running agent and what it is for.
struct Line {
    running: Running,
    service: Option<Service>,
}

/// Runs until SIGTERM or SIGINT; a second one ends at once.
pub(super) fn run(plan: Plan) -> ExitCode {
    let mut observability = plan.observability.clone();
    // On a terminal the screen tells it better.
    observability.log_level = plan
        .log_level
        .unwrap_or(if std::io::stderr().is_terminal() {
            LogLevel::Error
        } else {
            LogLevel::Warn
        });
    let telemetry = match telemetry::init_with(&observability, "foreground", &plan.outbound) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error.to_string()),
    };
    let runtime = match build_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    let mut foreground = Foreground::new(plan);
    let code = runtime.block_on(LocalSet::new().run_until(foreground.conduct()));
    foreground.screen.end();
    // A resolver thread that still waits for a name server must not hold up the end.
    runtime.shutdown_background();
    drop(telemetry);
    code
}

fn fail(problem: &str) -> ExitCode {
    say_error(problem);
    ExitCode::FAILURE
}

struct Foreground {
    plan: Plan,
    screen: Screen<Stdout>,
    lines: Vec<Line>,
    agents: JoinSet<()>,
    tell: mpsc::Sender<(usize, Event)>,
    events: mpsc::Receiver<(usize, Event)>,
}

impl Foreground {
    fn new(plan: Plan) -> Self {
        let (tell, events) = mpsc::channel(EVENTS_WAITING_MAX);
        Self {
            plan,
            screen: Screen::new(std::io::stdout(), Style::of_stdout()),
            lines: Vec::new(),
            agents: JoinSet::new(),
            tell,
            events,
        }
    }

    async fn conduct(&mut self) -> ExitCode {
        let mut signals = match Signals::take() {
            Ok(signals) => signals,
            Err(error) => return fail(&error.to_string()),
        };
        let begun = tokio::select! {
            begun = self.begin() => begun,
            () = signals.end() => return ExitCode::SUCCESS,
        };
        if let Err(failure) = begun {
            self.screen.end();
            say_error(&failure.to_string());
            if let Failure::Publish(PublishError::Unreachable { .. }) = failure {
                say_error(
                    "is there a hub with a control API? `--control URL` names it; `nowconnect dev` \
                     starts one on this machine",
                );
            }
            return ExitCode::FAILURE;
        }
        let mut stopping = false;
        loop {
            tokio::select! {
                Some(ended) = self.agents.join_next() => {
                    if let Err(error) = ended {
                        return fail(&format!("an agent broke: {error}"));
                    }
                    if self.agents.is_empty() {
                        return ExitCode::SUCCESS;
                    }
                }
                () = signals.end() => {
                    self.screen.ending();
                    for line in &self.lines {
                        if stopping {
                            line.running.stop_now();
                        } else {
                            line.running.stop();
                        }
                    }
                    stopping = true;
                }
                Some((place, event)) = self.events.recv() => {
                    if let Err(failure) = self.handle(place, event).await {
                        return fail(&failure.to_string());
                    }
                }
            }
        }
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        if let Some(agent) = self.plan.agent.clone() {
            let names = agent.offered_connectors();
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            let place = self.screen.add(agent.agent_id.as_str(), &names.join(", "));
            self.start(place, agent, None)?;
        }
        if let Some(publish) = self.plan.publish.clone() {
            for service in publish.services {
                self.publish(&publish.point, service).await?;
            }
        }
        Ok(())
    }

    async fn publish(&mut self, point: &ControlPoint, service: Service) -> Result<(), Failure> {
        let mut backoff = backoff::Backoff::new(dial_pauses());
        let (publication, publisher, mut news) = loop {
            let api = ControlApi::new(point.clone(), self.plan.outbound.clone());
            let memory = self.memory(point, &service);
            match begin(api, service.wish.clone(), memory).await {
                Ok(begun) => break begun,
                Err(error) if self.plan.patient && error.may_pass() => {
                    if backoff.failures() == 0 {
                        self.screen.say(&format!("waiting: {error}"));
                    }
                    sleep(backoff.next_wait(backoff::draw())).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let shown = &publication.published.public_url;
        let place = self.screen.add(shown, &service.target.address.to_string());
        if let Some(note) = &publication.published.note {
            self.screen.say(note);
        }
        let config = self.config(&publication, &service)?;
        self.start(place, config, Some(service))?;
        let tell = self.tell.clone();
        tokio::task::spawn_local(async move {
            while let Some(news) = news.recv().await {
                if tell.send((place, Event::News(news))).await.is_err() {
                    return;
                }
            }
        });
        tokio::task::spawn_local(publisher.run());
        Ok(())
    }

    /// Without a memory the service gets an address all the same, and another one the next time.
    fn memory(&mut self, point: &ControlPoint, service: &Service) -> Option<Memory> {
        let folder = self.plan.memory.as_ref()?;
        match Memory::open(folder, &point.url, &service.memory_name()) {
            Ok(memory) => Some(memory),
            Err(error @ (MemoryError::InUse | MemoryError::Io { .. })) => {
                self.screen
                    .say(&format!("the address will not be kept: {error}"));
                None
            }
        }
    }

    fn config(
        &self,
        publication: &Publication,
        service: &Service,
    ) -> Result<AgentConfig, Undiallable> {
        let way = publication.published.way(self.plan.allow_plaintext)?;
        let auth = Auth::Asked(publication.asker.clone());
        let mut config = AgentConfig::new(way.hub, way.agent_id, auth)
            .with_target(way.connector, service.target.clone());
        config.other_hubs = way.other_hubs;
        config.outbound = self.plan.outbound.clone();
        config.tunnel.backoff = dial_pauses();
        config.limits.shutdown_timeout = STOP_WITHIN;
        Ok(config)
    }

    fn start(
        &mut self,
        place: usize,
        config: AgentConfig,
        service: Option<Service>,
    ) -> Result<(), StartError> {
        let protocol = service
            .as_ref()
            .map_or(crate::publish::Protocol::Tcp, |service| {
                service.wish.protocol
            });
        let (watcher, mut seen) = mpsc::channel(SEEN_WAITING_MAX);
        let (running, task) = Agent::prepare(config)?;
        let task = task.with_tap(Tap::new(protocol, watcher));
        let mut state = running.watch();
        let tell = self.tell.clone();
        tokio::task::spawn_local(async move {
            loop {
                let event = tokio::select! {
                    changed = state.changed() => match changed {
                        Ok(()) => Event::State(Box::new(state.borrow_and_update().clone())),
                        Err(_) => return,
                    },
                    Some(seen) = seen.recv() => Event::Seen(seen),
                };
                if tell.send((place, event)).await.is_err() {
                    return;
                }
            }
        });
        self.agents.spawn_local(async move {
            match task.bind().await {
                Ok(bound) => bound.run().await,
                Err(error) => say_error(&error.to_string()),
            }
        });
        self.lines.push(Line { running, service });
        Ok(())
    }

    async fn handle(&mut self, place: usize, event: Event) -> Result<(), Failure> {
        match event {
            Event::State(state) => self.screen.state(place, &state),
            Event::Seen(seen) => self.screen.seen(place, &seen),
            Event::News(News::NotKept(reason)) => self
                .screen
                .say(&format!("the address is lost when this ends: {reason}")),
            Event::News(News::Moved(publication)) => {
                self.screen.moved(place, &publication.published.public_url);
                let Some(line) = self.lines.get(place) else {
                    return Ok(());
                };
                if let Some(service) = &line.service {
                    let config = self.config(&publication, service)?;
                    // What could not be prepared was prepared before.
                    line.running
                        .reload(config)
                        .await
                        .map_err(StartError::from)?;
                }
            }
        }
        Ok(())
    }
}

fn dial_pauses() -> BackoffSettings {
    BackoffSettings {
        cap: DIAL_PAUSE_MAX,
        ..BackoffSettings::default()
    }
}

/// `$XDG_STATE_HOME/nowconnect`, or `~/.local/state/nowconnect`.
pub(super) fn state_folder() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("nowconnect"))
}
