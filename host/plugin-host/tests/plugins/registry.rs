//! A registry of the test's making, which may lie, and the key that signs what it has.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use nowconnect_plugins::signature::{ComponentSignature, PublicKey, SecretKey, SignedAs};
use nowconnect_plugins::{OCI_SIGNATURES, PluginSource, PluginSpec};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::fetch::{Server, read_request};
use super::harness::spec;

pub(crate) fn secret() -> SecretKey {
    let bytes = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    SecretKey::parse(&format!("nowconnect-secret-ed25519:{bytes}")).unwrap()
}

pub(crate) fn key() -> PublicKey {
    secret().public()
}

/// What a signature file holds.
pub(crate) fn sign(component: &[u8]) -> String {
    format!("{}\n", signed_as("agreeable", component, &secret()))
}

pub(crate) fn signed_as(name: &str, component: &[u8], key: &SecretKey) -> ComponentSignature {
    ComponentSignature::new(key, SignedAs::new(name, "1.0.0").unwrap(), component)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    OtherManifest,
    OtherLayer,
    NotJson,
    TwoLayers,
    NativeLayer,
    OtherConfig,
    HugeLayer,
    EndlessLayer,
    CutLayer,
    HugeManifest,
    EndlessManifest,
    Redirect,
    Gone,
    NoToken,
    /// It hands out none to who shows no credentials.
    NoTokenForUs,
    /// It sends for a token to there.
    Realm(&'static str),
    /// Its tokens are for `reader` with the password `s3cret`.
    OnlyForReader,
    /// It wants this user and password itself.
    PasswordOnly,
}

/// As much of a registry as pulling asks for.
pub(crate) struct Registry {
    pub(crate) server: Server,
    manifest_digest: String,
}

impl Registry {
    pub(crate) async fn new(component: &Arc<[u8]>, lie: Lie) -> Self {
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
                let endless = lie == Lie::EndlessLayer && request.contains("/blobs/")
                    || lie == Lie::EndlessManifest && request.contains("/manifests/");
                if endless {
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

    pub(crate) fn spec(&self) -> PluginSpec {
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
    let is_reader = request.contains("authorization: Basic cmVhZGVyOnMzY3JldA==\r\n");
    if path.starts_with("/token?service=registry&scope=repository%3Aacme%2Fagreeable%3Apull") {
        if lie == Lie::NoTokenForUs || lie == Lie::OnlyForReader && !is_reader {
            return head("401 Unauthorized", "", 0);
        }
        let token = br#"{"token":"let-me-in"}"#;
        return [head("200 OK", "", token.len()), token.to_vec()].concat();
    }
    let has_token = request.contains("authorization: Bearer let-me-in\r\n");
    let may_read = if lie == Lie::PasswordOnly {
        is_reader
    } else {
        has_token
    };
    if !may_read {
        let own = format!("http://127.0.0.1:{port}/token");
        let realm = if let Lie::Realm(realm) = lie {
            realm
        } else {
            own.as_str()
        };
        let challenge = if lie == Lie::NoToken {
            String::new()
        } else if lie == Lie::PasswordOnly {
            "www-authenticate: Basic realm=\"registry\"\r\n".to_owned()
        } else {
            format!(
                "www-authenticate: Bearer realm=\"{realm}\",service=\"registry\",\
                 scope=\"repository:acme/agreeable:push\"\r\n"
            )
        };
        return head("401 Unauthorized", &challenge, 0);
    }
    if lie == Lie::Redirect && path.contains("/blobs/") {
        // Where only this machine can go.
        return head(
            "307 Temporary Redirect",
            "location: http://127.0.0.2:1/\r\n",
            0,
        );
    }
    let is_layer = path.contains("/blobs/");
    if lie == Lie::EndlessLayer && is_layer || lie == Lie::EndlessManifest && !is_layer {
        return b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    }
    if lie == Lie::HugeManifest && !is_layer {
        return [head("200 OK", "", 5 << 20), vec![b' '; 5 << 20]].concat();
    }
    if lie == Lie::CutLayer && is_layer {
        let part = parts.get(path).map_or(&[][..], Vec::as_slice);
        return [
            head("200 OK", "", part.len()),
            part[..part.len() / 2].to_vec(),
        ]
        .concat();
    }
    match parts.get(path).filter(|_| lie != Lie::Gone) {
        Some(part) => [head("200 OK", "", part.len()), part.clone()].concat(),
        None => head("404 Not Found", "", 0),
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex = Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    format!("sha256:{hex}")
}
