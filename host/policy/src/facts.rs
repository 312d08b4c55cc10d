//! What the hub knows about agents, connectors, endpoints, listeners and replicas.
//!
//! [`Facts`] is one shared store for the life of the hub. The registry puts rows in and takes
//! them out as agents come and go; a decision looks up the handful of rows that it needs and
//! never copies the store. It holds no row for an authenticated viewer, an operator or an
//! agent that says HELLO: those come with the question.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};
use serde::{Deserialize, Serialize};

use crate::Name;
use crate::row::Row;

/// What a verified token says about an agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AgentFacts {
    /// Tenant and agent id.
    pub agent: Name,
    /// Connectors that its token names; empty where the token has no such claim.
    pub scopes: Vec<Name>,
    /// Whether it goes away with its session.
    pub ephemeral: bool,
    /// When its token ends, in milliseconds since 1970.
    pub token_expires_ms: u64,
    /// Groups, from its tenant's claims and from configuration.
    pub groups: Vec<Arc<str>>,
    /// Labels and claims that policies may read by `getTag`.
    pub tags: Vec<(String, String)>,
}

/// A target that agents may offer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConnectorFacts {
    /// Tenant and name.
    pub connector: Name,
    /// `tcp` where nothing else is known.
    pub protocol: String,
    /// The one agent it belongs to, where there is one.
    pub owner: Option<Name>,
    /// Groups it is in.
    pub groups: Vec<Arc<str>>,
    /// Labels.
    pub tags: Vec<(String, String)>,
}

impl ConnectorFacts {
    /// A TCP connector without owner, groups or labels.
    #[must_use]
    pub fn tcp(connector: Name) -> Self {
        Self {
            connector,
            protocol: "tcp".to_owned(),
            owner: None,
            groups: Vec::new(),
            tags: Vec::new(),
        }
    }
}

/// A published HTTP name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndpointFacts {
    /// Tenant and name.
    pub endpoint: Name,
    /// The agent it belongs to.
    pub owner: Name,
    /// Host name it answers to.
    pub host: String,
    /// Whether the name was reserved beforehand.
    pub reserved: bool,
    /// Whether anybody may ask.
    pub public: bool,
    /// Labels.
    pub tags: Vec<(String, String)>,
}

/// A public port of the hub.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ListenerFacts {
    /// Tenant and name.
    pub listener: Name,
    /// The port it is bound to.
    pub port: u16,
    /// `tcp`, `http`, `tunnel`, `mesh` or `admin`.
    pub protocol: String,
}

/// An authenticated client.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ViewerFacts {
    /// Tenant and subject.
    pub viewer: Name,
    /// Who vouches for it.
    pub issuer: Option<String>,
    /// Its e-mail address.
    pub email: Option<String>,
    /// Whether the issuer verified that address.
    pub email_verified: Option<bool>,
    /// How it was authenticated, such as `mfa`.
    pub amr: Vec<String>,
    /// When it was authenticated, in milliseconds since 1970.
    pub auth_time_ms: Option<u64>,
    /// Groups it is in.
    pub groups: Vec<Arc<str>>,
    /// Further claims.
    pub tags: Vec<(String, String)>,
}

/// Somebody at the admin API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OperatorFacts {
    /// Tenant and subject.
    pub operator: Name,
    /// Roles, such as `viewer` or `admin`.
    pub roles: Vec<Arc<str>>,
    /// How it was authenticated; `local-socket` for the hub's own Unix socket.
    pub amr: Vec<String>,
    /// Whether the emergency way in was used.
    pub break_glass: bool,
}

/// The shared store. All methods take `&self`; put it in an `Arc`.
///
/// A change is seen by the next decision; one decision sees one state of the store.
#[derive(Debug, Default)]
pub struct Facts {
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) agents: HashMap<Name, Arc<Row>>,
    pub(crate) connectors: HashMap<Name, Arc<Row>>,
    pub(crate) endpoints: HashMap<Name, Arc<Row>>,
    pub(crate) listeners: HashMap<Name, Arc<Row>>,
}

impl Facts {
    /// A store without rows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces the row of an agent.
    pub fn put_agent(&self, agent: &AgentFacts) {
        let row = Arc::new(Row::agent(agent));
        self.tables.write().agents.insert(agent.agent.clone(), row);
    }

    /// Takes the row of an agent away.
    pub fn remove_agent(&self, agent: &Name) {
        self.tables.write().agents.remove(agent);
    }

    /// Adds or replaces the row of a connector.
    pub fn put_connector(&self, connector: &ConnectorFacts) {
        let row = Arc::new(Row::connector(connector));
        let mut tables = self.tables.write();
        tables.connectors.insert(connector.connector.clone(), row);
    }

    /// Adds a plain TCP connector, unless there is a row of that name already: for a connector
    /// that an agent offers and the configuration says nothing about.
    pub fn ensure_connector(&self, connector: &Name) {
        let mut tables = self.tables.write();
        if !tables.connectors.contains_key(connector) {
            let row = Arc::new(Row::connector(&ConnectorFacts::tcp(connector.clone())));
            tables.connectors.insert(connector.clone(), row);
        }
    }

    /// Takes the row of a connector away.
    pub fn remove_connector(&self, connector: &Name) {
        self.tables.write().connectors.remove(connector);
    }

    /// Adds or replaces the row of an endpoint.
    pub fn put_endpoint(&self, endpoint: &EndpointFacts) {
        let row = Arc::new(Row::endpoint(endpoint));
        let mut tables = self.tables.write();
        tables.endpoints.insert(endpoint.endpoint.clone(), row);
    }

    /// Takes the row of an endpoint away.
    pub fn remove_endpoint(&self, endpoint: &Name) {
        self.tables.write().endpoints.remove(endpoint);
    }

    /// Adds or replaces the row of a listener.
    pub fn put_listener(&self, listener: &ListenerFacts) {
        let row = Arc::new(Row::listener(listener));
        let mut tables = self.tables.write();
        tables.listeners.insert(listener.listener.clone(), row);
    }

    /// Takes the row of a listener away.
    pub fn remove_listener(&self, listener: &Name) {
        self.tables.write().listeners.remove(listener);
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read()
    }
}
