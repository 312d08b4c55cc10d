//! Signatures, and components that come over the network.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use nowconnect_plugins::signature::{ComponentSignature, SecretKey, SignedAs};
use nowconnect_plugins::{Downgrade, PluginSource, PluginSpec};
use tokio::io::AsyncWriteExt;

use super::fetch::{Server, read_request};
use super::guest;
use super::harness::{Bench, spec};
use super::registry::{Lie, Registry, digest, key, secret, sign, signed_as};

#[tokio::test]
async fn a_signature_beside_the_file_counts_where_its_key_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agreeable.wasm");
    let bytes = guest::component("agreeable");
    fs::write(&path, &bytes).unwrap();
    let spec = || {
        let mut spec = spec("agreeable");
        spec.source = PluginSource::Path(path.clone());
        spec.trust = vec![key()];
        spec.require_signature = true;
        spec
    };
    let bench = Bench::new();
    let text = refusal(&bench, spec()).await;
    assert!(text.contains("it has no signature"), "{text}");

    let beside = folder.path().join("agreeable.wasm.sig");
    fs::write(&beside, sign(&bytes)).unwrap();
    let set = bench.load(vec![spec()]).await.unwrap();
    let signed_by = set.status()[0].signed_by.clone();
    assert_eq!(signed_by, Some(key().to_string()));

    let stranger = SecretKey::generate().unwrap();
    let theirs = signed_as("agreeable", &bytes, &stranger).to_string();
    fs::write(&beside, theirs).unwrap();
    let text = refusal(&bench, spec()).await;
    assert!(text.contains("none of the trusted keys"), "{text}");

    // What a trusted key signed as another plugin is not this one.
    let other = signed_as("denies", &bytes, &secret()).to_string();
    fs::write(&beside, &other).unwrap();
    let text = refusal(&bench, spec()).await;
    assert!(text.contains("`signed_as: denies`"), "{text}");
    let mut renamed = spec();
    renamed.signed_as = Some("denies".to_owned());
    renamed.version = Some(">=1.0".parse().unwrap());
    let set = bench.load(vec![renamed.clone()]).await.unwrap();
    assert_eq!(set.status()[0].signed_as.as_deref(), Some("denies 1.0.0"));
    renamed.version = Some(">=1.1".parse().unwrap());
    let text = refusal(&bench, renamed).await;
    assert!(text.contains("signed as version `1.0.0`"), "{text}");

    // A signature over the bytes alone, as it was made once.
    let earlier: Vec<&str> = other.split(' ').take(2).collect();
    fs::write(&beside, earlier.join(" ")).unwrap();
    let text = refusal(&bench, spec()).await;
    assert!(text.contains("earlier form"), "{text}");

    // One bit of the component is another component.
    let mut changed = bytes.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&path, &changed).unwrap();
    fs::write(&beside, sign(&bytes)).unwrap();
    let text = refusal(&bench, spec()).await;
    assert!(text.contains("does not hold"), "{text}");
}

#[tokio::test]
async fn precompiled_code_is_never_accepted() {
    let engine = wasmtime::Engine::default();
    let compiled = engine
        .precompile_component(&guest::component("agreeable"))
        .unwrap();
    let bench = Bench::new();
    let mut spec = PluginSpec::new("native", PluginSource::Bytes(compiled.into()));
    spec.signature = Some(String::new());
    let text = refusal(&bench, spec).await;
    assert!(text.contains("not a valid WebAssembly component"), "{text}");
}

#[tokio::test]
async fn a_registry_serves_a_signed_component_by_its_digest() {
    let registry = Registry::new(&guest::component("agreeable"), Lie::None).await;
    let cache = tempfile::tempdir().unwrap();
    let bench = Bench::with_cache(cache.path().join("private"));
    let set = bench.load(vec![registry.spec()]).await.unwrap();
    let signed_by = set.status()[0].signed_by.clone();
    assert_eq!(signed_by, Some(key().to_string()));
    // Manifest, token, manifest, layer.
    assert_eq!(registry.server.connections(), 4);

    // What is pinned and kept needs no registry.
    let (gone, bench) = (
        registry.spec(),
        Bench::with_cache(cache.path().join("private")),
    );
    drop(registry);
    bench.load(vec![gone]).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_serves_garbage_is_refused_and_harms_nothing() {
    let component = guest::component("agreeable");
    let bench = Bench::new();
    let active = bench.set_of("agreeable").await;
    for (lie, said) in [
        (Lie::OtherManifest, "its digest is"),
        (Lie::OtherLayer, "its digest is"),
        (Lie::NotJson, "its manifest cannot be read"),
        (Lie::TwoLayers, "it has 2 layers"),
        (Lie::NativeLayer, "its layer is"),
        (Lie::OtherConfig, "its config is"),
        (Lie::HugeLayer, "at most"),
        (Lie::EndlessLayer, "over"),
        (Lie::CutLayer, "stopped midway"),
        (Lie::HugeManifest, "over 4194304 bytes"),
        (Lie::EndlessManifest, "over 4194304 bytes"),
        (Lie::Redirect, "leads to a private address"),
        (Lie::Gone, "404"),
        (Lie::NoToken, "anonymously"),
        (Lie::NoTokenForUs, "anonymously"),
        (Lie::Realm("http://127.0.0.1:1/token"), "nobody is believed"),
        (
            Lie::Realm("http://169.254.169.254/latest"),
            "nobody is believed",
        ),
        (Lie::Realm("ftp://127.0.0.1/"), "does not say where"),
    ] {
        let registry = Registry::new(&component, lie).await;
        let text = refusal(&bench, registry.spec()).await;
        assert!(text.contains(said), "{lie:?}: {text}");
    }
    let opened = bench.open(&active).await;
    assert!(matches!(opened, nowconnect_plugins::OpenOutcome::Allow(_)));
}

#[tokio::test]
async fn a_token_comes_from_another_host_only_where_the_operator_names_it() {
    let elsewhere =
        Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n{\"token\":\"let-me-in\"}")
            .await;
    let realm = format!("http://127.0.0.1:{}/token", elsewhere.port);
    let registry = Registry::new(&guest::component("agreeable"), Lie::Realm(leaked(realm))).await;
    let folder = tempfile::tempdir().unwrap();
    let mut spec = registry.spec();
    spec.registry.auth_file = Some(auth_file(&folder, &registry));
    let bench = Bench::new();
    let text = refusal(&bench, spec.clone()).await;
    let host = format!("127.0.0.1:{}", elsewhere.port);
    assert!(
        text.contains(&format!("token_hosts: [\"{host}\"]")),
        "{text}"
    );
    assert_eq!(elsewhere.connections(), 0, "it was not even asked");
    spec.registry.token_hosts = vec![host];
    bench.load(vec![spec]).await.unwrap();
    assert_eq!(elsewhere.connections(), 1);
}

#[tokio::test]
async fn a_registry_that_asks_for_credentials_gets_those_of_the_file() {
    for lie in [Lie::OnlyForReader, Lie::PasswordOnly] {
        let registry = Registry::new(&guest::component("agreeable"), lie).await;
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::new();
        let text = refusal(&bench, registry.spec()).await;
        assert!(text.contains("plugins.registry_auth_file"), "{text}");
        let mut spec = registry.spec();
        let path = auth_file(&folder, &registry);
        spec.registry.auth_file = Some(path.clone());
        bench.load(vec![spec.clone()]).await.unwrap();

        // Those of another registry are not shown to this one.
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("127.0.0.1:", "127.0.0.2:")).unwrap();
        let text = refusal(&Bench::new(), spec.clone()).await;
        assert!(text.contains("anonymously"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
        // `reader:other`
        let other = fs::read_to_string(auth_file(&folder, &registry)).unwrap();
        let other = other.replace("cmVhZGVyOnMzY3JldA==", "cmVhZGVyOm90aGVy");
        fs::write(&path, other).unwrap();
        let text = refusal(&Bench::new(), spec).await;
        let said = if lie == Lie::PasswordOnly {
            "401"
        } else {
            "does not let us read it"
        };
        assert!(text.contains(said), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}

/// A file as container tools keep it, with `reader:s3cret` for this registry.
fn auth_file(folder: &tempfile::TempDir, registry: &Registry) -> std::path::PathBuf {
    let path = folder.path().join("config.json");
    let text = serde_json::json!({"auths": {
        format!("127.0.0.1:{}", registry.server.port): {"auth": "cmVhZGVyOnMzY3JldA=="},
    }});
    fs::write(&path, text.to_string()).unwrap();
    path
}

/// For the few names that a test makes.
fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

#[tokio::test]
async fn a_set_tells_which_plugins_went_back_to_an_earlier_version() {
    let bytes = guest::component("agreeable");
    let spec = |version: &str| {
        let mut spec = spec("agreeable");
        spec.trust = vec![key()];
        spec.require_signature = true;
        let signed_as = SignedAs::new("agreeable", version).unwrap();
        let signature = ComponentSignature::new(&secret(), signed_as, &bytes);
        spec.signature = Some(signature.to_string());
        spec
    };
    let bench = Bench::new();
    let before = bench.load(vec![spec("1.10.0")]).await.unwrap();
    let older = bench.load(vec![spec("1.9.0")]).await.unwrap();
    let went_back = older.downgrades_from(&before);
    assert_eq!(
        went_back,
        [Downgrade {
            plugin: "agreeable".to_owned(),
            before: "agreeable 1.10.0".to_owned(),
            now: "agreeable 1.9.0".to_owned(),
        }]
    );
    assert_eq!(before.downgrades_from(&older), []);
    assert_eq!(older.downgrades_from(&older), []);
}

#[tokio::test]
async fn a_signature_is_kept_beside_the_component_and_fetched_again_only_where_it_must_be() {
    let component = guest::component("agreeable");
    let asked = Arc::new(AtomicUsize::new(0));
    let (served, count) = (Arc::clone(&component), Arc::clone(&asked));
    let server = Server::start(move |mut stream| {
        let (served, count) = (Arc::clone(&served), Arc::clone(&count));
        async move {
            let request = read_request(&mut stream).await;
            // The second key signs later.
            let both = format!(
                "{}{}",
                sign(&served),
                signed_as("agreeable", &served, &other_secret())
            );
            let signatures = match count.load(Ordering::SeqCst) {
                0 => sign(&served),
                _ => both,
            };
            let body: &[u8] = if request.starts_with("GET /agreeable.wasm.sig ") {
                count.fetch_add(1, Ordering::SeqCst);
                signatures.as_bytes()
            } else {
                &served
            };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            let _ = stream.write_all(body).await;
        }
    })
    .await;
    let mut spec = spec("agreeable");
    spec.source = PluginSource::Url(format!("http://127.0.0.1:{}/agreeable.wasm", server.port));
    spec.digest = Some(digest(&component));
    spec.trust = vec![key()];
    spec.require_signature = true;
    let cache = tempfile::tempdir().unwrap();
    let bench = || Bench::with_cache(cache.path().join("private"));
    for _ in 0..3 {
        bench().load(vec![spec.clone()]).await.unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Once another key is trusted, what is kept does not suffice.
    spec.trust = vec![other_secret().public()];
    for _ in 0..2 {
        bench().load(vec![spec.clone()]).await.unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // What is kept needs no server.
    drop(server);
    bench().load(vec![spec]).await.unwrap();
}

/// Whoever serves a plugin that runs holds up no reload by saying nothing.
#[tokio::test]
async fn what_runs_and_is_pinned_needs_no_server() {
    let component = guest::component("agreeable");
    let registry = Registry::new(&component, Lie::None).await;
    let spec = registry.spec();
    let bench = Bench::new();
    let first = bench.load(vec![spec.clone()]).await.unwrap();
    let asked = registry.server.connections();
    assert!(asked > 0);
    let again = bench.load(vec![spec.clone()]).await.unwrap();
    assert_eq!(registry.server.connections(), asked);
    assert_eq!(again.status(), first.status());
    // One that is told something else is another plugin.
    let mut other = spec.clone();
    other.order = 7;
    bench.load(vec![other]).await.unwrap();
    assert!(registry.server.connections() > asked);
    // Nothing runs any more.
    drop((first, again));
    let asked = registry.server.connections();
    bench.load(vec![spec]).await.unwrap();
    assert!(registry.server.connections() > asked);
}

fn other_secret() -> SecretKey {
    let bytes = base64::engine::general_purpose::STANDARD.encode([8; 32]);
    SecretKey::parse(&format!("nowconnect-secret-ed25519:{bytes}")).unwrap()
}

/// Each waits until all are there, so that they arrive only if they are fetched side by side.
#[tokio::test]
async fn components_arrive_side_by_side() {
    let component = guest::component("agreeable");
    let all = Arc::new(tokio::sync::Barrier::new(3));
    let served = Arc::clone(&component);
    let server = Server::start(move |mut stream| {
        let (served, all) = (Arc::clone(&served), Arc::clone(&all));
        async move {
            read_request(&mut stream).await;
            all.wait().await;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                served.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let _ = stream.write_all(&served).await;
        }
    })
    .await;
    let specs = ["a", "b", "c"].map(|name| {
        let mut spec = spec("agreeable");
        spec.name = name.to_owned();
        spec.source = PluginSource::Url(format!("http://127.0.0.1:{}/{name}", server.port));
        spec.digest = Some(digest(&component));
        // Three share the bench's small pool.
        spec.limits.concurrency = 4;
        spec
    });
    let bench = Bench::new();
    let loaded = tokio::time::timeout(Duration::from_secs(50), bench.load(specs.to_vec()));
    let set = loaded.await.unwrap().unwrap();
    let names: Vec<String> = set.status().into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_web_server_must_be_pinned() {
    let component = guest::component("agreeable");
    let served = Arc::clone(&component);
    let server = Server::start(move |mut stream| {
        let served = Arc::clone(&served);
        async move {
            let request = read_request(&mut stream).await;
            let signature = sign(&served);
            let body: &[u8] = if request.starts_with("GET /agreeable.wasm.sig ") {
                signature.as_bytes()
            } else {
                &served
            };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            let _ = stream.write_all(body).await;
        }
    })
    .await;
    let url = format!("http://127.0.0.1:{}/agreeable.wasm", server.port);
    let mut spec = spec("agreeable");
    spec.source = PluginSource::Url(url);
    spec.trust = vec![key()];
    spec.require_signature = true;
    let bench = Bench::new();
    let text = refusal(&bench, spec.clone()).await;
    assert!(text.contains("`digest` is missing"), "{text}");
    assert_eq!(server.connections(), 0);
    spec.digest = Some(digest(&component));
    assert!(bench.load(vec![spec]).await.is_ok());
}

async fn refusal(bench: &Bench, spec: PluginSpec) -> String {
    let errors = bench.load(vec![spec]).await.unwrap_err();
    assert_eq!(errors.len(), 1);
    errors[0].to_string()
}
