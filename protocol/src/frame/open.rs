//! Bodies of OPEN and OPEN_ACK.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::DecodeError;
use super::hello::push_pair;
use super::tlv::{FieldWriter, next_field, put_short_text, take_short_text, take_u32, take_u64};
use crate::flow::FlowKind;
use crate::flow_ref::FlowRef;
use crate::limits::MAX_TEXT_BYTES;
use crate::name::{ConnectorName, ReplicaId};

/// A form of the PROXY protocol's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// Text.
    V1,
    /// Binary.
    V2,
}

impl ProxyProtocol {
    const fn to_wire(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    const fn from_wire(wire: u8) -> Option<Self> {
        match wire {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }
}

/// Opens a flow. Idempotent by `flow_ref`: the agent dials once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The flow on this tunnel, given by the hub and never used again in it.
    pub cid: u32,
    /// The flow for its whole life.
    pub flow_ref: FlowRef,
    /// What the client wants to reach.
    pub connector: ConnectorName,
    /// What the flow carries.
    pub kind: FlowKind,
    /// The client's address and port, where policy lets the agent know it.
    pub client_address: Option<String>,
    /// W3C `traceparent` of the flow's trace.
    pub trace_parent: Option<String>,
    /// Facts that policies and plugins attached. At most
    /// [`MAX_PAIRS`](crate::limits::MAX_PAIRS).
    pub metadata: Vec<(String, String)>,
    /// The PROXY protocol header that the target expects before the first byte, as far as the hub
    /// knows. Only to an agent that names [`Features::PROXY_PROTOCOL`](super::Features).
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// The target is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAck {
    /// The flow on this tunnel.
    pub cid: u32,
    /// The protocol that TLS to the target agreed on.
    pub alpn: Option<String>,
}

mod key {
    pub(super) const CONNECTOR: u8 = 1;
    pub(super) const KIND: u8 = 2;
    pub(super) const CLIENT_ADDRESS: u8 = 3;
    pub(super) const TRACE_PARENT: u8 = 4;
    pub(super) const METADATA: u8 = 5;
    pub(super) const ALPN: u8 = 6;
    pub(super) const PROXY_PROTOCOL: u8 = 7;
}

pub(crate) fn put_flow_ref(out: &mut BytesMut, flow_ref: &FlowRef) {
    out.put_u64(flow_ref.boot);
    out.put_u64(flow_ref.number);
    put_short_text(out, flow_ref.origin.as_str());
}

pub(crate) fn take_flow_ref(input: &mut Bytes) -> Result<FlowRef, DecodeError> {
    let boot = take_u64(input)?;
    let number = take_u64(input)?;
    let origin = ReplicaId::parse(&take_short_text(input)?)?;
    Ok(FlowRef {
        origin,
        boot,
        number,
    })
}

fn bounded(text: String) -> Result<String, DecodeError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(DecodeError::TooLong {
            what: "text",
            max: MAX_TEXT_BYTES,
        });
    }
    Ok(text)
}

impl Open {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.cid);
        put_flow_ref(out, &self.flow_ref);
        let mut out = FieldWriter::new(out);
        out.text(key::CONNECTOR, self.connector.as_str());
        if self.kind != FlowKind::Tcp {
            out.bytes(key::KIND, &[self.kind.to_wire()]);
        }
        if let Some(address) = &self.client_address {
            out.text(key::CLIENT_ADDRESS, address);
        }
        if let Some(trace_parent) = &self.trace_parent {
            out.text(key::TRACE_PARENT, trace_parent);
        }
        for (name, value) in &self.metadata {
            out.pair(key::METADATA, name, value);
        }
        if let Some(version) = self.proxy_protocol {
            out.bytes(key::PROXY_PROTOCOL, &[version.to_wire()]);
        }
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self, DecodeError> {
        let cid = take_u32(&mut body)?;
        let flow_ref = take_flow_ref(&mut body)?;
        let mut connector = None;
        let mut kind = FlowKind::Tcp;
        let (mut client_address, mut trace_parent) = (None, None);
        let mut metadata = Vec::new();
        let mut proxy_protocol = None;
        while let Some(field) = next_field(&mut body)? {
            match field.key {
                key::CONNECTOR => connector = Some(ConnectorName::parse(&field.text()?)?),
                key::KIND => {
                    kind = match field.value.chunk() {
                        [wire] => FlowKind::from_wire(*wire)
                            .ok_or(DecodeError::Value { what: "flow kind" })?,
                        _ => return Err(DecodeError::FieldLength),
                    };
                }
                key::CLIENT_ADDRESS => client_address = Some(bounded(field.text()?)?),
                key::TRACE_PARENT => trace_parent = Some(bounded(field.text()?)?),
                key::METADATA => push_pair(&mut metadata, &field)?,
                key::PROXY_PROTOCOL => {
                    proxy_protocol = match field.value.chunk() {
                        [wire] => {
                            Some(ProxyProtocol::from_wire(*wire).ok_or(DecodeError::Value {
                                what: "PROXY protocol version",
                            })?)
                        }
                        _ => return Err(DecodeError::FieldLength),
                    };
                }
                _ => {}
            }
        }
        Ok(Self {
            cid,
            flow_ref,
            connector: connector.ok_or(DecodeError::Missing { what: "connector" })?,
            kind,
            client_address,
            trace_parent,
            metadata,
            proxy_protocol,
        })
    }
}

impl OpenAck {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.cid);
        if let Some(alpn) = &self.alpn {
            FieldWriter::new(out).text(key::ALPN, alpn);
        }
    }

    pub(super) fn decode(mut body: Bytes) -> Result<Self, DecodeError> {
        let cid = take_u32(&mut body)?;
        let mut alpn = None;
        while let Some(field) = next_field(&mut body)? {
            if field.key == key::ALPN {
                alpn = Some(bounded(field.text()?)?);
            }
        }
        Ok(Self { cid, alpn })
    }
}
