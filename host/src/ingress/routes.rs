//! From a host and a path to a route: a pure table, swapped whole.
//!
//! The most specific host that has any route decides, the exact name before the longest wildcard
//! before `*`; among its routes an exact path before the longest prefix. So a name that is listed
//! never falls through to a wildcard, and what a path reaches can be said without the order of the
//! file.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::HostPattern;

/// What the table has to know of a route.
pub(crate) trait Place {
    fn host(&self) -> &HostPattern;
    /// Without a slash at its end where it is a prefix.
    fn path(&self) -> &str;
    fn is_exact(&self) -> bool;
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RouteTable<R> {
    exact: FxHashMap<Arc<str>, Paths<R>>,
    below: FxHashMap<Arc<str>, Paths<R>>,
    any: Paths<R>,
}

/// The routes of one host.
#[derive(Debug)]
struct Paths<R> {
    exact: FxHashMap<Box<str>, Arc<R>>,
    /// The longest first.
    prefixes: Vec<Arc<R>>,
}

/// Why a request has no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// No route answers to that host.
    Host,
    /// The host is known, the path is not.
    Path,
}

impl<R> Default for Paths<R> {
    fn default() -> Self {
        Self {
            exact: FxHashMap::default(),
            prefixes: Vec::new(),
        }
    }
}

impl<R> Default for RouteTable<R> {
    fn default() -> Self {
        Self {
            exact: FxHashMap::default(),
            below: FxHashMap::default(),
            any: Paths::default(),
        }
    }
}

impl<R: Place> RouteTable<R> {
    /// A table of these. Of two that are alike in host and path the later one counts.
    pub(crate) fn new(routes: Vec<Arc<R>>) -> Self {
        let mut table = Self::default();
        for route in routes {
            let paths = match route.host() {
                HostPattern::Exact(name) => table.exact.entry(Arc::clone(name)).or_default(),
                HostPattern::Below(name) => table.below.entry(Arc::clone(name)).or_default(),
                HostPattern::Any => &mut table.any,
            };
            paths.add(route);
        }
        table
    }

    /// The route of a normalised host and path.
    pub(crate) fn find(&self, host: &str, path: &str) -> Result<&Arc<R>, NoRoute> {
        let paths = self.paths(host).ok_or(NoRoute::Host)?;
        paths.find(path).ok_or(NoRoute::Path)
    }

    /// Whether a route is for exactly this host: then no other name is looked at.
    pub(crate) fn names_exactly(&self, host: &str) -> bool {
        self.exact.contains_key(host)
    }

    /// The hosts that routes name in full.
    pub(crate) fn exact_hosts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.exact.keys()
    }

    fn paths(&self, host: &str) -> Option<&Paths<R>> {
        if let Some(paths) = self.exact.get(host) {
            return Some(paths);
        }
        // Each dot of the name begins a suffix; the first found is the longest. Nothing is below
        // an address.
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(paths) = self.below.get(parent) {
                return Some(paths);
            }
            rest = parent;
        }
        (!self.any.is_empty()).then_some(&self.any)
    }
}

impl<R: Place> Paths<R> {
    fn add(&mut self, route: Arc<R>) {
        if route.is_exact() {
            self.exact.insert(route.path().into(), route);
            return;
        }
        self.prefixes.retain(|other| other.path() != route.path());
        let longer = |other: &Arc<R>| other.path().len() >= route.path().len();
        let place = self.prefixes.partition_point(longer);
        self.prefixes.insert(place, route);
    }

    fn find(&self, path: &str) -> Option<&Arc<R>> {
        self.exact.get(path).or_else(|| {
            self.prefixes
                .iter()
                .find(|route| begins_with(path, route.path()))
        })
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }
}

/// Whether `path` is `prefix` or goes on with a slash behind it.
fn begins_with(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Route {
        host: HostPattern,
        path: String,
        exact: bool,
    }

    impl Place for Route {
        fn host(&self) -> &HostPattern {
            &self.host
        }

        fn path(&self) -> &str {
            &self.path
        }

        fn is_exact(&self) -> bool {
            self.exact
        }
    }

    #[test]
    fn the_most_specific_host_decides() {
        let table = table(&[
            ("*", "/", false),
            ("*.example.com", "/", false),
            ("*.eu.example.com", "/", false),
            ("shop.example.com", "/buy", false),
        ]);
        let host = |host: &str, path: &str| {
            table
                .find(host, path)
                .map(|route| route.host.to_string())
                .map_err(|no| no == NoRoute::Path)
        };
        assert_eq!(
            host("shop.example.com", "/buy"),
            Ok("shop.example.com".into())
        );
        assert_eq!(
            host("shop.example.com", "/"),
            Err(true),
            "no falling through"
        );
        assert_eq!(host("a.example.com", "/"), Ok("*.example.com".into()));
        assert_eq!(host("a.b.example.com", "/"), Ok("*.example.com".into()));
        assert_eq!(host("a.eu.example.com", "/"), Ok("*.eu.example.com".into()));
        assert_eq!(host("eu.example.com", "/"), Ok("*.example.com".into()));
        assert_eq!(host("example.com", "/"), Ok("*".into()));
        assert_eq!(host("[::1]", "/"), Ok("*".into()));
        assert!(table.names_exactly("shop.example.com"));
        assert!(!table.names_exactly("a.example.com"), "only a wildcard");
    }

    #[test]
    fn an_exact_path_then_the_longest_prefix_decides() {
        let table = table(&[
            ("a", "", false),
            ("a", "/api", false),
            ("a", "/api/v1", false),
            ("a", "/api", true),
        ]);
        let path = |path: &str| {
            let route = table.find("a", path).unwrap();
            (route.path.clone(), route.exact)
        };
        assert_eq!(path("/"), (String::new(), false));
        assert_eq!(path("/apix"), (String::new(), false));
        assert_eq!(path("/api"), ("/api".into(), true));
        assert_eq!(path("/api/"), ("/api".into(), false));
        assert_eq!(path("/api/v2"), ("/api".into(), false));
        assert_eq!(path("/api/v1/x"), ("/api/v1".into(), false));
    }

    #[test]
    fn an_empty_table_knows_no_host() {
        assert_eq!(table(&[]).find("a", "/").unwrap_err(), NoRoute::Host);
    }

    proptest! {
        /// The same answer as looking at every route.
        #[test]
        fn the_table_agrees_with_the_rule(
            routes in prop::collection::vec(("(\\*|(\\*\\.)?[ab](\\.[ab]){0,2})", "(/[xy]){0,3}", any::<bool>()), 0..12),
            host in "[ab](\\.[ab]){0,3}",
            path in "(/[xy]){1,4}/?",
        ) {
            let routes: Vec<(&str, &str, bool)> = routes
                .iter()
                .map(|(host, path, exact)| (host.as_str(), path.as_str(), *exact))
                .collect();
            let table = table(&routes);
            let found = table.find(&host, &path).ok().map(|route| route.as_ref().clone());
            prop_assert_eq!(found, by_rule(&routes, &host, &path));
        }
    }

    fn by_rule(routes: &[(&str, &str, bool)], host: &str, path: &str) -> Option<Route> {
        let all: Vec<Route> = routes.iter().map(route).collect();
        let rank = |pattern: &HostPattern| match pattern {
            HostPattern::Exact(name) => (**name == *host).then_some(usize::MAX),
            HostPattern::Below(name) => host.ends_with(&format!(".{name}")).then_some(name.len()),
            HostPattern::Any => Some(0),
        };
        let best = all.iter().filter_map(|route| rank(&route.host)).max()?;
        all.into_iter()
            .filter(|route| rank(&route.host) == Some(best))
            .filter(|route| match route.exact {
                true => route.path == path,
                false => begins_with(path, &route.path),
            })
            .max_by_key(|route| (route.exact, route.path.len()))
    }

    fn route((host, path, exact): &(&str, &str, bool)) -> Route {
        Route {
            host: HostPattern::parse(host).unwrap(),
            path: (*path).to_owned(),
            exact: *exact,
        }
    }

    fn table(routes: &[(&str, &str, bool)]) -> RouteTable<Route> {
        RouteTable::new(routes.iter().map(|one| Arc::new(route(one))).collect())
    }
}
