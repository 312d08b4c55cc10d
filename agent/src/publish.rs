//! Public names for services of this machine, from a hub's control API.
//!
//! ```text
//!  create ──► tunnel_id, address, hubs to dial, a token that counts once, a token to come back
//!                 │                                    │                        │
//!                 ▼                                    ▼                        ▼
//!             the agent's id                     the next dial           kept in a file
//! ```
//! Each published service is an agent of its own, whose id the API chose. Its tokens count once, so
//! a publisher gives it the next one for each dial and each renewal: it shows the token to come
//! back and gets the same tunnel again. Where the hub has forgotten that tunnel, it takes a new one
//! and says so.

mod api;
mod memory;
mod publisher;

pub(crate) use self::api::{ControlApi, ControlClient, ControlPoint, Key, PublishError, Wish};
pub(crate) use self::memory::Memory;
pub(crate) use self::publisher::{News, Publication, Publisher, begin};

use nowconnect_protocol::{AgentId, ConnectorName};
use serde::Deserialize;

use crate::config::HubUrl;
use crate::plain::plain;
use crate::secret::Secret;

/// The transport that this agent dials.
const TRANSPORT: &str = "wss";

/// Longest address that an API gives, in bytes.
const ADDRESS_BYTES_MAX: usize = 2048;
/// Longest note that is shown, in characters.
const NOTE_CHARS_MAX: usize = 300;
/// Hubs that are tried; the API names one to three.
const CANDIDATES_MAX: usize = 8;

/// What a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, or whatever TLS to the service agrees on.
    Http,
    /// A stream of bytes.
    Tcp,
}

impl Protocol {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// A tunnel as the API gave it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Published {
    /// The agent's id and its connector's name.
    pub(crate) tunnel_id: String,
    /// The address for people.
    #[serde(deserialize_with = "address")]
    pub(crate) public_url: String,
    /// Hubs to dial, the best first.
    pub(crate) candidates: Vec<Candidate>,
    /// For one dial.
    pub(crate) ephemeral_token: Secret,
    /// For the same tunnel again.
    pub(crate) recreate_token: Secret,
    /// What a person should know.
    #[serde(default, deserialize_with = "note")]
    pub(crate) note: Option<String>,
}

/// A hub to dial.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Candidate {
    #[serde(deserialize_with = "address")]
    pub(crate) edge_url: String,
    /// One, a list, or nothing said.
    #[serde(default, deserialize_with = "one_or_more")]
    pub(crate) supported_transport: Vec<String>,
}

/// Why a tunnel that the API gave cannot be dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undiallable {
    #[error("the control API gave a tunnel id that is no name: {0}")]
    Id(nowconnect_protocol::NameError),
    #[error("the control API names no hub to dial")]
    NoCandidate,
    #[error("no hub of the control API speaks `{TRANSPORT}`, the only transport of this agent")]
    NoTransport,
    #[error("the control API's hub: {0}")]
    Url(crate::config::UrlError),
}

/// What of a tunnel its agent's configuration is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) agent_id: AgentId,
    pub(crate) connector: ConnectorName,
    pub(crate) hub: HubUrl,
    pub(crate) other_hubs: Vec<HubUrl>,
}

impl Published {
    /// Whom to dial and as whom. Of several hubs those count that this agent can dial.
    pub(crate) fn way(&self, allow_plaintext: bool) -> Result<Way, Undiallable> {
        let agent_id = AgentId::parse(&self.tunnel_id).map_err(Undiallable::Id)?;
        let connector = ConnectorName::parse(&self.tunnel_id).map_err(Undiallable::Id)?;
        let mut problem = Undiallable::NoCandidate;
        let mut hubs = Vec::new();
        for candidate in self.candidates.iter().take(CANDIDATES_MAX) {
            let transports = &candidate.supported_transport;
            if !transports.is_empty() && !transports.iter().any(|one| one == TRANSPORT) {
                problem = Undiallable::NoTransport;
                continue;
            }
            match HubUrl::parse(&candidate.edge_url, allow_plaintext) {
                Ok(hub) => hubs.push(hub),
                Err(error) => problem = Undiallable::Url(error),
            }
        }
        let mut hubs = hubs.into_iter();
        let hub = hubs.next().ok_or(problem)?;
        Ok(Way {
            agent_id,
            connector,
            hub,
            other_hubs: hubs.collect(),
        })
    }
}

/// Addresses are shown to people and copied by them: a short ASCII text without anything else.
fn address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let fits = text.len() <= ADDRESS_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        Ok(text)
    } else {
        Err(serde::de::Error::custom("no address"))
    }
}

fn note<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.map(|text| plain(&text, NOTE_CHARS_MAX)))
}

fn one_or_more<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        One(String),
        More(Vec<String>),
    }
    Ok(match Given::deserialize(deserializer)? {
        Given::One(one) => vec![one],
        Given::More(more) => more,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn hubs_are_dialled_in_the_order_of_the_api() {
        let way = published(&json!([
            {"edge_url": "wss://quic.example.com", "supported_transport": "quic"},
            {"edge_url": "wss://a.example.com/tunnel", "supported_transport": ["quic", "wss"]},
            {"edge_url": "wss://b.example.com/tunnel"},
        ]))
        .way(false)
        .unwrap();
        assert_eq!(way.agent_id.as_str(), "tun_1");
        assert_eq!(way.connector.as_str(), "tun_1");
        assert_eq!(way.hub.host, "a.example.com");
        let others: Vec<&str> = way.other_hubs.iter().map(|hub| &*hub.host).collect();
        assert_eq!(others, ["b.example.com"]);
    }

    #[test]
    fn a_tunnel_without_a_hub_is_refused_with_the_reason() {
        for (candidates, said) in [
            (json!([]), "names no hub"),
            (
                json!([{"edge_url": "wss://a", "supported_transport": "quic"}]),
                "no hub of the control API speaks `wss`",
            ),
            (json!([{"edge_url": "ws://a.example.com"}]), "plain text"),
        ] {
            let error = published(&candidates).way(false).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn tokens_are_shown_nowhere() {
        let shown = format!("{:?}", published(&json!([])));
        assert!(
            !shown.contains("e.e.e") && !shown.contains("r.r.r"),
            "{shown}"
        );
    }

    #[test]
    fn an_address_that_could_steer_a_terminal_is_none() {
        for bad in [
            "http://a\u{1b}[31m",
            "http://a b",
            "http://\u{202e}a",
            &"x".repeat(3000),
        ] {
            let mut answer = answer(&json!([]));
            answer["public_url"] = json!(bad);
            assert!(
                serde_json::from_value::<Published>(answer).is_err(),
                "{bad}"
            );
        }
    }

    fn published(candidates: &Value) -> Published {
        serde_json::from_value(answer(candidates)).unwrap()
    }

    fn answer(candidates: &Value) -> Value {
        json!({
            "tunnel_id": "tun_1",
            "public_hostname": "shop.localhost",
            "public_url": "http://shop.localhost:8080",
            "candidates": candidates,
            "ephemeral_token": "e.e.e",
            "recreate_token": "r.r.r",
            "candidates_expires_at": "2026-11-21T12:00:00Z",
        })
    }
}
