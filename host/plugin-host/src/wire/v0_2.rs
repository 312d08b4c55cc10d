//! The shapes of `wit/0.2`, and how its answers are heard. Each question has a bag of
//! `attributes`, so that a fact can be added without another version; the hub has none to add
//! yet where a shape below passes an empty one.

use wasmtime::component::{ComponentType, Lift, Lower};

use super::PluginError;
use crate::facts::{self, Agent, Attribute, CallInfo, Field, Head, HttpLine, Viewer};

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Call<'a> {
    #[component(name = "request-id")]
    request_id: &'a str,
    #[component(name = "trace-parent")]
    trace_parent: Option<&'a str>,
    tenant: Option<&'a str>,
    #[component(name = "session-id")]
    session_id: Option<&'a str>,
    #[component(name = "flow-id")]
    flow_id: Option<&'a str>,
    generation: u64,
    #[component(name = "budget-ns")]
    budget_ns: u64,
    shadow: bool,
    attributes: &'a [Attribute],
}

impl<'a> Call<'a> {
    pub(super) fn new(info: &CallInfo<'a>, terms: super::Terms) -> Self {
        Self {
            request_id: info.request_id,
            trace_parent: info.trace_parent,
            tenant: info.tenant,
            session_id: info.session_id,
            flow_id: info.flow_id,
            generation: info.generation,
            budget_ns: terms.budget_ns,
            shadow: terms.shadow,
            attributes: &[],
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Peer<'a> {
    ip: &'a str,
    port: u16,
    #[component(name = "tls-version")]
    tls_version: Option<&'a str>,
    sni: Option<&'a str>,
    #[component(name = "client-san")]
    client_san: Option<&'a str>,
    attributes: &'a [Attribute],
}

impl<'a> From<&'a facts::Peer> for Peer<'a> {
    fn from(peer: &'a facts::Peer) -> Self {
        Self {
            ip: &peer.ip,
            port: peer.port,
            tls_version: peer.tls_version.as_deref(),
            sni: peer.sni.as_deref(),
            client_san: peer.client_san.as_deref(),
            attributes: &[],
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Hello<'a> {
    agent: &'a Agent,
    peer: Peer<'a>,
    announced: &'a [&'a str],
    why: &'a str,
    attributes: &'a [Attribute],
}

impl<'a> Hello<'a> {
    pub(super) fn new(hello: &'a facts::Hello<'a>) -> Self {
        Self {
            agent: hello.agent,
            peer: hello.peer.into(),
            announced: hello.announced,
            why: hello.why,
            attributes: &[],
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Bye<'a> {
    #[component(name = "agent-id")]
    agent_id: &'a str,
    reason: &'a str,
    #[component(name = "lasted-ms")]
    lasted_ms: u64,
    flows: u64,
    attributes: &'a [Attribute],
}

impl<'a> Bye<'a> {
    pub(super) fn new(bye: &'a facts::Bye<'a>) -> Self {
        Self {
            agent_id: bye.agent_id,
            reason: bye.reason,
            lasted_ms: bye.lasted_ms,
            flows: bye.flows,
            attributes: &[],
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Enrich<'a> {
    connector: &'a str,
    listener: &'a str,
    peer: Peer<'a>,
    viewer: &'a Viewer,
    http: Option<&'a HttpLine<'a>>,
    attributes: &'a [Attribute],
}

impl<'a> Enrich<'a> {
    pub(super) fn new(enrich: &'a facts::Enrich<'a>) -> Self {
        Self {
            connector: enrich.connector,
            listener: enrich.listener,
            peer: enrich.peer.into(),
            viewer: enrich.viewer,
            http: enrich.http,
            attributes: &[],
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Open<'a> {
    connector: &'a str,
    listener: &'a str,
    peer: Peer<'a>,
    viewer: &'a Viewer,
    agent: &'a Agent,
    #[component(name = "via-mesh")]
    via_mesh: bool,
    attributes: &'a [Attribute],
}

impl<'a> Open<'a> {
    pub(super) fn new(open: &'a facts::Open<'a>) -> Self {
        Self {
            connector: open.connector,
            listener: open.listener,
            peer: open.peer.into(),
            viewer: open.viewer,
            agent: open.agent,
            via_mesh: open.via_mesh,
            attributes: &[],
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Closed<'a> {
    connector: &'a str,
    listener: &'a str,
    peer: Peer<'a>,
    viewer: &'a Viewer,
    #[component(name = "agent-id")]
    agent_id: &'a str,
    cause: &'a str,
    #[component(name = "bytes-c2a")]
    bytes_c2a: u64,
    #[component(name = "bytes-a2c")]
    bytes_a2c: u64,
    #[component(name = "lasted-ms")]
    lasted_ms: u64,
    attributes: &'a [Attribute],
}

impl<'a> Closed<'a> {
    pub(super) fn new(closed: &'a facts::Closed<'a>) -> Self {
        Self {
            connector: closed.connector,
            listener: closed.listener,
            peer: closed.peer.into(),
            viewer: closed.viewer,
            agent_id: closed.agent_id,
            cause: closed.cause,
            bytes_c2a: closed.bytes_c2a,
            bytes_a2c: closed.bytes_a2c,
            lasted_ms: closed.lasted_ms,
            attributes: &[],
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Request<'a> {
    head: Head<'a>,
    peer: Peer<'a>,
    viewer: &'a Viewer,
    agent: &'a Agent,
    endpoint: &'a str,
    connector: &'a str,
    attributes: &'a [Attribute],
}

impl<'a> Request<'a> {
    pub(super) fn new(request: &'a facts::HttpRequest<'a>) -> Self {
        Self {
            head: request.head,
            peer: request.peer.into(),
            viewer: request.viewer,
            agent: request.agent,
            endpoint: request.endpoint,
            connector: request.connector,
            attributes: &[],
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Response<'a> {
    status: u16,
    headers: &'a [Field],
    attributes: &'a [Attribute],
}

impl<'a> Response<'a> {
    pub(super) fn new(response: &'a facts::HttpResponse<'a>) -> Self {
        Self {
            status: response.status,
            headers: response.headers,
            attributes: &[],
        }
    }
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Error {
    code: String,
    detail: String,
}

impl From<Error> for PluginError {
    fn from(error: Error) -> Self {
        Self {
            code: error.code,
            detail: error.detail,
        }
    }
}

pub(crate) type CheckConfigParams<'a> = (&'a str,);
pub(crate) type CheckConfigResult = (Result<(), Error>,);

/// An answer has the shape that the chains know already.
pub(crate) fn said<T>((answer,): (Result<T, Error>,)) -> Result<T, PluginError> {
    Ok(answer?)
}
