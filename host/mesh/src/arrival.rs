//! Bounds and filters on whoever knocks at `/mesh`, before anything is believed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::limits::{MAX_HANDSHAKES, MAX_HANDSHAKES_PER_SOURCE};
use crate::proof::Exporter;

/// How a connection came.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Without TLS, or with a TLS that something in front ended.
    Plain,
    /// With TLS that this process ended.
    Tls {
        /// Of the session.
        exporter: Exporter,
        /// SHA-256 of the certificate that the client showed, where it showed one.
        client_leaf: Option<[u8; 32]>,
    },
}

/// Counts connections whose peer is not proven.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    all: usize,
    by_source: BTreeMap<IpAddr, usize>,
}

/// A place among those; given back when dropped, which is when the peer is proven or gone.
#[derive(Debug)]
pub struct Knock {
    gate: Arc<Gate>,
    source: SocketAddr,
    counted: IpAddr,
    pub(crate) deadline: Instant,
}

impl Gate {
    /// `is_ingress`: many hubs share this source, so only the bound on all counts.
    pub(crate) fn knock(
        self: &Arc<Self>,
        source: SocketAddr,
        is_ingress: bool,
        within: Duration,
    ) -> Option<Knock> {
        let counted = source_of(source.ip());
        let mut inside = self.0.lock();
        if inside.all >= MAX_HANDSHAKES {
            return None;
        }
        let from_there = inside.by_source.entry(counted).or_insert(0);
        if *from_there >= MAX_HANDSHAKES_PER_SOURCE && !is_ingress {
            return None;
        }
        *from_there += 1;
        inside.all += 1;
        drop(inside);
        Some(Knock {
            gate: Arc::clone(self),
            source,
            counted,
            deadline: Instant::now() + within,
        })
    }
}

impl Knock {
    /// Where the connection comes from.
    #[must_use]
    pub const fn source(&self) -> SocketAddr {
        self.source
    }

    /// Until when the peer has to be proven.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Drop for Knock {
    fn drop(&mut self) {
        let mut inside = self.gate.0.lock();
        inside.all -= 1;
        if let Some(count) = inside.by_source.get_mut(&self.counted) {
            *count -= 1;
            if *count == 0 {
                inside.by_source.remove(&self.counted);
            }
        }
    }
}

/// What counts as one source: an IPv4 address, or the /64 that one IPv6 host is given.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

pub(crate) fn contains(nets: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    nets.iter().any(|net| net.contains(&address))
}

/// Why there is no upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArrivalRefused {
    /// Too many peers that are not proven, in all or from this source.
    #[error("too many handshakes at the moment")]
    Crowded,
    /// Plain text, from somewhere that is no trusted ingress.
    #[error("use TLS, or come through an ingress in `ha.mesh.trusted_ingress`")]
    PlainText,
    /// A trusted ingress says that the hub came to it without TLS.
    #[error("the ingress says that this came without TLS")]
    ForwardedPlainText,
    /// A trusted ingress says something of the certificate that cannot be read.
    #[error("the ingress sent an `x-forwarded-client-cert` that cannot be read")]
    ForwardedMalformed,
    /// This hub takes no links: it is leaving, or another hub has its name.
    #[error("this hub takes no links at the moment")]
    Closed,
}

impl ArrivalRefused {
    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Crowded | Self::Closed => StatusCode::SERVICE_UNAVAILABLE,
            Self::PlainText | Self::ForwardedPlainText | Self::ForwardedMalformed => {
                StatusCode::FORBIDDEN
            }
        }
    }

    /// A stable name for logs and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Crowded => "crowded",
            Self::PlainText | Self::ForwardedPlainText => "plain_text",
            Self::ForwardedMalformed => "forwarded_malformed",
            Self::Closed => "closed",
        }
    }
}

/// A knock that may go on to the hello.
#[derive(Debug)]
pub struct Admission {
    pub(crate) knock: Knock,
    /// The session that both proofs have to cover.
    pub(crate) session: Option<Exporter>,
    /// Certificates that were shown beside the hello: it must come with the same.
    pub(crate) shown: Vec<(&'static str, [u8; 32])>,
}

/// What is asked of a connection and of the request in it.
pub(crate) fn admit(
    knock: Knock,
    transport: &Transport,
    headers: &HeaderMap,
    require_proof: bool,
    is_ingress: bool,
) -> Result<Admission, ArrivalRefused> {
    let mut shown = Vec::new();
    let session = match transport {
        Transport::Plain if require_proof && !is_ingress => {
            return Err(ArrivalRefused::PlainText);
        }
        Transport::Plain => None,
        Transport::Tls {
            exporter,
            client_leaf,
        } => {
            shown.extend(client_leaf.map(|leaf| ("its TLS shows", leaf)));
            // An ingress that speaks TLS to this hub in turn is the other end of this session,
            // and the dialler is not. One that passes TLS through shows the dialler's certificate.
            (!is_ingress || client_leaf.is_some()).then_some(*exporter)
        }
    };
    if is_ingress {
        forwarded(headers, require_proof, &mut shown)?;
    }
    Ok(Admission {
        knock,
        session,
        shown,
    })
}

/// What an ingress says can only take away: the hello proves who dials.
fn forwarded(
    headers: &HeaderMap,
    require_proof: bool,
    shown: &mut Vec<(&'static str, [u8; 32])>,
) -> Result<(), ArrivalRefused> {
    for value in headers.get_all("x-forwarded-proto") {
        let value = value.to_str().unwrap_or_default();
        let secure = |part: &str| {
            let part = part.trim();
            part.eq_ignore_ascii_case("https") || part.eq_ignore_ascii_case("wss")
        };
        if require_proof && !value.split(',').all(secure) {
            return Err(ArrivalRefused::ForwardedPlainText);
        }
    }
    for value in headers.get_all("x-forwarded-client-cert") {
        let value = value
            .to_str()
            .map_err(|_| ArrivalRefused::ForwardedMalformed)?;
        // One element for each proxy on the way, the nearest last.
        let nearest = value.rsplit(',').next().unwrap_or_default();
        for pair in nearest.split(';') {
            if let Some((key, hash)) = pair.trim().split_once('=')
                && key.eq_ignore_ascii_case("hash")
            {
                let leaf =
                    sha256(hash.trim_matches('"')).ok_or(ArrivalRefused::ForwardedMalformed)?;
                shown.push(("its ingress saw", leaf));
            }
        }
    }
    Ok(())
}

/// The bytes of a SHA-256 in hex.
fn sha256(hex: &str) -> Option<[u8; 32]> {
    let hex = hex.as_bytes();
    if hex.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    fn source(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 1)
    }

    fn come(
        transport: &Transport,
        headers: &[(&'static str, &str)],
        require_proof: bool,
        is_ingress: bool,
    ) -> Result<Admission, ArrivalRefused> {
        let gate = Arc::new(Gate::default());
        let knock = gate.knock(source("10.0.0.1"), is_ingress, WITHIN).unwrap();
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).try_into().unwrap(), value.parse().unwrap()))
            .collect();
        admit(knock, transport, &headers, require_proof, is_ingress)
    }

    fn tls(client_leaf: Option<[u8; 32]>) -> Transport {
        Transport::Tls {
            exporter: Exporter([1; 32]),
            client_leaf,
        }
    }

    #[tokio::test]
    async fn places_are_bounded_for_each_source_and_in_all() {
        let gate = Arc::new(Gate::default());
        let mut taken: Vec<_> = (0..MAX_HANDSHAKES_PER_SOURCE)
            .map(|_| gate.knock(source("10.0.0.1"), false, WITHIN).unwrap())
            .collect();
        assert!(gate.knock(source("10.0.0.1"), false, WITHIN).is_none());
        assert!(
            gate.knock(source("::ffff:10.0.0.1"), false, WITHIN)
                .is_none()
        );
        taken.push(gate.knock(source("10.0.0.1"), true, WITHIN).unwrap());
        while taken.len() < MAX_HANDSHAKES {
            let at = format!("10.0.{}.1", taken.len());
            taken.push(gate.knock(source(&at), false, WITHIN).unwrap());
        }
        assert!(gate.knock(source("10.9.9.9"), false, WITHIN).is_none());
        assert!(gate.knock(source("10.9.9.9"), true, WITHIN).is_none());
        taken.clear();
        assert!(gate.knock(source("10.0.0.1"), false, WITHIN).is_some());
        assert!(gate.0.lock().by_source.is_empty());
    }

    #[tokio::test]
    async fn plain_text_comes_only_through_a_trusted_ingress_where_proof_is_asked_for() {
        let refused = come(&Transport::Plain, &[], true, false).unwrap_err();
        assert_eq!(refused, ArrivalRefused::PlainText);
        assert!(come(&Transport::Plain, &[], true, true).is_ok());
        assert!(come(&Transport::Plain, &[], false, false).is_ok());
        assert!(
            come(&tls(None), &[], true, false)
                .unwrap()
                .session
                .is_some()
        );
    }

    #[tokio::test]
    async fn a_session_counts_where_its_other_end_is_the_dialler() {
        assert!(come(&tls(None), &[], true, true).unwrap().session.is_none());
        let through = come(&tls(Some([2; 32])), &[], true, true).unwrap();
        assert!(through.session.is_some());
        assert_eq!(through.shown, [("its TLS shows", [2; 32])]);
    }

    #[tokio::test]
    async fn forwarded_headers_filter_and_only_from_a_trusted_ingress() {
        let plain = [("x-forwarded-proto", "http")];
        let refused = come(&Transport::Plain, &plain, true, true).unwrap_err();
        assert_eq!(refused, ArrivalRefused::ForwardedPlainText);
        assert!(come(&tls(None), &plain, true, false).is_ok());
        let both = [("x-forwarded-proto", "https, wss")];
        assert!(come(&Transport::Plain, &both, true, true).is_ok());

        let hash = "0a".repeat(32);
        let seen = format!(
            "Hash={};Subject=\"x\",By=y;Hash=\"{hash}\"",
            "ff".repeat(32)
        );
        let seen = [("x-forwarded-client-cert", seen.as_str())];
        let admission = come(&Transport::Plain, &seen, true, true).unwrap();
        assert_eq!(admission.shown, [("its ingress saw", [0x0a; 32])]);
        assert!(
            come(&tls(None), &seen, true, false)
                .unwrap()
                .shown
                .is_empty()
        );
        let bad = [("x-forwarded-client-cert", "Hash=xyz")];
        let refused = come(&Transport::Plain, &bad, true, true).unwrap_err();
        assert_eq!(refused, ArrivalRefused::ForwardedMalformed);
    }
}
