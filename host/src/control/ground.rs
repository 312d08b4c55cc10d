//! What the API needs of the hub that it stands on.

use std::net::SocketAddr;

use nowconnect_control::Management;
use nowconnect_store::Endpoint;

use super::edges::Edge;
use super::published::Changed;
use super::shapes::{Agent, Flow, Route};
use crate::admin::view::AdminRefusal;

/// The policies' answer was no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forbidden {
    /// Which policy, and under which decision id it can be looked up.
    pub(super) why: String,
}

/// What a client wants to do with an endpoint or a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// See endpoints or names of its tenant.
    List,
    /// Delete an endpoint, or give a name back.
    Close,
    /// Reserve a name.
    Reserve,
    /// See agents of its tenant.
    ListAgents,
    /// End the session of an agent, now, gently or for good.
    EndAgent,
    /// See flows of its tenant.
    ListFlows,
    /// End a flow.
    CloseFlow,
    /// See how much tenants may have.
    ListQuotas,
    /// Say how much a tenant may have.
    SetQuota,
}

/// What a call is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Subject<'a> {
    /// What there is of its tenant.
    All,
    /// An endpoint, or a name as one.
    Endpoint(EndpointSubject<'a>),
    /// An agent of the client's tenant by its id, connected or not.
    Agent(&'a str),
}

/// An endpoint that a call is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndpointSubject<'a> {
    pub(super) endpoint: &'a Endpoint,
    /// Its host name.
    pub(super) host: &'a str,
    /// Whether its tenant has reserved the name, or is about to.
    pub(super) reserved: bool,
}

/// How an agent's session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// At once; it may come again.
    Kick,
    /// It opens a replacement and finishes here.
    Drain,
    /// For good: its tokens count no more.
    Revoke,
}

/// What is asked about before an endpoint is made.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// The endpoint as it would be.
    pub(super) endpoint: &'a Endpoint,
    /// Its host name.
    pub(super) host: &'a str,
    /// Whether its tenant has reserved the name.
    pub(super) reserved: bool,
    /// How many others its maker has.
    pub(super) open_endpoints: u32,
    /// When its first token ends, in milliseconds since 1970.
    pub(super) token_until_ms: u64,
}

/// The hub, as the API knows it.
pub(super) trait Ground: Send + Sync + 'static {
    /// Whether policies let this endpoint be made, for whom it will belong to.
    fn may_create(&self, from: SocketAddr, wanted: &Wanted<'_>) -> Result<(), Forbidden>;

    /// Whether policies let a client do this.
    fn may(
        &self,
        from: SocketAddr,
        client: &Management,
        deed: Deed,
        subject: Subject<'_>,
    ) -> Result<(), Forbidden>;

    /// The agents of a tenant that have a session, by their ids.
    fn agents(&self, tenant: &str) -> Vec<Agent>;

    /// Ends an agent's session.
    fn end_agent(&self, tenant: &str, agent: &str, ending: Ending) -> Result<(), AdminRefusal>;

    /// The flows of a tenant's agents, oldest first, with their numbers.
    fn flows(&self, tenant: &str) -> Vec<(u64, Flow)>;

    /// Ends a flow, if it is of an agent of the tenant.
    fn close_flow(&self, tenant: &str, flow: &str) -> Result<(), AdminRefusal>;

    /// The tenant's routes of the configuration, by name.
    fn routes(&self, tenant: &str) -> Vec<Route>;

    /// Whether the operator has revoked a client's token before its time.
    fn is_revoked(&self, client: &Management) -> bool;

    /// Whether a route of the configuration has the name or answers to the host.
    fn is_configured(&self, tenant: &str, name: &str, host: &str) -> bool;

    /// Tells the policies what a name stands for now.
    fn changed(&self, changed: &Changed);

    /// Whether the agent of an endpoint is connected here.
    fn is_here(&self, tenant: &str, agent: &str) -> bool;

    /// Ends the session of an endpoint's agent, if it has one, and does not let it go on elsewhere.
    fn send_away(&self, tenant: &str, agent: &str);

    /// The ways to hubs that take agents, as the operator orders them.
    fn edges(&self) -> Vec<Edge>;

    /// This hub's name.
    fn replica(&self) -> String;

    /// The address for people of a published host name, or of the public port beside it.
    fn public_url(&self, host: &str, port: Option<u16>) -> String;
}
