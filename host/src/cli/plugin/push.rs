//! `plugin push`: a component in an OCI registry, in the layout that WebAssembly tools share: the
//! config `application/vnd.wasm.config.v0+json` and one layer `application/wasm`. The signatures
//! beside the component travel as an annotation of the manifest.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use nowconnect_plugins::{Inspection, RegistryCredentials, UploadError};
use oci_client::Reference;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::keys::signatures_beside;
use super::mounting::{bench, read_component, stem};
use super::{Done, Trouble, wait_for};
use crate::cli::Exit;

/// How long a registry may take to let us in.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long one part may take to get there: 32 MiB over a slow line.
const UPLOAD_WITHIN: Duration = Duration::from_secs(600);

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
const LAYER_TYPE: &str = "application/wasm";
/// Annotation with what the component's signature file holds.
const SIGNATURES: &str = "dev.nowconnect.signatures";

/// `nowconnect plugin push`.
#[derive(Clone, Debug, Args)]
pub struct Push {
    /// The component
    file: PathBuf,
    /// Where it goes: `oci://registry.example/team/name:1.0`; `oci+http://` without TLS
    reference: String,
    /// The registry's user; without one the push is anonymous
    #[arg(long, requires = "password_file")]
    user: Option<String>,
    /// A file with the user's password or token
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Credentials as container tools keep them (`auths` of `config.json`), instead of a user
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    auth_file: Option<PathBuf>,
    /// A host beside the registry's own that may hand out its tokens, and sees the credentials
    #[arg(long = "auth-host", value_name = "HOST")]
    auth_hosts: Vec<String>,
}

/// A blob by its digest.
struct Blob {
    bytes: Bytes,
    digest: String,
}

impl Blob {
    fn of(bytes: Vec<u8>) -> Self {
        let hash = Sha256::digest(&bytes);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            digest: format!("sha256:{hex}"),
            bytes: bytes.into(),
        }
    }

    fn described(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

impl Push {
    pub(super) fn run(self, out: &mut dyn Write) -> Done {
        let bytes = read_component(&self.file)?;
        let (tls, reference) = parse(&self.reference)?;
        let credentials = self.credentials(&reference)?;
        let signatures = signatures_beside(&self.file)?;
        let annotations = signatures.map(|signatures| (SIGNATURES, signatures.to_string()));
        let refuse = |what: &str, error: &dyn std::fmt::Display| {
            Trouble::failure(format!("`{reference}`: {what}: {error}"))
        };
        wait_for(async {
            let bench = bench()?;
            let inspected = bench.inspect(bytes.clone()).await;
            let inspection = inspected.map_err(|problem| {
                Trouble::failure(format!(
                    "`{}`: {problem}; nothing is pushed",
                    self.file.display()
                ))
            })?;
            let layer = Blob::of(bytes);
            let config = Blob::of(config(&inspection, &layer).to_string().into_bytes());
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": config.described(CONFIG_TYPE),
                "layers": [layer.described(LAYER_TYPE)],
                "annotations": BTreeMap::from_iter(
                    [("org.opencontainers.image.title", format!("{}.wasm", stem(&self.file)))]
                        .into_iter()
                        .chain(annotations),
                ),
            });
            let manifest = Blob::of(manifest.to_string().into_bytes());
            let registry = (reference.resolve_registry(), tls);
            let repository = reference.repository();
            let entry = bench.enter_registry(registry, repository, credentials, &self.auth_hosts);
            let upload = tokio::time::timeout(ANSWER_WITHIN, entry)
                .await
                .map_err(|_| refuse("it lets nobody in", &"it does not answer"))?
                .map_err(|error| refuse("it lets nobody in", &error))?;
            for blob in [&layer, &config] {
                let pushed = within(upload.blob(&blob.digest, blob.bytes.clone())).await;
                pushed.map_err(|error| refuse("it does not take the component", &error))?;
            }
            let tag = reference.tag().unwrap_or("latest");
            let pushed = upload.manifest(tag, MANIFEST_TYPE, manifest.bytes.clone());
            within(pushed)
                .await
                .map_err(|error| refuse("it does not take the manifest", &error))?;
            let scheme = self.reference.split("://").next().unwrap_or_default();
            writeln!(
                out,
                "pushed {scheme}://{}/{}@{}",
                reference.registry(),
                reference.repository(),
                manifest.digest
            )?;
            writeln!(out, "component {}", layer.digest)?;
            Ok(Exit::Success)
        })
    }

    fn credentials(&self, reference: &Reference) -> Result<Option<RegistryCredentials>, Trouble> {
        if let Some(path) = &self.auth_file {
            let registry = reference.registry();
            let found = RegistryCredentials::read(path, registry, reference.repository())
                .map_err(Trouble::usage)?;
            return match found {
                Some(found) => Ok(Some(found)),
                None => Err(Trouble::usage(format!(
                    "`{}` has nothing for `{registry}`",
                    path.display()
                ))),
            };
        }
        let (Some(user), Some(path)) = (&self.user, &self.password_file) else {
            return Ok(None);
        };
        let password = std::fs::read_to_string(path)
            .map_err(|error| Trouble::usage(format!("`{}`: {error}", path.display())))?;
        Ok(Some(RegistryCredentials::new(
            user.clone(),
            password.trim(),
        )))
    }
}

/// What WebAssembly tools read about a component without fetching it. The time is a fixed one, so
/// that the same component pushed twice is the same artifact.
fn config(inspection: &Inspection, layer: &Blob) -> Value {
    json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [layer.digest],
        "component": {
            "exports": inspection.exports,
            "imports": inspection.imports,
        },
    })
}

async fn within(upload: impl Future<Output = Result<(), UploadError>>) -> Result<(), String> {
    match tokio::time::timeout(UPLOAD_WITHIN, upload).await {
        Ok(ended) => ended.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it takes longer than {UPLOAD_WITHIN:?}")),
    }
}

/// Whether the registry has TLS, and what is to be pushed.
fn parse(text: &str) -> Result<(bool, Reference), Trouble> {
    let refuse = |problem: &str| Trouble::usage(format!("`{text}`: {problem}"));
    let (tls, rest) = match (
        text.strip_prefix("oci://"),
        text.strip_prefix("oci+http://"),
    ) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err(refuse("write oci://registry/name:tag")),
    };
    // Without a registry in it, a name would mean another company's.
    let registry = rest.split('/').next().unwrap_or_default();
    if !rest.contains('/') || !registry.contains(['.', ':']) && registry != "localhost" {
        return Err(refuse(
            "it names no registry; write oci://registry/name:tag",
        ));
    }
    let reference: Reference = rest.parse().map_err(|error| {
        Trouble::usage(format!("`{text}`: {error}; write oci://registry/name:tag"))
    })?;
    if reference.digest().is_some() {
        return Err(refuse("name a tag; the digest is what comes of it"));
    }
    Ok((tls, reference))
}
