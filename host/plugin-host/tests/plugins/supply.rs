//! Signatures, and components that come over the network.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use base64::Engine as _;
use nowconnect_plugins::signature::{PublicKey, SecretKey};
use nowconnect_plugins::{OCI_SIGNATURES, PluginSource, PluginSpec};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::fetch::{Server, read_request};
use super::guest;
use super::harness::{Bench, spec};

fn secret() -> SecretKey {
    let bytes = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    SecretKey::parse(&format!("nowconnect-secret-ed25519:{bytes}")).unwrap()
}

fn key() -> PublicKey {
    secret().public()
}

/// What a signature file holds.
fn sign(component: &[u8]) -> String {
    format!("{}\n", secret().sign(component))
}

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

    fs::write(
        &beside,
        SecretKey::generate().unwrap().sign(&bytes).to_string(),
    )
    .unwrap();
    let text = refusal(&bench, spec()).await;
    assert!(text.contains("none of the trusted keys"), "{text}");

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
        (Lie::Redirect, "leads to a private address"),
        (Lie::Gone, "404"),
        (Lie::NoToken, "anonymously"),
    ] {
        let registry = Registry::new(&component, lie).await;
        let text = refusal(&bench, registry.spec()).await;
        assert!(text.contains(said), "{lie:?}: {text}");
    }
    let opened = bench.open(&active).await;
    assert!(matches!(opened, nowconnect_plugins::OpenOutcome::Allow(_)));
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    OtherManifest,
    OtherLayer,
    NotJson,
    TwoLayers,
    NativeLayer,
    OtherConfig,
    HugeLayer,
    EndlessLayer,
    Redirect,
    Gone,
    NoToken,
}

/// As much of a registry as pulling asks for.
struct Registry {
    server: Server,
    manifest_digest: String,
}

impl Registry {
    async fn new(component: &Arc<[u8]>, lie: Lie) -> Self {
        let layer_digest = digest(component);
        let layer = serde_json::json!({
            "mediaType": if lie == Lie::NativeLayer { "application/octet-stream" } else { "application/wasm" },
            "digest": layer_digest,
            "size": if lie == Lie::HugeLayer { 1_u64 << 40 } else { component.len() as u64 },
        });
        let layers = if lie == Lie::TwoLayers {
            vec![layer.clone(), layer]
        } else {
            vec![layer]
        };
        let config = if lie == Lie::OtherConfig {
            "application/json"
        } else {
            "application/vnd.wasm.config.v0+json"
        };
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": config, "digest": digest(b"{}"), "size": 2},
            "layers": layers,
            "annotations": {OCI_SIGNATURES: sign(component)},
        });
        let manifest = if lie == Lie::NotJson {
            b"<html>".to_vec()
        } else {
            serde_json::to_vec(&manifest).unwrap()
        };
        let manifest_digest = digest(&manifest);
        let mut parts = HashMap::new();
        let served = if lie == Lie::OtherManifest {
            b"{}".to_vec()
        } else {
            manifest
        };
        parts.insert(
            format!("/v2/acme/agreeable/manifests/{manifest_digest}"),
            served,
        );
        let served = if lie == Lie::OtherLayer {
            b"\0asm".to_vec()
        } else {
            component.to_vec()
        };
        parts.insert(format!("/v2/acme/agreeable/blobs/{layer_digest}"), served);
        let parts = Arc::new(parts);
        let server = Server::start(move |mut stream| {
            let parts = Arc::clone(&parts);
            async move {
                let request = read_request(&mut stream).await;
                let answer = answer(&request, &parts, lie, stream.local_addr().unwrap().port());
                let _ = stream.write_all(&answer).await;
                if lie == Lie::EndlessLayer && request.contains("/blobs/") {
                    while stream.write_all(&[0; 65536]).await.is_ok() {}
                }
            }
        })
        .await;
        Self {
            server,
            manifest_digest,
        }
    }

    fn spec(&self) -> PluginSpec {
        let (port, digest) = (self.server.port, &self.manifest_digest);
        let mut spec = spec("agreeable");
        spec.source = PluginSource::Oci(format!(
            "oci+http://127.0.0.1:{port}/acme/agreeable@{digest}"
        ));
        spec.trust = vec![key()];
        spec.require_signature = true;
        spec
    }
}

fn answer(request: &str, parts: &HashMap<String, Vec<u8>>, lie: Lie, port: u16) -> Vec<u8> {
    let path = request.split(' ').nth(1).unwrap_or_default();
    let head = |status: &str, more: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\n{more}content-length: {length}\r\n\r\n").into_bytes()
    };
    if path.starts_with("/token?service=registry&scope=repository%3Aacme%2Fagreeable%3Apull") {
        let token = br#"{"token":"let-me-in"}"#;
        return [head("200 OK", "", token.len()), token.to_vec()].concat();
    }
    if !request.contains("authorization: Bearer let-me-in\r\n") {
        let challenge = format!(
            "www-authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"registry\",\
             scope=\"repository:acme/agreeable:pull\"\r\n"
        );
        let challenge = if lie == Lie::NoToken { "" } else { &challenge };
        return head("401 Unauthorized", challenge, 0);
    }
    if lie == Lie::Redirect && path.contains("/blobs/") {
        // Where only this machine can go.
        return head(
            "307 Temporary Redirect",
            "location: http://127.0.0.2:1/\r\n",
            0,
        );
    }
    if lie == Lie::EndlessLayer && path.contains("/blobs/") {
        return b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    }
    match parts.get(path).filter(|_| lie != Lie::Gone) {
        Some(part) => [head("200 OK", "", part.len()), part.clone()].concat(),
        None => head("404 Not Found", "", 0),
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex = Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    format!("sha256:{hex}")
}

async fn refusal(bench: &Bench, spec: PluginSpec) -> String {
    let errors = bench.load(vec![spec]).await.unwrap_err();
    assert_eq!(errors.len(), 1);
    errors[0].to_string()
}
