//! What two questions have in common.

use std::sync::{Arc, LazyLock};

use crate::question::{Meta, Net, Question};
use crate::{AgentFacts, Name};

static NOTHING: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));

impl Question {
    /// The same question without what differs each time that it is asked: the moment, the ids of
    /// the request, the client's port, how many flows there are, when a token ends. Questions of
    /// one essence need to be tried only once against another set of policies.
    #[must_use]
    pub fn essence(&self) -> Self {
        let mut question = self.clone();
        match &mut question {
            Self::Hello(hello) => {
                plain(Some(&mut hello.net), &mut hello.meta);
                timeless(&mut hello.agent);
            }
            Self::Announce(announce) => {
                plain(Some(&mut announce.net), &mut announce.meta);
                timeless(&mut announce.agent);
            }
            Self::EndpointCreate(create) => {
                plain(Some(&mut create.net), &mut create.meta);
                timeless(&mut create.agent);
                create.open_endpoints = 0;
            }
            Self::Open(open) => {
                plain(Some(&mut open.net), &mut open.meta);
                open.open_flows = 0;
            }
            Self::HttpRequest(request) => plain(Some(&mut request.net), &mut request.meta),
            Self::UpstreamOpen(open) => plain(None, &mut open.meta),
            Self::MeshJoin(join) => plain(Some(&mut join.net), &mut join.meta),
            Self::MeshForward(forward) => plain(Some(&mut forward.net), &mut forward.meta),
            Self::Admin(admin) => plain(Some(&mut admin.net), &mut admin.meta),
        }
        question
    }

    /// The action's name, such as `open`.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Announce(_) => "announce",
            Self::EndpointCreate(_) => "endpoint-create",
            Self::Open(_) => "open",
            Self::HttpRequest(_) => "http-request",
            Self::UpstreamOpen(_) => "upstream-open",
            Self::MeshJoin(_) => "mesh-join",
            Self::MeshForward(_) => "mesh-forward",
            Self::Admin(_) => "admin",
        }
    }

    /// The names in it that have a tenant: who asks, what is asked for, and through what.
    #[must_use]
    pub fn names(&self) -> Vec<&Name> {
        match self {
            Self::Hello(hello) => {
                let mut names = vec![&hello.agent.agent, &hello.claimed];
                names.extend(&hello.announced);
                names
            }
            Self::Announce(announce) => vec![&announce.agent.agent, &announce.connector],
            Self::EndpointCreate(create) => vec![&create.agent.agent, &create.endpoint.endpoint],
            Self::Open(open) => vec![&open.connector, &open.agent],
            Self::HttpRequest(request) => {
                vec![&request.endpoint, &request.connector, &request.agent]
            }
            Self::UpstreamOpen(open) => vec![&open.connector, &open.agent],
            Self::MeshForward(forward) => vec![&forward.connector, &forward.agent],
            Self::MeshJoin(_) | Self::Admin(_) => Vec::new(),
        }
    }
}

fn plain(net: Option<&mut Net>, meta: &mut Meta) {
    if let Some(net) = net {
        net.source_port = 0;
    }
    meta.now_ms = 0;
    meta.request_id = Arc::clone(&NOTHING);
    meta.trace_id = None;
}

fn timeless(agent: &mut Arc<AgentFacts>) {
    Arc::make_mut(agent).token_expires_ms = 0;
}
