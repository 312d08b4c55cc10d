//! Bodies of HELLO, HELLO_ACK, RENEW and RENEW_ACK.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::DecodeError;
use super::tlv::{
    Field, FieldWriter, next_field, put_short_text, take, take_short_text, take_u8, take_u64, text,
};
use crate::epoch::Epoch;
use crate::limits::{
    MAX_CONNECTORS, MAX_MESSAGE_BYTES, MAX_PAIRS, MAX_TEXT_BYTES, MAX_TOKEN_BYTES,
};
use crate::name::{AgentId, ConnectorName, ReplicaId, TenantName};

/// Tells one process of an agent from another that has the same identity. Random per process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u64);

/// Lets a new tunnel take over the flows of an earlier one. It never replaces authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct ResumeToken(pub [u8; 32]);

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeToken(***)")
    }
}

/// What a tunnel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Holds the claim on the agent and carries its flows.
    Primary,
    /// Kept ready to be promoted; carries nothing.
    Standby,
}

/// Optional abilities; an ability is used only where both ends name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Features(pub u64);

impl Features {
    /// Flows survive a tunnel.
    pub const RESUME: Self = Self(1);
    /// The agent follows DRAIN by opening a replacement.
    pub const DRAIN: Self = Self(1 << 1);
    /// Flows of kind `udp`. Reserved.
    pub const DATAGRAMS: Self = Self(1 << 2);
    /// The agent writes the PROXY protocol header that OPEN asks for.
    pub const PROXY_PROTOCOL: Self = Self(1 << 3);
    /// The agent sends no message that is longer than HELLO_ACK says.
    pub const MESSAGE_BOUND: Self = Self(1 << 4);
    /// The agent follows REWIND, so its flows outlive a link between hubs.
    pub const REWIND: Self = Self(1 << 5);

    /// Whether all of `other` is in here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The agent's first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Lowest protocol version that the agent speaks.
    pub ver_min: u16,
    /// Highest protocol version that the agent speaks.
    pub ver_max: u16,
    /// Who the agent says it is; compared with what its token proves.
    pub agent_id: AgentId,
    /// The tenant that the agent says it belongs to; compared, never used.
    pub tenant: Option<TenantName>,
    /// Which process of the agent this is.
    pub instance: InstanceId,
    /// What the tunnel is for.
    pub role: Role,
    /// What the agent offers. At most [`MAX_CONNECTORS`].
    pub connectors: Vec<ConnectorName>,
    /// Facts about the agent for operators and policies. At most [`MAX_PAIRS`].
    pub labels: Vec<(String, String)>,
    /// Transports that the agent could use, in its order of preference.
    pub transports: Vec<String>,
    /// Optional abilities.
    pub features: Features,
    /// The epoch of the agent's last claim, as witness against a lost write.
    pub last_epoch: Option<Epoch>,
    /// Token of the earlier tunnel whose flows should go on here.
    pub resume: Option<ResumeToken>,
    /// Version of the agent's program.
    pub agent_version: String,
    /// Largest DATA payload that the agent takes, in bytes.
    pub max_data_payload: u32,
    /// Window that the hub may use on a new flow before any WINDOW, in bytes.
    pub flow_window: u32,
}

/// Why a connector was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The connector.
    pub connector: ConnectorName,
    /// Stable code, from a policy, a plugin or the hub.
    pub code: String,
    /// The reason in words.
    pub message: String,
    /// The decision's id, for `nowconnect policy explain`.
    pub decision: String,
}

/// The hub's answer to HELLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloAck {
    /// The protocol version chosen.
    pub ver: u16,
    /// Names the session at this hub.
    pub session: u64,
    /// The hub that answers.
    pub replica: ReplicaId,
    /// The claim that the hub holds on the agent now.
    pub epoch: Epoch,
    /// Connectors that may be reached.
    pub accepted: Vec<ConnectorName>,
    /// Connectors that may not.
    pub refused: Vec<Refusal>,
    /// For the tunnel that follows this one.
    pub resume: ResumeToken,
    /// Whether the flows of the earlier tunnel are here and wait for RESUME.
    pub resumed: bool,
    /// Milliseconds until the token that was shown runs out.
    pub token_expires_in_ms: Option<u64>,
    /// Milliseconds without traffic after which either end pings.
    pub ping_interval_ms: u32,
    /// Milliseconds without an answer after which either end gives the tunnel up.
    pub ping_timeout_ms: u32,
    /// Milliseconds for which the flows of a broken tunnel wait for a new one.
    pub resume_grace_ms: u32,
    /// Largest DATA payload that the hub takes, in bytes.
    pub max_data_payload: u32,
    /// Window that the agent may use on a new flow before any WINDOW, in bytes.
    pub flow_window: u32,
    /// Abilities that both ends have.
    pub features: Features,
    /// Largest WebSocket message that the hub takes, in bytes, from an agent that names
    /// [`Features::MESSAGE_BOUND`].
    pub max_message: u32,
}

/// A new token, a new list of connectors, or both, on a living tunnel.
#[derive(Clone, PartialEq, Eq)]
pub struct Renew {
    /// The new token; none keeps the one shown before. Secret.
    pub token: Option<String>,
    /// The whole new list of connectors; none keeps the one announced before.
    pub connectors: Option<Vec<ConnectorName>>,
}

impl fmt::Debug for Renew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renew")
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("connectors", &self.connectors)
            .finish()
    }
}

/// The hub's answer to RENEW.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewAck {
    /// Whether the new token or list holds now; if not, the earlier one still does.
    pub ok: bool,
    /// Why not.
    pub message: String,
    /// Connectors that may be reached now.
    pub accepted: Vec<ConnectorName>,
    /// Connectors that may not.
    pub refused: Vec<Refusal>,
    /// Milliseconds until the token in force runs out.
    pub token_expires_in_ms: Option<u64>,
}

mod key {
    pub(super) const VER_MIN: u8 = 1;
    pub(super) const VER_MAX: u8 = 2;
    pub(super) const AGENT_ID: u8 = 3;
    pub(super) const TENANT: u8 = 4;
    pub(super) const INSTANCE: u8 = 5;
    pub(super) const ROLE: u8 = 6;
    pub(super) const CONNECTOR: u8 = 7;
    pub(super) const LABEL: u8 = 8;
    pub(super) const TRANSPORT: u8 = 9;
    pub(super) const FEATURES: u8 = 10;
    pub(super) const EPOCH: u8 = 11;
    pub(super) const RESUME: u8 = 12;
    pub(super) const AGENT_VERSION: u8 = 13;
    pub(super) const MAX_DATA_PAYLOAD: u8 = 14;
    pub(super) const FLOW_WINDOW: u8 = 15;
    pub(super) const VER: u8 = 16;
    pub(super) const SESSION: u8 = 17;
    pub(super) const REPLICA: u8 = 18;
    pub(super) const REFUSAL: u8 = 19;
    pub(super) const RESUMED: u8 = 20;
    pub(super) const TOKEN_EXPIRES_IN_MS: u8 = 21;
    pub(super) const PING_INTERVAL_MS: u8 = 22;
    pub(super) const PING_TIMEOUT_MS: u8 = 23;
    pub(super) const RESUME_GRACE_MS: u8 = 24;
    pub(super) const TOKEN: u8 = 25;
    pub(super) const CONNECTORS_GIVEN: u8 = 26;
    pub(super) const OK: u8 = 27;
    pub(super) const MESSAGE: u8 = 28;
    pub(super) const MAX_MESSAGE: u8 = 29;
}

/// What HELLO_ACK means where it says nothing of the size of messages.
const LARGEST_MESSAGE: u32 = MAX_MESSAGE_BYTES as u32;

fn bounded_text(field: &Field) -> Result<String, DecodeError> {
    if field.value.len() > MAX_TEXT_BYTES {
        return Err(DecodeError::TooLong {
            what: "text",
            max: MAX_TEXT_BYTES,
        });
    }
    field.text()
}

fn push_connector(list: &mut Vec<ConnectorName>, field: &Field) -> Result<(), DecodeError> {
    if list.len() >= MAX_CONNECTORS {
        return Err(DecodeError::TooMany {
            what: "connectors",
            max: MAX_CONNECTORS,
        });
    }
    list.push(ConnectorName::parse(&field.text()?)?);
    Ok(())
}

fn push_refusal(list: &mut Vec<Refusal>, field: &Field) -> Result<(), DecodeError> {
    if list.len() >= MAX_CONNECTORS {
        return Err(DecodeError::TooMany {
            what: "refusals",
            max: MAX_CONNECTORS,
        });
    }
    let mut value = field.value.clone();
    list.push(Refusal {
        connector: ConnectorName::parse(&take_short_text(&mut value)?)?,
        code: take_short_text(&mut value)?,
        message: take_short_text(&mut value)?,
        decision: take_short_text(&mut value)?,
    });
    Ok(())
}

fn put_refusals(out: &mut FieldWriter<'_>, refused: &[Refusal]) {
    for refusal in refused {
        let mut value = BytesMut::new();
        put_short_text(&mut value, refusal.connector.as_str());
        put_short_text(&mut value, &refusal.code);
        put_short_text(&mut value, &refusal.message);
        put_short_text(&mut value, &refusal.decision);
        out.bytes(key::REFUSAL, &value);
    }
}

fn put_epoch(out: &mut FieldWriter<'_>, epoch: &Epoch) {
    let mut value = BytesMut::new();
    value.extend_from_slice(&epoch.counter.to_be_bytes());
    value.extend_from_slice(epoch.replica.as_str().as_bytes());
    out.bytes(key::EPOCH, &value);
}

fn epoch(field: &Field) -> Result<Epoch, DecodeError> {
    let mut value = field.value.clone();
    let counter = take_u64(&mut value)?;
    Ok(Epoch {
        counter,
        replica: ReplicaId::parse(&text(&value)?)?,
    })
}

fn resume_token(field: &Field) -> Result<ResumeToken, DecodeError> {
    let mut value = field.value.clone();
    let mut token = [0; 32];
    token.copy_from_slice(&take(&mut value, 32)?);
    if value.is_empty() {
        Ok(ResumeToken(token))
    } else {
        Err(DecodeError::FieldLength)
    }
}

fn flag(field: &Field) -> Result<bool, DecodeError> {
    match take_u8(&mut field.value.clone())? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Value { what: "flag" }),
    }
}

fn required<T>(value: Option<T>, what: &'static str) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { what })
}

impl Hello {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let mut out = FieldWriter::new(out);
        out.u16(key::VER_MIN, self.ver_min);
        out.u16(key::VER_MAX, self.ver_max);
        out.text(key::AGENT_ID, self.agent_id.as_str());
        if let Some(tenant) = &self.tenant {
            out.text(key::TENANT, tenant.as_str());
        }
        out.u64(key::INSTANCE, self.instance.0);
        out.bytes(key::ROLE, &[u8::from(self.role == Role::Standby)]);
        for connector in &self.connectors {
            out.text(key::CONNECTOR, connector.as_str());
        }
        for (name, value) in &self.labels {
            out.pair(key::LABEL, name, value);
        }
        for transport in &self.transports {
            out.text(key::TRANSPORT, transport);
        }
        out.u64(key::FEATURES, self.features.0);
        if let Some(epoch) = &self.last_epoch {
            put_epoch(&mut out, epoch);
        }
        if let Some(token) = &self.resume {
            out.bytes(key::RESUME, &token.0);
        }
        out.text(key::AGENT_VERSION, &self.agent_version);
        out.u32(key::MAX_DATA_PAYLOAD, self.max_data_payload);
        out.u32(key::FLOW_WINDOW, self.flow_window);
    }

    pub(super) fn decode(mut body: Bytes) -> Result<Self, DecodeError> {
        let (mut ver_min, mut ver_max, mut agent_id, mut instance) = (None, None, None, None);
        let (mut max_data_payload, mut flow_window) = (None, None);
        let (mut tenant, mut last_epoch, mut resume) = (None, None, None);
        let (mut connectors, mut labels, mut transports) = (Vec::new(), Vec::new(), Vec::new());
        let mut role = Role::Primary;
        let mut features = Features::default();
        let mut agent_version = String::new();
        while let Some(field) = next_field(&mut body)? {
            match field.key {
                key::VER_MIN => ver_min = Some(field.u16()?),
                key::VER_MAX => ver_max = Some(field.u16()?),
                key::AGENT_ID => agent_id = Some(AgentId::parse(&field.text()?)?),
                key::TENANT => tenant = Some(TenantName::parse(&field.text()?)?),
                key::INSTANCE => instance = Some(InstanceId(field.u64()?)),
                key::ROLE => {
                    role = if flag(&field)? {
                        Role::Standby
                    } else {
                        Role::Primary
                    };
                }
                key::CONNECTOR => push_connector(&mut connectors, &field)?,
                key::LABEL => push_pair(&mut labels, &field)?,
                key::TRANSPORT => {
                    if transports.len() >= MAX_PAIRS {
                        return Err(DecodeError::TooMany {
                            what: "transports",
                            max: MAX_PAIRS,
                        });
                    }
                    transports.push(bounded_text(&field)?);
                }
                key::FEATURES => features = Features(field.u64()?),
                key::EPOCH => last_epoch = Some(epoch(&field)?),
                key::RESUME => resume = Some(resume_token(&field)?),
                key::AGENT_VERSION => agent_version = bounded_text(&field)?,
                key::MAX_DATA_PAYLOAD => max_data_payload = Some(field.u32()?),
                key::FLOW_WINDOW => flow_window = Some(field.u32()?),
                _ => {}
            }
        }
        Ok(Self {
            ver_min: required(ver_min, "lowest version")?,
            ver_max: required(ver_max, "highest version")?,
            agent_id: required(agent_id, "agent id")?,
            tenant,
            instance: required(instance, "instance")?,
            role,
            connectors,
            labels,
            transports,
            features,
            last_epoch,
            resume,
            agent_version,
            max_data_payload: required(max_data_payload, "payload limit")?,
            flow_window: required(flow_window, "flow window")?,
        })
    }
}

pub(super) fn push_pair(
    list: &mut Vec<(String, String)>,
    field: &Field,
) -> Result<(), DecodeError> {
    if list.len() >= MAX_PAIRS {
        return Err(DecodeError::TooMany {
            what: "pairs",
            max: MAX_PAIRS,
        });
    }
    let (name, value) = field.pair()?;
    if name.len().max(value.len()) > MAX_TEXT_BYTES {
        return Err(DecodeError::TooLong {
            what: "text",
            max: MAX_TEXT_BYTES,
        });
    }
    list.push((name, value));
    Ok(())
}

impl HelloAck {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let mut out = FieldWriter::new(out);
        out.u16(key::VER, self.ver);
        out.u64(key::SESSION, self.session);
        out.text(key::REPLICA, self.replica.as_str());
        put_epoch(&mut out, &self.epoch);
        for connector in &self.accepted {
            out.text(key::CONNECTOR, connector.as_str());
        }
        put_refusals(&mut out, &self.refused);
        out.bytes(key::RESUME, &self.resume.0);
        out.bytes(key::RESUMED, &[u8::from(self.resumed)]);
        if let Some(millis) = self.token_expires_in_ms {
            out.u64(key::TOKEN_EXPIRES_IN_MS, millis);
        }
        out.u32(key::PING_INTERVAL_MS, self.ping_interval_ms);
        out.u32(key::PING_TIMEOUT_MS, self.ping_timeout_ms);
        out.u32(key::RESUME_GRACE_MS, self.resume_grace_ms);
        out.u32(key::MAX_DATA_PAYLOAD, self.max_data_payload);
        out.u32(key::FLOW_WINDOW, self.flow_window);
        out.u64(key::FEATURES, self.features.0);
        if self.max_message != LARGEST_MESSAGE {
            out.u32(key::MAX_MESSAGE, self.max_message);
        }
    }

    pub(super) fn decode(mut body: Bytes) -> Result<Self, DecodeError> {
        let (mut ver, mut session, mut replica, mut claim) = (None, None, None, None);
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        let (mut resume, mut resumed, mut token_expires_in_ms) = (None, false, None);
        let (mut ping_interval_ms, mut ping_timeout_ms, mut resume_grace_ms) = (None, None, None);
        let (mut max_data_payload, mut flow_window) = (None, None);
        let mut features = Features::default();
        let mut max_message = LARGEST_MESSAGE;
        while let Some(field) = next_field(&mut body)? {
            match field.key {
                key::VER => ver = Some(field.u16()?),
                key::SESSION => session = Some(field.u64()?),
                key::REPLICA => replica = Some(ReplicaId::parse(&field.text()?)?),
                key::EPOCH => claim = Some(epoch(&field)?),
                key::CONNECTOR => push_connector(&mut accepted, &field)?,
                key::REFUSAL => push_refusal(&mut refused, &field)?,
                key::RESUME => resume = Some(resume_token(&field)?),
                key::RESUMED => resumed = flag(&field)?,
                key::TOKEN_EXPIRES_IN_MS => token_expires_in_ms = Some(field.u64()?),
                key::PING_INTERVAL_MS => ping_interval_ms = Some(field.u32()?),
                key::PING_TIMEOUT_MS => ping_timeout_ms = Some(field.u32()?),
                key::RESUME_GRACE_MS => resume_grace_ms = Some(field.u32()?),
                key::MAX_DATA_PAYLOAD => max_data_payload = Some(field.u32()?),
                key::FLOW_WINDOW => flow_window = Some(field.u32()?),
                key::FEATURES => features = Features(field.u64()?),
                key::MAX_MESSAGE => max_message = field.u32()?,
                _ => {}
            }
        }
        Ok(Self {
            ver: required(ver, "version")?,
            session: required(session, "session")?,
            replica: required(replica, "replica")?,
            epoch: required(claim, "epoch")?,
            accepted,
            refused,
            resume: required(resume, "resume token")?,
            resumed,
            token_expires_in_ms,
            ping_interval_ms: required(ping_interval_ms, "ping interval")?,
            ping_timeout_ms: required(ping_timeout_ms, "ping timeout")?,
            resume_grace_ms: required(resume_grace_ms, "resume grace")?,
            max_data_payload: required(max_data_payload, "payload limit")?,
            flow_window: required(flow_window, "flow window")?,
            features,
            max_message,
        })
    }
}

impl Renew {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let mut out = FieldWriter::new(out);
        if let Some(token) = &self.token {
            out.text(key::TOKEN, token);
        }
        if let Some(connectors) = &self.connectors {
            out.bytes(key::CONNECTORS_GIVEN, &[1]);
            for connector in connectors {
                out.text(key::CONNECTOR, connector.as_str());
            }
        }
    }

    pub(super) fn decode(mut body: Bytes) -> Result<Self, DecodeError> {
        let (mut token, mut given, mut connectors) = (None, false, Vec::new());
        while let Some(field) = next_field(&mut body)? {
            match field.key {
                key::TOKEN if field.value.len() > MAX_TOKEN_BYTES => {
                    return Err(DecodeError::TooLong {
                        what: "token",
                        max: MAX_TOKEN_BYTES,
                    });
                }
                key::TOKEN => token = Some(field.text()?),
                key::CONNECTORS_GIVEN => given = flag(&field)?,
                key::CONNECTOR => push_connector(&mut connectors, &field)?,
                _ => {}
            }
        }
        Ok(Self {
            token,
            connectors: given.then_some(connectors),
        })
    }
}

impl RenewAck {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let mut out = FieldWriter::new(out);
        out.bytes(key::OK, &[u8::from(self.ok)]);
        out.text(key::MESSAGE, &self.message);
        for connector in &self.accepted {
            out.text(key::CONNECTOR, connector.as_str());
        }
        put_refusals(&mut out, &self.refused);
        if let Some(millis) = self.token_expires_in_ms {
            out.u64(key::TOKEN_EXPIRES_IN_MS, millis);
        }
    }

    pub(super) fn decode(mut body: Bytes) -> Result<Self, DecodeError> {
        let (mut ok, mut message, mut token_expires_in_ms) = (None, String::new(), None);
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        while let Some(field) = next_field(&mut body)? {
            match field.key {
                key::OK => ok = Some(flag(&field)?),
                key::MESSAGE => message = bounded_text(&field)?,
                key::CONNECTOR => push_connector(&mut accepted, &field)?,
                key::REFUSAL => push_refusal(&mut refused, &field)?,
                key::TOKEN_EXPIRES_IN_MS => token_expires_in_ms = Some(field.u64()?),
                _ => {}
            }
        }
        Ok(Self {
            ok: required(ok, "verdict")?,
            message,
            accepted,
            refused,
            token_expires_in_ms,
        })
    }
}
