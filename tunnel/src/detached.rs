//! Flows between two tunnels, with their sockets.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use nowconnect_protocol::{ConnectorName, DetachedFlows, FlowRef, FlowSummary, ResetCode};
use rustc_hash::FxHashMap;

use crate::flow_io::LooseIo;
use crate::observer::FlowObserver;

pub(crate) struct DetachedSocket {
    pub(crate) io: LooseIo,
    pub(crate) connector: ConnectorName,
    pub(crate) pending: VecDeque<Bytes>,
    pub(crate) finish: bool,
    pub(crate) finished: bool,
    pub(crate) observer: Option<Box<dyn FlowObserver>>,
}

/// The flows of a session whose tunnel is gone: their state, their sockets, and the bytes that
/// wait on either side. A later tunnel of the session goes on with them.
///
/// Dropping it ends them with `ws_broken`.
pub struct DetachedSession {
    pub(crate) flows: DetachedFlows,
    pub(crate) sockets: FxHashMap<FlowRef, DetachedSocket>,
}

impl fmt::Debug for DetachedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachedSession")
            .field("flows", &self.sockets.len())
            .finish()
    }
}

impl DetachedSession {
    /// How many flows wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether nothing waits: neither a flow nor an answer to the last bytes of one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// The flows that wait, and their connectors.
    pub fn flows(&self) -> impl Iterator<Item = (&FlowRef, &ConnectorName)> {
        self.sockets
            .iter()
            .map(|(flow_ref, socket)| (flow_ref, &socket.connector))
    }

    /// What the flows did, were they to end now for `code`.
    pub(crate) fn summaries(
        &self,
        now: Instant,
        code: ResetCode,
    ) -> Vec<(ConnectorName, FlowSummary)> {
        self.flows
            .iter()
            .filter(|flow| !flow.is_closed())
            .filter_map(|flow| {
                let socket = self.sockets.get(flow.flow_ref())?;
                Some((socket.connector.clone(), flow.summary(now, code)))
            })
            .collect()
    }

    /// Ends the flows for `code`.
    pub fn end(mut self, code: ResetCode) {
        self.end_all(code);
    }

    fn end_all(&mut self, code: ResetCode) {
        let now = Instant::now();
        for flow in std::mem::take(&mut self.flows).iter() {
            if let Some(socket) = self.sockets.remove(flow.flow_ref())
                && let Some(observer) = socket.observer
                && !flow.is_closed()
            {
                observer.ended(flow.summary(now, code));
            }
        }
    }
}

impl Drop for DetachedSession {
    fn drop(&mut self) {
        self.end_all(ResetCode::WsBroken);
    }
}
