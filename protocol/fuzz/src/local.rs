//! The local sockets of the model: bytes that are a function of their offset.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use nowconnect_protocol::{
    AgentId, ConnectorName, Features, FlowRef, FlowSource, Hello, InstanceId, ReplicaId,
    ResumeToken, Role, SourceRead,
};

#[expect(clippy::expect_used, reason = "the name is a constant")]
pub(crate) fn replica() -> ReplicaId {
    ReplicaId::parse("hub-1").expect("a valid name")
}

#[expect(clippy::expect_used, reason = "the name is a constant")]
pub(crate) fn connector() -> ConnectorName {
    ConnectorName::parse("echo").expect("a valid name")
}

#[expect(clippy::expect_used, reason = "the name is a constant")]
pub(crate) fn hello() -> Hello {
    Hello {
        ver_min: 1,
        ver_max: 1,
        agent_id: AgentId::parse("agent-1").expect("a valid name"),
        tenant: None,
        instance: InstanceId(1),
        role: Role::Primary,
        connectors: vec![connector()],
        labels: Vec::new(),
        transports: Vec::new(),
        features: Features::default(),
        last_epoch: None,
        resume: Some(ResumeToken([1; 32])),
        agent_version: String::new(),
        max_data_payload: 0,
        flow_window: 0,
    }
}

/// The byte at `offset` of the direction that `seed` names.
fn byte_at(seed: u64, offset: u64) -> u8 {
    let mixed = (offset ^ seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_le_bytes()[7]
}

/// One local socket: what its owner writes, and what it has been given to read.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Names the direction that the owner writes, and the one that it reads.
    seeds: (u64, u64),
    /// Bytes that the owner has written, and how many of them were taken.
    pub(crate) written: u64,
    pub(crate) taken: u64,
    /// The owner will write no more.
    pub(crate) ended: bool,
    /// The owner reads nothing.
    pub(crate) stalled: bool,
    /// Came from the tunnel and waits for the owner.
    pub(crate) pending: VecDeque<Bytes>,
    /// Read by the owner.
    pub(crate) read: u64,
    /// The tunnel said that no more will come.
    pub(crate) finish: bool,
    pub(crate) finish_told: bool,
    /// How often the end of the flow was reported.
    pub(crate) ends: u32,
    /// The flow ended with every byte handed over.
    pub(crate) finished: bool,
    /// The far end did not know the flow after a cut.
    pub(crate) lost: bool,
}

impl Socket {
    pub(crate) fn new(seeds: (u64, u64)) -> Self {
        Self {
            seeds,
            written: 0,
            taken: 0,
            ended: false,
            stalled: false,
            pending: VecDeque::new(),
            read: 0,
            finish: false,
            finish_told: false,
            ends: 0,
            finished: false,
            lost: false,
        }
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.pending.iter().map(|bytes| bytes.len() as u64).sum()
    }

    /// The owner reads at most `max` bytes. Every one must be the one that belongs there.
    pub(crate) fn consume(&mut self, max: usize) -> usize {
        let mut consumed = 0;
        while consumed < max
            && let Some(mut front) = self.pending.pop_front()
        {
            let piece = front.split_to(front.len().min(max - consumed));
            for byte in &piece {
                assert_eq!(
                    *byte,
                    byte_at(self.seeds.1, self.read),
                    "byte {} is another's",
                    self.read
                );
                self.read += 1;
            }
            consumed += piece.len();
            if !front.is_empty() {
                self.pending.push_front(front);
            }
        }
        consumed
    }
}

/// The sockets of one end, and which flow of the present tunnel each belongs to.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) by_ref: BTreeMap<FlowRef, Socket>,
    pub(crate) cids: BTreeMap<u32, FlowRef>,
}

impl Sockets {
    pub(crate) fn by_cid(&mut self, cid: u32) -> Option<&mut Socket> {
        let flow_ref = self.cids.get(&cid)?;
        self.by_ref.get_mut(flow_ref)
    }
}

impl FlowSource for Sockets {
    fn read(&mut self, cid: u32, out: &mut BytesMut, max: usize) -> SourceRead {
        let Some(socket) = self.by_cid(cid) else {
            return SourceRead::Blocked;
        };
        let bytes = (socket.written - socket.taken).min(max as u64);
        if bytes == 0 {
            return if socket.ended {
                SourceRead::End
            } else {
                SourceRead::Blocked
            };
        }
        for offset in socket.taken..socket.taken + bytes {
            out.put_u8(byte_at(socket.seeds.0, offset));
        }
        socket.taken += bytes;
        SourceRead::Bytes(usize::try_from(bytes).unwrap_or(max))
    }
}
