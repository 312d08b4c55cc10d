//! What proves a viewer, and what does not.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::IpAddr;
use std::path::Path;

use http::HeaderValue;
use http::uri::PathAndQuery;
use tempfile::TempDir;

use super::signed_url::{Terms, UrlKey};
use super::*;
use crate::config::{self, CloudConfig, ListenerName};

const BASIC: &str = "basic: {users_file: users}";
const URL: &str = "signed_url: {keys: [{name: new, file: new}]}";

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// `ann` with the password `open sesame`, of cost 10.
const ANN: &str = "ann:$2y$10$abcdefghijklmnopqrstuu4SuEsu2LsUrAYUpWQHLMMc4GV5pZTxK:ops, dba";

/// `bob` with the password `password`: a vector of the reference implementation.
const BOB: &str = "bob:$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$\
                   CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

#[tokio::test]
async fn names_and_passwords_prove_a_viewer() {
    let at = Place::with(&[BASIC]);
    let auth = at.auth();
    for _ in 0..2 {
        // The second time from memory.
        let ann = at
            .ask(&auth, &["Basic YW5uOm9wZW4gc2VzYW1l"])
            .await
            .unwrap();
        assert_eq!(ann.viewer.id(), "acme/basic:ann");
        assert_eq!(ann.plugin.groups, ["ops", "dba"]);
        assert_eq!(ann.method, Some("basic"));
        let Viewer::Known(facts) = &ann.viewer else {
            panic!("{ann:?}");
        };
        assert_eq!(facts.amr, ["pwd"]);
        assert_eq!(facts.tags, [("method".to_owned(), "basic".to_owned())]);
    }
    // Argon2id; the scheme is written as one likes.
    let bob = at.ask(&auth, &["bAsIc  Ym9iOnBhc3N3b3Jk"]).await.unwrap();
    assert_eq!(bob.viewer.id(), "acme/basic:bob");
}

#[tokio::test]
async fn what_is_no_password_proves_nothing() {
    let at = Place::with(&[BASIC]);
    let auth = at.auth();
    for (shown, expected) in [
        // ann:wrong, nobody:open sesame, ann:
        (&["Basic YW5uOndyb25n"][..], RefusalKind::PasswordWrong),
        (
            &["Basic bm9ib2R5Om9wZW4gc2VzYW1l"],
            RefusalKind::PasswordWrong,
        ),
        (&["Basic YW5uOg=="], RefusalKind::PasswordWrong),
        (&[], RefusalKind::NothingShown),
        // Of a scheme that is none of the ways.
        (&["Bearer abc"], RefusalKind::NothingShown),
        (&["Basic"], RefusalKind::Ambiguous),
        (&["Basic ***"], RefusalKind::Ambiguous),
        // `ann` without a colon, and `ann:a\0b`.
        (&["Basic YW5u"], RefusalKind::Ambiguous),
        (&["Basic YW5uOmEAYg=="], RefusalKind::Ambiguous),
        (
            &["Basic YW5uOm9wZW4gc2VzYW1l", "Basic YW5uOm9wZW4gc2VzYW1l"],
            RefusalKind::Ambiguous,
        ),
    ] {
        let refused = at.ask(&auth, shown).await.unwrap_err();
        assert_eq!(refused.kind, expected, "{shown:?}: {refused:?}");
        let told = format!("{refused:?}");
        assert!(!told.contains("sesame") && !told.contains("YW5u"), "{told}");
    }
}

#[test]
fn a_file_of_users_that_cannot_be_meant_is_refused() {
    let at = Place::with(&[BASIC]);
    let cheap = "$argon2id$v=19$m=1024,t=1,p=1$c29tZXNhbHQxMjM$AAAAAAAAAAAAAAAAAAAAAA";
    let dear = "$argon2id$v=19$m=1048576,t=2,p=1$c29tZXNhbHQxMjM$AAAAAAAAAAAAAAAAAAAAAA";
    let cost = |cost: &str| ANN.replace("$10$", &format!("${cost}$"));
    for (text, part) in [
        ("ann".to_owned(), "line 1"),
        (format!("{ANN}\n{ANN}"), "line 2: the name is there twice"),
        ("ann:open sesame".to_owned(), "neither bcrypt"),
        ("ann:$apr1$abc$def".to_owned(), "neither bcrypt"),
        ("ann:$2y$10$short".to_owned(), "malformed"),
        (cost("04"), "cost is 4"),
        (cost("05"), "`htpasswd -n -B -C 12 NAME`"),
        (cost("16"), "cost is 16"),
        (format!("ann:{cheap}"), "too cheap"),
        (format!("ann:{dear}"), "whoever asks"),
    ] {
        at.write("users", &text);
        let error = at.try_auth().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
        assert!(
            !error.contains("sesame") && !error.contains("$2y$"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_changed_file_counts_at_once_and_an_unchanged_one_keeps_what_it_knows() {
    let at = Place::with(&[BASIC]);
    let first = at.auth();
    let shown = ["Basic YW5uOm9wZW4gc2VzYW1l"];
    at.ask(&first, &shown).await.unwrap();
    let users = |auth: &ViewerAuth| match &auth.ways[0] {
        Way::Basic(users) => Arc::clone(users),
        Way::Bearer(_) | Way::Mtls(_) | Way::SignedUrl(_) => panic!("{auth:?}"),
    };
    let again = at.auth_after(&first);
    assert!(Arc::ptr_eq(&users(&first), &users(&again)));
    at.write("users", BOB);
    let changed = at.auth_after(&again);
    let refused = at.ask(&changed, &shown).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::PasswordWrong);
}

#[tokio::test]
async fn a_file_without_users_lets_nobody_in() {
    let at = Place::with(&[BASIC]);
    at.write("users", "# nobody any more\n");
    let shown = ["Basic YW5uOm9wZW4gc2VzYW1l"];
    let refused = at.ask(&at.auth(), &shown).await.unwrap_err();
    assert_eq!(refused.kind, RefusalKind::PasswordWrong);
}

/// A browser, or a program that fetches many parts, asks for all of them at once.
#[tokio::test]
async fn many_requests_of_one_viewer_at_once_are_all_let_in() {
    let at = Place::with(&[BASIC]);
    let auth = at.auth();
    let asks = (0..30).map(|_| at.ask(&auth, &["Basic YW5uOm9wZW4gc2VzYW1l"]));
    for asked in futures_util::future::join_all(asks).await {
        assert_eq!(asked.unwrap().viewer.id(), "acme/basic:ann");
    }
}

#[tokio::test]
async fn a_signed_url_is_good_for_what_was_signed() {
    let at = Place::with(&["signed_url: {keys: [{name: old, file: old}, {name: new, file: new}]}"]);
    let auth = at.auth();
    let end = now_s() + 60;
    for key in ["old", "new"] {
        let query = at.sign(key, "GET", "/report.pdf", "page=2", end);
        for method in [Method::GET, Method::HEAD] {
            let signed_in = at
                .fetch(&auth, &method, "/report.pdf", &query)
                .await
                .unwrap();
            assert_eq!(signed_in.viewer.id(), format!("acme/url:{key}"));
            assert_eq!(
                signed_in.until,
                Some(UNIX_EPOCH + std::time::Duration::from_secs(end))
            );
        }
        // In another order, the parameters of the origin as they were.
        let turned: Vec<&str> = query.split('&').rev().collect();
        at.fetch(&auth, &Method::GET, "/report.pdf", &turned.join("&"))
            .await
            .unwrap();
    }
    let query = at.sign("new", "POST", "/report.pdf", "", end);
    at.fetch(&auth, &Method::POST, "/report.pdf", &query)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_signed_url_is_good_for_nothing_else() {
    let at = Place::with(&[
        "signed_url: {keys: [{name: old, file: old}, {name: new, file: new}], \
         max_lifetime_ms: 3600000}",
    ]);
    let auth = at.auth();
    let end = now_s() + 60;
    let good = at.sign("new", "GET", "/report.pdf", "page=2", end);
    let refused = async |method: Method, path: &str, query: &str| {
        let refused = at.fetch(&auth, &method, path, query).await;
        refused.unwrap_err().kind
    };
    let wrong = RefusalKind::UrlRefused;
    assert_eq!(refused(Method::POST, "/report.pdf", &good).await, wrong);
    assert_eq!(refused(Method::GET, "/report.pd", &good).await, wrong);
    assert_eq!(refused(Method::GET, "/admin", &good).await, wrong);
    for (from, to) in [
        ("page=2", "page=3"),
        ("page=2", "page=2&page=3"),
        ("page=2", "page=2&"),
        ("page=2&", ""),
        ("nc-key=new", "nc-key=old"),
        ("nc-key=new", "nc-key=none"),
        ("nc-key=new", "nc-key=new&nc-method=POST"),
    ] {
        let query = good.replace(from, to);
        assert_ne!(query, good);
        assert_eq!(
            refused(Method::GET, "/report.pdf", &query).await,
            wrong,
            "{query}"
        );
    }
    // Its end cannot be put off.
    let later = good.replace(&end.to_string(), &(end + 1).to_string());
    assert_eq!(refused(Method::GET, "/report.pdf", &later).await, wrong);
    let other_host = Terms {
        method: "GET",
        host: "other.example.com",
        path: "/report.pdf",
        query: "",
        expires_s: end,
    };
    let query = at.sign_terms("new", &other_host);
    assert_eq!(refused(Method::GET, "/report.pdf", &query).await, wrong);
    // Longer than the route allows, and over.
    let long = at.sign("new", "GET", "/report.pdf", "", now_s() + 7200);
    assert_eq!(refused(Method::GET, "/report.pdf", &long).await, wrong);
    let over = at.sign("new", "GET", "/report.pdf", "", now_s() - 1);
    assert_eq!(
        refused(Method::GET, "/report.pdf", &over).await,
        RefusalKind::UrlExpired
    );
    for query in [
        format!("{good}&nc-key=new"),
        good.replace("nc-key=new&", ""),
        good.replace(&format!("nc-expires={end}"), "nc-expires=never"),
        good.replace(&format!("nc-expires={end}"), &format!("nc-expires=+{end}")),
        good.replace("nc-signature=", "nc-signature=*"),
        "nc-signature=abc".to_owned(),
    ] {
        let kind = refused(Method::GET, "/report.pdf", &query).await;
        assert_eq!(kind, RefusalKind::Ambiguous, "{query}");
    }
    assert_eq!(
        refused(Method::GET, "/report.pdf", "page=2").await,
        RefusalKind::NothingShown
    );
}

#[test]
fn a_key_that_could_be_guessed_is_refused() {
    let at = Place::with(&[URL]);
    at.write("new", "too short\n");
    let error = at.try_auth().unwrap_err().to_string();
    assert!(error.contains("openssl rand"), "{error}");
    assert!(!error.contains("too short"), "{error}");
}

/// What is shown first decides, though what comes later would do.
#[tokio::test]
async fn the_first_way_that_is_shown_decides() {
    let at = Place::with(&[URL, BASIC]);
    let auth = at.auth();
    let end = now_s() + 60;
    let good = at.sign("new", "GET", "/", "", end);
    let bad = good.replace(&end.to_string(), &(end + 1).to_string());
    let password = [("authorization", "Basic YW5uOm9wZW4gc2VzYW1l")];
    let by = async |query: &str| {
        let headers = headers(&password);
        let carried = at.carried(&Method::GET, "/", Some(query), &headers);
        auth.prove(&carried, &at.agents(), &at.hashing).await
    };
    assert_eq!(by(&good).await.unwrap().method, Some("signed_url"));
    assert_eq!(by("").await.unwrap().method, Some("basic"));
    assert_eq!(by(&bad).await.unwrap_err().kind, RefusalKind::UrlRefused);
}

#[tokio::test]
async fn where_nothing_is_required_nobody_is_anonymous_but_who_shows_nothing() {
    let at = Place::with(&[BASIC]).and("required: false");
    let auth = at.auth();
    let nobody = at.ask(&auth, &[]).await.unwrap();
    assert_eq!((nobody.viewer.id(), nobody.method), ("anonymous", None));
    let wrong = at.ask(&auth, &["Basic YW5uOndyb25n"]).await.unwrap_err();
    assert_eq!(wrong.kind, RefusalKind::PasswordWrong);
}

#[test]
fn what_was_shown_goes_no_further() {
    let hidden = |at: &Place, authorization: &'static str, target: &'static str| {
        let mut headers = headers(&[("authorization", authorization)]);
        let mut target = PathAndQuery::from_static(target);
        at.auth().hide(&mut headers, &mut target);
        (headers.contains_key("authorization"), target.to_string())
    };
    let at = Place::with(&[URL, BASIC]);
    assert_eq!(
        hidden(
            &at,
            "basic abc",
            "/a?x=1&nc-key=a&nc-expires=1&y=%26&nc-signature=b&nc-method=PUT"
        ),
        (false, "/a?x=1&y=%26".to_owned())
    );
    // What the hub does not take is the origin's.
    assert_eq!(
        hidden(&at, "Bearer abc", "/a?nc-key=a"),
        (true, "/a".to_owned())
    );
    assert_eq!(
        hidden(&at, "Digest x", "/a?nc-keys=a&"),
        (true, "/a?nc-keys=a&".to_owned())
    );
    let told = at.and("pass_on_credentials: true");
    assert_eq!(
        hidden(&told, "Basic abc", "/a?nc-key=a"),
        (true, "/a?nc-key=a".to_owned())
    );
}

#[test]
fn a_referer_lets_nobody_fetch_what_it_names() {
    for (told, expected) in [
        (
            "https://files.example.com/a?x=1&nc-key=a&nc-expires=1&nc-signature=b&y=2",
            Some("https://files.example.com/a?x=1&y=2"),
        ),
        (
            "https://files.example.com/a?nc-signature=b",
            Some("https://files.example.com/a"),
        ),
        (
            "https://files.example.com/a?next=/b?x=1&nc-key=a&nc-expires=1&nc-signature=b",
            Some("https://files.example.com/a?next=/b?x=1"),
        ),
        (
            "https://files.example.com/a?nc-signatures=b",
            Some("https://files.example.com/a?nc-signatures=b"),
        ),
        ("https://files.example.com/\u{e9}?nc-signature=b", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("referer", HeaderValue::from_bytes(told.as_bytes()).unwrap());
        hide::from_referer(&mut headers);
        let left = headers.get("referer").map(|left| left.to_str().unwrap());
        assert_eq!(left, expected, "{told}");
    }
}

#[test]
fn a_refusal_names_what_could_be_shown() {
    let at = Place::with(&[BASIC]).and("realm: The Shop");
    let auth = at.auth();
    let said = |kind| auth.challenges(kind).0;
    assert_eq!(
        said(RefusalKind::NothingShown),
        [HeaderValue::from_static(
            "Basic realm=\"The Shop\", charset=\"UTF-8\""
        )]
    );
}

/// A set of ways, with the files that it names.
struct Place {
    folder: TempDir,
    ways: String,
    more: String,
    hashing: Hashing,
}

impl Place {
    fn with(ways: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let place = Self {
            folder,
            ways: format!("[{{{}}}]", ways.join("}, {")),
            more: String::new(),
            hashing: Hashing::default(),
        };
        place.write("users", &format!("# people\n{ANN}\n\n{BOB}\n"));
        place.write("old", SECRET);
        place.write("new", &format!("{}\n", SECRET.to_uppercase()));
        place
    }

    fn and(mut self, more: &str) -> Self {
        self.more = format!("{more}, ");
        self
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn config(&self) -> CloudConfig {
        let text = format!(
            "security: {{revocation_file: null}}\n\
             ingress: {{viewer_auth: [{{name: a, {}ways: {}}}]}}",
            self.more, self.ways
        );
        let file = self.folder.path().join("cloud.yaml");
        let no_env = std::collections::BTreeMap::<String, String>::new();
        config::parse(&text, Some(Path::new(&file)), &no_env)
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn try_auth(&self) -> Result<ViewerAuth, ViewerAuthError> {
        let config = self.config();
        ViewerAuth::build(&config.ingress.viewer_auth[0], &config.security, None)
    }

    fn auth(&self) -> ViewerAuth {
        self.try_auth().unwrap()
    }

    fn auth_after(&self, before: &ViewerAuth) -> ViewerAuth {
        let config = self.config();
        let set = &config.ingress.viewer_auth[0];
        ViewerAuth::build(set, &config.security, Some(before)).unwrap()
    }

    fn agents(&self) -> Authenticator {
        Authenticator::new(&self.config().security).unwrap()
    }

    async fn ask(&self, auth: &ViewerAuth, shown: &[&str]) -> Result<SignedIn, Refusal> {
        let fields: Vec<_> = shown
            .iter()
            .map(|value| ("authorization", *value))
            .collect();
        let headers = headers(&fields);
        let carried = self.carried(&Method::GET, "/", None, &headers);
        auth.prove(&carried, &self.agents(), &self.hashing).await
    }

    async fn fetch(
        &self,
        auth: &ViewerAuth,
        method: &Method,
        path: &str,
        query: &str,
    ) -> Result<SignedIn, Refusal> {
        let headers = HeaderMap::new();
        let carried = self.carried(method, path, Some(query), &headers);
        auth.prove(&carried, &self.agents(), &self.hashing).await
    }

    fn carried<'a>(
        &self,
        method: &'a Method,
        path: &'a str,
        query: Option<&'a str>,
        headers: &'a HeaderMap,
    ) -> Carried<'a> {
        static ACME: std::sync::LazyLock<TenantName> =
            std::sync::LazyLock::new(|| TenantName::parse("acme").unwrap());
        Carried {
            method,
            host: "files.example.com",
            path,
            query,
            headers,
            certificate: None,
            source: IpAddr::from([192, 0, 2, 1]),
            tenant: &ACME,
        }
    }

    fn sign(&self, key: &str, method: &str, path: &str, query: &str, expires_s: u64) -> String {
        let terms = Terms {
            method,
            host: "files.example.com",
            path,
            query,
            expires_s,
        };
        self.sign_terms(key, &terms)
    }

    fn sign_terms(&self, name: &str, terms: &Terms<'_>) -> String {
        let key = UrlKey::read(&self.folder.path().join(name)).unwrap();
        let parameters = key.sign(&ListenerName::parse(name).unwrap(), terms);
        match terms.query {
            "" => parameters,
            query => format!("{query}&{parameters}"),
        }
    }
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn now_s() -> u64 {
    unix_ms(SystemTime::now()) / 1000
}
