//! What ports, routes and sets of `viewer_auth` have to be to each other.

use super::super::file::{HttpListenerFile, HttpTlsFile};
use super::super::problem::Problems;
use super::super::tree::Path;
use super::super::{AcmeConfig, ChallengeKind, ListenerName, ViewerAuthConfig, ViewerWay};
use super::{HttpListenerConfig, RouteConfig};

/// Every name leads somewhere, and nobody is asked for what no port takes.
pub(super) fn check_viewer_auth(
    routes: &[RouteConfig],
    sets: &[ViewerAuthConfig],
    listeners: &[HttpListenerConfig],
    path: &Path,
    problems: &mut Problems<'_>,
) {
    for (index, route) in routes.iter().enumerate() {
        let Some(wanted) = &route.viewer_auth else {
            continue;
        };
        if !sets.iter().any(|set| set.name == *wanted) {
            let at = path.key("routes").index(index).key("viewer_auth");
            problems.add_with_help(
                &at,
                format!("`{at}` is `{wanted}`, and `{path}.viewer_auth` has none of that name"),
                "add it there, or correct the name",
            );
        }
    }
    if listeners.is_empty() {
        return;
    }
    for (index, set) in sets.iter().enumerate() {
        let mtls = set.ways.iter().find_map(|way| match way {
            ViewerWay::Mtls(named) => Some(named),
            ViewerWay::Bearer(_) | ViewerWay::Basic(_) | ViewerWay::SignedUrl(_) => None,
        });
        if let Some(named) = mtls {
            let at = path.key("viewer_auth").index(index);
            check_mtls(named, listeners, &at, problems);
        }
    }
}

/// Which authorities vouch for the viewers of a set must not depend on the listener that somebody
/// chooses to come in at.
fn check_mtls(
    named: &[ListenerName],
    listeners: &[HttpListenerConfig],
    at: &Path,
    problems: &mut Problems<'_>,
) {
    let asking = |listener: &HttpListenerConfig| {
        let certificates = listener.client_certificates.as_ref()?;
        Some((listener.name.clone(), certificates.ca_file.clone()))
    };
    let asking: Vec<_> = listeners.iter().filter_map(asking).collect();
    if asking.is_empty() {
        problems.add_with_help(
            at,
            format!("`{at}` has the way `mtls`, and no listener asks for certificates"),
            "set `client_certificates` of a listener with `tls`",
        );
        return;
    }
    for name in named {
        if !asking.iter().any(|(listener, _)| listener == name) {
            problems.add_with_help(
                at,
                format!("`{at}` names the listener `{name}`, which asks for no certificates"),
                "correct the name, or set `client_certificates` of that listener",
            );
        }
    }
    let other = asking.iter().find(|(_, ca_file)| *ca_file != asking[0].1);
    if let (true, Some((other, _))) = (named.is_empty(), other) {
        let first = &asking[0].0;
        problems.add_with_help(
            at,
            format!(
                "`{at}` has the way `mtls`, and the listeners `{first}` and `{other}` have \
                 different authorities: certificates of either would count at its routes"
            ),
            "name those that count: `mtls: {listeners: [NAME]}`",
        );
    }
}

/// Where nobody issues certificates, a port with TLS has to have one.
pub(super) fn check_files(
    listeners: &[HttpListenerFile],
    path: &Path,
    problems: &mut Problems<'_>,
) {
    for (index, listener) in listeners.iter().enumerate() {
        let at = path.index(index).key("tls");
        let none = HttpTlsFile::default();
        if listener.tls.as_ref() == Some(&none) {
            problems.add_with_help(
                &at,
                format!("`{at}` has no certificate"),
                "write `cert_file` and `key_file`, list `certificates`, or have them issued by \
                 `ingress.acme`",
            );
        }
    }
}

/// An authority has to find somebody who answers it, and what it issues has to be shown.
pub(super) fn check_issuing(
    acme: Option<&AcmeConfig>,
    listeners: &[HttpListenerConfig],
    path: &Path,
    problems: &mut Problems<'_>,
) {
    if !listeners.iter().any(|listener| listener.tls.is_some()) {
        problems.add_with_help(
            path,
            format!("`{path}` has certificates issued, and no port of `ingress.listeners` has TLS"),
            "give one of them `tls: {}`, or take `acme` out",
        );
    }
    let only_http = acme.is_some_and(|acme| acme.challenges == [ChallengeKind::Http01]);
    if only_http && listeners.iter().all(|listener| listener.tls.is_some()) {
        problems.add_with_help(
            &path.key("challenges"),
            format!("`{path}.challenges` has only `http_01`, and every port has TLS"),
            "add a port without `tls` that port 80 of the names leads to, or allow `tls_alpn_01`",
        );
    }
}
