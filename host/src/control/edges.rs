//! Which hubs an agent is told to dial, and in which order.

use super::shapes::{Candidate, Transport};

/// Candidates in one answer.
const MAX_CANDIDATES: usize = 3;

/// A way to a hub's tunnel port.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Edge {
    /// The hub's name.
    pub(super) hub: String,
    /// Where agents dial.
    pub(super) url: String,
    /// Where that is.
    pub(super) region: Option<String>,
    /// For people.
    pub(super) note: Option<String>,
    /// Whether the hub takes agents now.
    pub(super) takes_agents: bool,
    /// How much of its places for agents is taken, in thousandths.
    pub(super) load: u32,
}

/// The best first: those that take agents only, then the wished region, then those with more room,
/// then the operator's order.
pub(super) fn candidates(mut edges: Vec<Edge>, region_hint: Option<&str>) -> Vec<Candidate> {
    edges.retain(|edge| edge.takes_agents);
    let is_wished = |edge: &Edge| {
        let region = edge.region.as_deref();
        region_hint.is_some_and(|hint| region.is_some_and(|is| is.eq_ignore_ascii_case(hint)))
    };
    edges.sort_by_key(|edge| (!is_wished(edge), edge.load));
    edges.truncate(MAX_CANDIDATES);
    edges
        .into_iter()
        .map(|edge| Candidate {
            edge_id: edge.hub,
            edge_url: edge.url,
            supported_transport: vec![Transport::Wss],
            region: edge.region,
            note: edge.note,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(url: &str, region: Option<&str>, load: u32) -> Edge {
        Edge {
            hub: "hub".to_owned(),
            url: url.to_owned(),
            region: region.map(str::to_owned),
            note: None,
            takes_agents: true,
            load,
        }
    }

    fn urls(edges: Vec<Edge>, hint: Option<&str>) -> Vec<String> {
        let found = candidates(edges, hint).into_iter();
        found.map(|candidate| candidate.edge_url).collect()
    }

    #[test]
    fn the_wished_region_comes_before_room_and_room_before_the_operators_order() {
        let edges = || {
            vec![
                edge("a", Some("us"), 900),
                edge("b", None, 100),
                edge("c", Some("eu"), 500),
                edge("d", Some("eu"), 400),
                edge("e", None, 100),
            ]
        };
        assert_eq!(urls(edges(), None), ["b", "e", "d"]);
        assert_eq!(urls(edges(), Some("EU")), ["d", "c", "b"]);
        assert_eq!(urls(edges(), Some("us")), ["a", "b", "e"]);
        assert_eq!(urls(edges(), Some("mars")), ["b", "e", "d"]);
    }

    #[test]
    fn a_hub_that_takes_nobody_is_not_told() {
        let full = Edge {
            takes_agents: false,
            ..edge("a", Some("eu"), 0)
        };
        assert_eq!(urls(vec![full, edge("b", None, 1000)], Some("eu")), ["b"]);
        assert!(urls(Vec::new(), None).is_empty());
    }
}
