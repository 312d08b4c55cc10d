//! Agents in the foreground, with what they do on the screen.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

use super::end_signals::EndSignals;
use super::printer::Printer;
use super::say_error;
use super::screen::{Screen, Style};
use crate::agent::{Agent, Running, StartError, build_runtime};
use crate::backoff::{self, Backoff};
use crate::config::{
    AgentConfig, Auth, BackoffSettings, LogLevel, Observability, Outbound, PublishConfig, Service,
};
use crate::plain::plain;
use crate::publish::{
    ControlApi, ControlPoint, Key, Memory, News, Protocol, Publication, PublishError, Published,
    Publisher, Undiallable, begin,
};
use crate::state::AgentState;
use crate::tap::{SEEN_WAITING_MAX, Seen, Tap};
use crate::telemetry;
use crate::token::TokenAsker;

/// Events that wait for the screen; whoever has more waits, but for what passes.
const EVENTS_WAITING_MAX: usize = 256;
/// A person waits: the longest pause between two dials.
const DIAL_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long what runs may finish after Ctrl-C, where nothing else is said. A hub keeps connections
/// to a service for later requests, which are no reason to wait longer.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// Longest text of a failure, in characters.
const FAILURE_CHARS_MAX: usize = 1000;

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
    /// How long what runs may finish after a stop; `None` for a person who waits.
    pub(super) shutdown_timeout: Option<Duration>,
    /// Where the tokens to come back are kept; `None` keeps none.
    pub(super) memory: Option<PathBuf>,
    /// Whether to try again what cannot be published.
    pub(super) patient: bool,
}

/// Why it ends.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no address: {0}")]
    Publish(#[from] PublishError),
    #[error("{0}")]
    Undiallable(#[from] Undiallable),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("an agent broke: {0}")]
    Broke(#[from] tokio::task::JoinError),
}

/// What an agent, or whoever gets it an address, tells.
enum Event {
    /// The address cannot be had now.
    Waits(PublishError),
    /// Nor later.
    Refused(PublishError),
    Begun(Box<Begun>),
    State(Box<AgentState>),
    Seen(Seen),
    News(News),
    NotKept(String),
}

/// A tunnel that was given.
struct Begun {
    publication: Publication,
    publisher: Publisher,
    news: mpsc::Receiver<News>,
}

/// A row of the screen and what runs for it.
#[derive(Default)]
struct Line {
    service: Option<Service>,
    /// Once there is something to run.
    running: Option<Running>,
    /// Whom the agent asks for tokens.
    asker: Option<TokenAsker>,
}

/// Runs until SIGTERM or SIGINT, or until the terminal goes away, unless `nohup` keeps it; a second
/// signal ends at once.
pub(super) fn run(plan: Plan) -> ExitCode {
    let mut observability = plan.observability.clone();
    // On a terminal the screen tells it better.
    observability.log_level =
        plan.log_level
            .unwrap_or_else(|| match std::io::stderr().is_terminal() {
                true => LogLevel::Error,
                false => LogLevel::Warn,
            });
    let telemetry = match telemetry::init_with(&observability, "foreground", &plan.outbound) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error.to_string()),
    };
    let parts = build_runtime().and_then(|runtime| {
        let printer = Printer::start(std::io::stdout())?;
        Ok((runtime, printer))
    });
    let (runtime, printer) = match parts {
        Ok(parts) => parts,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    let mut foreground = Foreground::new(plan, printer);
    let ended = runtime.block_on(LocalSet::new().run_until(foreground.conduct()));
    foreground.screen.end().end();
    // A resolver thread that still waits for a name server must not hold up the end.
    runtime.shutdown_background();
    drop(telemetry);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = fail(&failure.to_string());
            if let Failure::Publish(error) = &failure
                && let Some(advice) = advice(error)
            {
                say_error(advice);
            }
            code
        }
    }
}

/// The text may be a hub's.
fn fail(problem: &str) -> ExitCode {
    say_error(&plain(problem, FAILURE_CHARS_MAX));
    ExitCode::FAILURE
}

/// What a person can do who has no address.
fn advice(error: &PublishError) -> Option<&'static str> {
    match error {
        PublishError::Unreachable { .. } => Some(
            "is there a hub with a control API? `--control URL` names it; `nowconnect dev` starts \
             one on this machine",
        ),
        PublishError::Refused { code, .. } if code == "name_taken" => Some(
            "choose another name; one of your own is free again a while after its agent has ended, \
             and at once for the agent that had it, without `--fresh`",
        ),
        PublishError::Refused { .. } | PublishError::ClientSecret { .. } => None,
    }
}

struct Foreground {
    plan: Plan,
    screen: Screen<Printer>,
    lines: Vec<Line>,
    agents: JoinSet<Result<(), StartError>>,
    /// Those who get addresses for services; ended with this.
    publishing: JoinSet<()>,
    tell: mpsc::Sender<(usize, Event)>,
    events: mpsc::Receiver<(usize, Event)>,
}

impl Foreground {
    fn new(plan: Plan, printer: Printer) -> Self {
        let (tell, events) = mpsc::channel(EVENTS_WAITING_MAX);
        Self {
            plan,
            screen: Screen::new(printer, Style::of_stdout()),
            lines: Vec::new(),
            agents: JoinSet::new(),
            publishing: JoinSet::new(),
            tell,
            events,
        }
    }

    async fn conduct(&mut self) -> Result<(), Failure> {
        let mut signals = EndSignals::take().map_err(StartError::Runtime)?;
        self.begin()?;
        let mut stopping = false;
        while !(stopping && self.agents.is_empty()) {
            tokio::select! {
                Some(ended) = self.agents.join_next() => {
                    // By itself an agent ends only where it could not begin.
                    ended??;
                }
                () = signals.next() => {
                    self.publishing.abort_all();
                    self.screen.ending();
                    for running in self.lines.iter().filter_map(|line| line.running.as_ref()) {
                        if stopping {
                            running.stop_now();
                        } else {
                            running.stop();
                        }
                    }
                    stopping = true;
                }
                Some((place, event)) = self.events.recv() => self.handle(place, event).await?,
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), StartError> {
        if let Some(agent) = self.plan.agent.clone() {
            let names = agent.offered_connectors();
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            let place = self.line(&names.join(", "), None);
            self.screen.address_is(place, agent.agent_id.as_str());
            self.start(place, agent, Protocol::Tcp)?;
        }
        if let Some(publish) = self.plan.publish.clone() {
            for service in publish.services {
                self.publish(&publish.point, service);
            }
        }
        Ok(())
    }

    fn line(&mut self, target: &str, service: Option<Service>) -> usize {
        self.lines.push(Line {
            service,
            ..Line::default()
        });
        self.screen.add(target)
    }

    /// Gets an address beside everything else that runs.
    fn publish(&mut self, point: &ControlPoint, service: Service) {
        let place = self.line(&service.target.address.to_string(), Some(service.clone()));
        let task = Publishing {
            point: point.clone(),
            service,
            outbound: self.plan.outbound.clone(),
            memory: self.plan.memory.clone(),
            patient: self.plan.patient,
            place,
            tell: self.tell.clone(),
        };
        self.publishing.spawn_local(task.run());
    }

    fn config(
        &self,
        published: &Published,
        asker: &TokenAsker,
        service: &Service,
    ) -> Result<AgentConfig, Undiallable> {
        let way = published.way(self.plan.allow_plaintext)?;
        let auth = Auth::Asked(asker.clone());
        let mut config = AgentConfig::new(way.hub, way.agent_id, auth)
            .with_target(way.connector, service.target.clone());
        config.other_hubs = way.other_hubs;
        config.outbound = self.plan.outbound.clone();
        // That is the name of the other agent's hub.
        config.outbound.server_name = None;
        config.tunnel.backoff = dial_pauses();
        config.limits.shutdown_timeout = self.plan.shutdown_timeout.unwrap_or(STOP_WITHIN);
        Ok(config)
    }

    fn start(
        &mut self,
        place: usize,
        config: AgentConfig,
        protocol: Protocol,
    ) -> Result<(), StartError> {
        let (watcher, mut seen) = mpsc::channel(SEEN_WAITING_MAX);
        let (running, task) = Agent::prepare(config)?;
        let task = task.with_tap(Tap::new(protocol, watcher, self.screen.counts(place)));
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
            task.bind().await?.run().await;
            Ok(())
        });
        self.lines[place].running = Some(running);
        Ok(())
    }

    async fn handle(&mut self, place: usize, event: Event) -> Result<(), Failure> {
        match event {
            Event::State(state) => self.screen.state(place, &state),
            Event::Seen(seen) => self.screen.seen(place, &seen),
            Event::Waits(error) => self.screen.fails(place, &error.to_string()),
            Event::Refused(error) => return Err(error.into()),
            Event::NotKept(reason) | Event::News(News::NotKept(reason)) => self
                .screen
                .say(&format!("the address will not be kept: {reason}")),
            Event::Begun(begun) => self.begun(place, *begun)?,
            Event::News(News::Moved(Publication { published, asker })) => {
                self.screen.moved(place, &self.shown(place, &published));
                self.change(place, &published, asker).await?;
            }
            Event::News(News::Changed(published)) => {
                self.screen
                    .address_is(place, &self.shown(place, &published));
                if let Some(asker) = self.lines[place].asker.clone() {
                    self.change(place, &published, asker).await?;
                }
            }
        }
        Ok(())
    }

    fn begun(&mut self, place: usize, begun: Begun) -> Result<(), Failure> {
        let Begun {
            publication: Publication { published, asker },
            publisher,
            mut news,
        } = begun;
        let Some(service) = self.lines[place].service.clone() else {
            return Ok(());
        };
        self.screen
            .address_is(place, &self.shown(place, &published));
        if let Some(note) = &published.note {
            self.screen.say(note);
        }
        match self.config(&published, &asker, &service) {
            Ok(config) => self.start(place, config, service.wish.protocol)?,
            Err(error) if self.plan.patient => self.screen.fails(place, &error.to_string()),
            Err(error) => return Err(error.into()),
        }
        self.lines[place].asker = Some(asker);
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

    /// An address for people. A service that speaks no HTTP has one where the hub gives public
    /// ports; elsewhere it is reached at whatever port an operator leads to its connector.
    fn shown(&self, place: usize, published: &Published) -> String {
        let service = self.lines[place].service.as_ref();
        match service.map(|service| service.wish.protocol) {
            Some(Protocol::Tcp) if !published.public_url.starts_with("tcp://") => {
                format!("connector {}", published.tunnel_id)
            }
            Some(Protocol::Http | Protocol::Tcp) | None => published.public_url.clone(),
        }
    }

    /// Lets a running agent go on with what the API says now.
    async fn change(
        &mut self,
        place: usize,
        published: &Published,
        asker: TokenAsker,
    ) -> Result<(), Failure> {
        let Some(service) = self.lines[place].service.clone() else {
            return Ok(());
        };
        let config = match self.config(published, &asker, &service) {
            Ok(config) => config,
            Err(error) => {
                self.screen.fails(place, &error.to_string());
                return Ok(());
            }
        };
        let line = &mut self.lines[place];
        line.asker = Some(asker);
        if let Some(running) = &line.running {
            running.reload(config).await.map_err(StartError::from)?;
        }
        Ok(())
    }
}

/// Gets an address for one service.
struct Publishing {
    point: ControlPoint,
    service: Service,
    outbound: Outbound,
    memory: Option<PathBuf>,
    patient: bool,
    place: usize,
    tell: mpsc::Sender<(usize, Event)>,
}

impl Publishing {
    async fn run(self) {
        // The same for every try: one whose answer was lost is not done twice.
        let key = Key::random();
        let mut pauses = Backoff::new(dial_pauses());
        let mut warned = false;
        loop {
            let memory = self.memory(&mut warned).await;
            let api = ControlApi::new(self.point.clone(), self.outbound.clone());
            let error = match begin(api, self.service.wish.clone(), &key, memory).await {
                Ok((publication, publisher, news)) => {
                    let begun = Begun {
                        publication,
                        publisher,
                        news,
                    };
                    return self.say(Event::Begun(Box::new(begun))).await;
                }
                Err(error) => error,
            };
            if !self.patient {
                return self.say(Event::Refused(error)).await;
            }
            let pause = match error.retry_after() {
                Some(after) => pauses.at_least(after, backoff::draw()),
                None => pauses.next_wait(backoff::draw()),
            };
            self.say(Event::Waits(error)).await;
            sleep(pause).await;
        }
    }

    /// Without a memory the service gets an address all the same, and another one the next time.
    async fn memory(&self, warned: &mut bool) -> Option<Memory> {
        let folder = self.memory.as_ref()?;
        match Memory::open(folder, &self.point.url, &self.service.memory_name()) {
            Ok(memory) => Some(memory),
            Err(error) => {
                if !std::mem::replace(warned, true) {
                    self.say(Event::NotKept(error.to_string())).await;
                }
                None
            }
        }
    }

    async fn say(&self, event: Event) {
        // Nobody listens once it ends.
        let _ = self.tell.send((self.place, event)).await;
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
