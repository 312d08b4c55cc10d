//! The driver of the agent's end.

use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::Stream;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use nowconnect_protocol::{
    AgentEnd, AgentEvent as EndEvent, CloseCode, FlowEvent, FlowSummary, Hello, HelloAck, Open,
    ResetCode, TunnelClosed,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

use super::{Core, MESSAGES_PER_ROUND, ROUNDS_PER_POLL};
use crate::agent::{
    AgentCommand, AgentCommands, AgentEvent, AgentShell, Dial, DialError, Dialed, ResumeFrom,
};
use crate::detached::DetachedSession;
use crate::settings::{TunnelEnd, TunnelSettings};
use crate::sockets::FlowSocket;

type DialOutcome = (u32, Result<Dialed, DialError>);

struct AgentDriver<S> {
    core: Core<AgentEnd, S>,
    shell: Rc<dyn AgentShell>,
    commands: AgentCommands,
    dials: FuturesUnordered<LocalBoxFuture<'static, DialOutcome>>,
    /// Where the flows of the session are until HELLO_ACK.
    resume: Option<ResumeFrom>,
    /// The earlier tunnel is being asked for them.
    fetching: Option<LocalBoxFuture<'static, Option<DetachedSession>>>,
    /// Whether HELLO_ACK said that the flows may go on.
    resumed: bool,
    handed_over: bool,
    /// The round trip that the shell knows.
    told_round_trip: Option<Duration>,
}

pub(crate) async fn serve<S>(
    ws: WebSocketStream<S>,
    hello: Hello,
    resume: ResumeFrom,
    shell: Rc<dyn AgentShell>,
    commands: AgentCommands,
    settings: TunnelSettings,
) -> TunnelEnd
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let ResumeFrom::Living(handle) = &resume {
        handle.expect_successor();
    }
    let end = AgentEnd::new(Instant::now(), hello, settings.config);
    let mut driver = AgentDriver {
        core: Core::new(end, ws),
        shell,
        commands,
        dials: FuturesUnordered::new(),
        resume: Some(resume),
        fetching: None,
        resumed: false,
        handed_over: false,
        told_round_trip: None,
    };
    // The driver bounds its own polls; the runtime's budget would wake flows one by one.
    tokio::task::unconstrained(poll_fn(|cx| driver.poll(cx))).await
}

impl<S: AsyncRead + AsyncWrite + Unpin> AgentDriver<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TunnelEnd> {
        self.core.ready.register(cx.waker());
        for _ in 0..ROUNDS_PER_POLL {
            let now = Instant::now();
            let mut progress = self.take_commands(cx);
            for _ in 0..MESSAGES_PER_ROUND {
                if !self.core.receive_one(cx, now) {
                    break;
                }
                progress = true;
                self.take_events(now);
            }
            progress |= self.take_flows(cx, now);
            progress |= self.take_dials(cx, now);
            progress |= self.core.serve_woken(now);
            let _report = self.core.tick(cx, now);
            if self.core.end.tunnel_mut().take_suspect() {
                self.shell.event(AgentEvent::Suspect);
            }
            self.tell_round_trip();
            progress |= self.take_events(now);
            progress |= self.core.transmit(cx, now);
            progress |= self.take_events(now);
            if self.core.is_over(cx, now) {
                return Poll::Ready(self.end(now));
            }
            if !progress {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn tell_round_trip(&mut self) {
        let measured = self.core.end.tunnel().round_trip();
        if let Some(round_trip) = measured
            && measured != self.told_round_trip
        {
            self.told_round_trip = measured;
            self.shell.event(AgentEvent::RoundTrip(round_trip));
        }
    }

    fn take_commands(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some(command)) = self.commands.receiver.poll_recv(cx) {
            any = true;
            match command {
                AgentCommand::Renew(token, connectors) => self.core.end.renew(token, connectors),
                AgentCommand::Close(code, message) => {
                    self.core.end.tunnel_mut().close(code, &message)
                }
                AgentCommand::Detach(answer) => {
                    let session = self.core.detach();
                    self.handed_over = true;
                    // Whoever asked may be gone; dropping the session ends its flows.
                    drop(answer.send(Some(session)));
                    self.core
                        .end
                        .tunnel_mut()
                        .close(CloseCode::Replaced, "a newer tunnel took over");
                }
            }
        }
        any
    }

    // ---- flows of an earlier tunnel -------------------------------------------------------

    fn welcomed(&mut self, now: Instant, ack: Box<HelloAck>) {
        let resumed = ack.resumed;
        self.shell.event(AgentEvent::Welcomed(ack));
        match self.resume.take() {
            Some(ResumeFrom::Detached(session)) if resumed => self.attach(now, session),
            Some(ResumeFrom::Detached(session)) => self.give_up(now, session),
            Some(ResumeFrom::Living(handle)) => {
                // Where they may not go on they are asked for all the same, so that they end.
                self.fetching = Some(Box::pin(async move {
                    match handle.detach().await {
                        Some(session) => Some(session),
                        None => handle.take_left(),
                    }
                }));
            }
            Some(ResumeFrom::Nothing) | None if resumed => {
                self.core
                    .end
                    .resume(now, nowconnect_protocol::DetachedFlows::default());
            }
            Some(ResumeFrom::Nothing) | None => {}
        }
        self.resumed = resumed;
    }

    fn take_flows(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(fetching) = &mut self.fetching else {
            return false;
        };
        let Poll::Ready(session) = fetching.as_mut().poll(cx) else {
            return false;
        };
        self.fetching = None;
        match session {
            Some(session) if self.resumed => self.attach(now, session),
            Some(session) => self.give_up(now, session),
            None if self.resumed => {
                self.core
                    .end
                    .resume(now, nowconnect_protocol::DetachedFlows::default());
            }
            None => {}
        }
        true
    }

    fn attach(&mut self, now: Instant, mut session: DetachedSession) {
        self.core.attach(std::mem::take(&mut session.sockets));
        self.core
            .end
            .resume(now, std::mem::take(&mut session.flows));
    }

    fn give_up(&self, now: Instant, session: DetachedSession) {
        for (connector, summary) in session.summaries(now, ResetCode::ResumeLost) {
            self.shell
                .event(AgentEvent::FlowEnded { connector, summary });
        }
    }

    // ---- targets --------------------------------------------------------------------------

    fn dial(&mut self, open: Open) {
        let cid = open.cid;
        let connector = open.connector.clone();
        let dialing = self.shell.dial(Dial {
            flow_ref: open.flow_ref,
            cid,
            connector: open.connector,
            client_address: open.client_address,
            metadata: open.metadata,
            trace_parent: open.trace_parent,
            proxy_protocol: open.proxy_protocol,
        });
        let socket = FlowSocket::new(cid, connector, None, None, &self.core.ready);
        self.core.add_socket(cid, socket);
        self.dials
            .push(Box::pin(async move { (cid, dialing.await) }));
    }

    fn take_dials(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut any = false;
        while let Poll::Ready(Some((cid, outcome))) =
            std::pin::Pin::new(&mut self.dials).poll_next(cx)
        {
            any = true;
            match outcome {
                Ok(dialed) => self.dialed(now, cid, dialed),
                Err(DialError { code, message }) => self.core.end.refuse(now, cid, code, &message),
            }
        }
        any
    }

    fn dialed(&mut self, now: Instant, cid: u32, dialed: Dialed) {
        let io = match dialed.io.registered() {
            Ok(io) => io,
            Err(error) => {
                self.core
                    .end
                    .refuse(now, cid, ResetCode::ConnectFailed, &error.to_string());
                return;
            }
        };
        // The flow may have ended while its target was being reached.
        if !self.core.end.dialed(now, cid, dialed.alpn) {
            return;
        }
        if let Some(idle_timeout) = dialed.idle_timeout {
            self.core.end.bound_silence(cid, idle_timeout);
        }
        let Some(socket) = self.core.sockets.by_cid.get_mut(&cid) else {
            return;
        };
        socket.io = Some(io);
        let connector = socket.connector.clone();
        let written = socket.write_pending();
        self.core.note_written(now, cid, written);
        if let Some(flow_ref) = self.core.end.tunnel().flow_ref_of(cid) {
            self.shell.event(AgentEvent::FlowOpened {
                flow_ref,
                connector,
                cid,
            });
        }
    }

    // ---- what the machine reports ---------------------------------------------------------

    fn take_events(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(event) = self.core.end.poll_event() {
            any = true;
            match event {
                EndEvent::Welcomed(ack) => self.welcomed(now, ack),
                EndEvent::Renewed(ack) => self.shell.event(AgentEvent::Renewed(ack)),
                EndEvent::Drain(deadline) => self.shell.event(AgentEvent::Drain { deadline }),
                EndEvent::Open(open) => self.dial(*open),
                EndEvent::Flow(event) => self.flow_event(now, event),
            }
        }
        any
    }

    fn flow_event(&mut self, now: Instant, event: FlowEvent) {
        match event {
            FlowEvent::Data { cid, payload } => self.core.data(now, cid, payload),
            FlowEvent::Finish { cid } => self.core.finish(now, cid),
            FlowEvent::Resumed { flow_ref, cid } => self.core.resumed(now, &flow_ref, cid),
            FlowEvent::Closed { cid, summary } => {
                if let Entry::Occupied(socket) = self.core.sockets.by_cid.entry(cid) {
                    let connector = socket.remove().connector;
                    self.shell
                        .event(AgentEvent::FlowEnded { connector, summary });
                }
            }
            FlowEvent::Lost { summary } => self.lost(summary),
            // Only a hub's machine reports these.
            FlowEvent::Acknowledged(_) | FlowEvent::NotStarted { .. } => {}
        }
    }

    fn lost(&mut self, summary: FlowSummary) {
        if let Some(socket) = self.core.waiting.remove(&summary.flow_ref) {
            let connector = socket.connector;
            self.shell
                .event(AgentEvent::FlowEnded { connector, summary });
        }
    }

    // ---- the end --------------------------------------------------------------------------

    fn end(&mut self, now: Instant) -> TunnelEnd {
        let closed = self.core.end.tunnel().closed().cloned().unwrap_or_else(|| {
            TunnelClosed::local(CloseCode::Internal, "the tunnel ended without a reason")
        });
        self.commands.receiver.close();
        let mut detached = (closed.is_resumable() && !self.handed_over)
            .then(|| self.core.detach())
            .filter(|session| !session.is_empty());
        if detached.is_none() {
            let code = if closed.local {
                ResetCode::AgentShutdown
            } else {
                super::hub::flow_code(closed.code)
            };
            self.core.end.tunnel_mut().reset_all(now, code);
            self.take_events(now);
            detached = self.unused();
        }
        TunnelEnd {
            closed,
            detached: detached.and_then(|session| self.commands.leave(session)),
        }
    }

    /// Flows that this tunnel was to go on with and never got to.
    fn unused(&mut self) -> Option<DetachedSession> {
        match self.resume.take() {
            Some(ResumeFrom::Detached(session)) => Some(session),
            Some(ResumeFrom::Living(handle)) => {
                handle.forget_successor();
                handle.take_left()
            }
            Some(ResumeFrom::Nothing) | None => None,
        }
    }
}
