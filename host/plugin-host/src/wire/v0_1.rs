//! The shapes of `wit/0.1` that a later version changed, and how its answers are heard. What
//! [`crate::facts`] derives has the shapes of this version.

use wasmtime::component::{ComponentType, Lift, Lower};

use super::{Edit, Findings, Next, PluginError, Reply, ResponseVerdict};
use crate::facts::{self, Agent, CallInfo, Peer};

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
    #[component(name = "budget-ns")]
    budget_ns: u64,
    shadow: bool,
}

impl<'a> Call<'a> {
    pub(super) fn new(info: &CallInfo<'a>, terms: super::Terms) -> Self {
        Self {
            request_id: info.request_id,
            trace_parent: info.trace_parent,
            tenant: info.tenant,
            session_id: info.session_id,
            flow_id: info.flow_id,
            budget_ns: terms.budget_ns,
            shadow: terms.shadow,
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Hello<'a> {
    agent: &'a Agent,
    peer: &'a Peer,
    announced: &'a [&'a str],
    why: &'a str,
}

impl<'a> Hello<'a> {
    pub(super) fn new(hello: &'a facts::Hello<'a>) -> Self {
        Self {
            agent: hello.agent,
            peer: hello.peer,
            announced: hello.announced,
            why: hello.why,
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct Closed<'a> {
    connector: &'a str,
    #[component(name = "agent-id")]
    agent_id: &'a str,
    cause: &'a str,
    #[component(name = "bytes-c2a")]
    bytes_c2a: u64,
    #[component(name = "bytes-a2c")]
    bytes_a2c: u64,
    #[component(name = "lasted-ms")]
    lasted_ms: u64,
}

impl<'a> Closed<'a> {
    pub(super) fn new(closed: &'a facts::Closed<'a>) -> Self {
        Self {
            connector: closed.connector,
            agent_id: closed.agent_id,
            cause: closed.cause,
            bytes_c2a: closed.bytes_c2a,
            bytes_a2c: closed.bytes_a2c,
            lasted_ms: closed.lasted_ms,
        }
    }
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum Error {
    #[component(name = "bad-config")]
    BadConfig(String),
    #[component(name = "unavailable")]
    Unavailable(String),
    #[component(name = "internal")]
    Internal(String),
}

impl From<Error> for PluginError {
    fn from(error: Error) -> Self {
        let (code, detail) = match error {
            Error::BadConfig(detail) => ("bad_config", detail),
            Error::Unavailable(detail) => ("unavailable", detail),
            Error::Internal(detail) => ("internal", detail),
        };
        Self {
            code: code.to_owned(),
            detail,
        }
    }
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum RequestVerdict {
    #[component(name = "next")]
    Next(Next),
    #[component(name = "reply")]
    Reply(Reply),
}

impl From<RequestVerdict> for super::RequestVerdict {
    fn from(verdict: RequestVerdict) -> Self {
        match verdict {
            RequestVerdict::Next(next) => Self::Next(next),
            RequestVerdict::Reply(reply) => Self::Reply(reply),
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(variant)]
pub(crate) enum KvError {
    #[component(name = "no-quota")]
    NoQuota,
    #[component(name = "too-large")]
    TooLarge,
    #[component(name = "unavailable")]
    Unavailable,
}

impl From<crate::kv::KvError> for KvError {
    fn from(error: crate::kv::KvError) -> Self {
        match error {
            crate::kv::KvError::NoQuota => Self::NoQuota,
            crate::kv::KvError::TooLarge | crate::kv::KvError::BadTtl => Self::TooLarge,
            crate::kv::KvError::NotACounter | crate::kv::KvError::Unavailable => Self::Unavailable,
        }
    }
}

pub(crate) type CheckConfigParams<'a> = (&'a str,);
pub(crate) type CheckConfigResult = (Result<(), Error>,);

/// An answer with the shape that the chains know, or one that becomes it.
pub(crate) fn said<T, U: From<T>>((answer,): (Result<T, Error>,)) -> Result<U, PluginError> {
    Ok(answer?.into())
}

pub(super) fn found((answer,): (Result<Vec<String>, Error>,)) -> Result<Findings, PluginError> {
    Ok(Findings {
        signals: answer?,
        carry: Vec::new(),
    })
}

pub(super) fn edited(
    (answer,): (Result<Vec<Edit>, Error>,),
) -> Result<ResponseVerdict, PluginError> {
    Ok(ResponseVerdict::Next(answer?))
}
