//! Components in a registry, in the layout that WebAssembly tools share: a manifest with the
//! config `application/vnd.wasm.config.v0+json` and one layer `application/wasm`.
//!
//! Only a digest names one, so the registry is not trusted: the manifest must have that digest,
//! and the layer the one that the manifest names. Written here and not taken from a client crate,
//! because those read a manifest of any length into memory.

use std::sync::Arc;

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::credentials::RegistryCredentials;
use super::entry::{Door, WayOut};
use super::{RegistryAccess, Signed, blobs, get, good};
use crate::component::{COMPONENT_BYTES_MAX, Digest};
use crate::engine::EngineInner;
use crate::error::LoadProblem;
use crate::trust::SIGNATURES_BYTES_MAX;
use crate::web::{Outgoing, Target};

/// Bytes of a manifest, as registries bound them.
const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
const LAYER_TYPE: &str = "application/wasm";
/// Annotation of a registry's manifest with what a component's signature file holds.
pub const OCI_SIGNATURES: &str = "dev.nowconnect.signatures";

/// A component in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    tls: bool,
    registry: String,
    repository: String,
    digest: Digest,
}

impl Reference {
    /// Reads `oci://registry/name@sha256:…`; `oci+http://` for a registry without TLS.
    pub(crate) fn parse(text: &str) -> Result<Self, LoadProblem> {
        let bad = || LoadProblem::BadReference(text.to_owned());
        let (tls, rest) = match (
            text.strip_prefix("oci://"),
            text.strip_prefix("oci+http://"),
        ) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(bad()),
        };
        let (name, digest) = rest.split_once('@').ok_or_else(bad)?;
        let (registry, repository) = name.split_once('/').ok_or_else(bad)?;
        // A tag beside the digest says nothing that counts.
        let repository = repository
            .split_once(':')
            .map_or(repository, |(name, _)| name);
        let is_name_byte =
            |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/');
        let is_good = !repository.is_empty()
            && repository.len() <= 255
            && repository.bytes().all(is_name_byte)
            && repository
                .split('/')
                .all(|part| part.starts_with(|c: char| c.is_ascii_alphanumeric()));
        if !is_good {
            return Err(bad());
        }
        let reference = Self {
            tls,
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            digest: Digest::parse(digest)?,
        };
        Target::parse(&reference.url("manifests", reference.digest)).map_err(|_| bad())?;
        Ok(reference)
    }

    fn url(&self, what: &str, digest: Digest) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let (registry, repository) = (&self.registry, &self.repository);
        format!("{scheme}://{registry}/v2/{repository}/{what}/sha256:{digest}")
    }
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    size: u64,
}

/// Pulls a component and the signature that its manifest carries.
pub(super) async fn pull(
    engine: &Arc<EngineInner>,
    reference: &Reference,
    access: &RegistryAccess,
) -> Result<Signed, LoadProblem> {
    let mut session = Session {
        engine,
        reference,
        access,
        authorization: None,
    };
    let manifest = session
        .part("manifests", reference.digest, MANIFEST_BYTES_MAX)
        .await?;
    let manifest: Manifest = serde_json::from_slice(&manifest)
        .map_err(|error| layout(format!("its manifest cannot be read: {error}")))?;
    if manifest.config.media_type != CONFIG_TYPE {
        let config = manifest.config.media_type.escape_debug();
        return Err(layout(format!(
            "its config is `{config}`, not `{CONFIG_TYPE}`"
        )));
    }
    let [layer] = manifest.layers.as_slice() else {
        return Err(layout(format!(
            "it has {} layers, not one",
            manifest.layers.len()
        )));
    };
    if layer.media_type != LAYER_TYPE {
        let layer = layer.media_type.escape_debug();
        return Err(layout(format!(
            "its layer is `{layer}`, not `{LAYER_TYPE}`"
        )));
    }
    if layer.size > COMPONENT_BYTES_MAX {
        return Err(layout(format!(
            "its layer has {} bytes, at most {COMPONENT_BYTES_MAX} are loaded",
            layer.size
        )));
    }
    let signatures = manifest.annotations.get(OCI_SIGNATURES).cloned();
    let length = signatures.as_ref().map_or(0, String::len);
    if u64::try_from(length).unwrap_or(u64::MAX) > SIGNATURES_BYTES_MAX {
        return Err(layout(format!(
            "its annotation `{OCI_SIGNATURES}` has {length} bytes, at most {SIGNATURES_BYTES_MAX} \
             are read"
        )));
    }
    let digest = Digest::parse(&layer.digest)?;
    let bytes = session.part("blobs", digest, layer.size).await?;
    Ok((bytes, signatures))
}

fn layout(problem: String) -> LoadProblem {
    LoadProblem::Fetch(format!("it is no WebAssembly artifact: {problem}"))
}

/// One pull, with what the registry asked for.
struct Session<'a> {
    engine: &'a Arc<EngineInner>,
    reference: &'a Reference,
    access: &'a RegistryAccess,
    authorization: Option<HeaderValue>,
}

impl Session<'_> {
    /// A part with this digest, kept or fetched.
    async fn part(
        &mut self,
        what: &str,
        digest: Digest,
        bytes_max: u64,
    ) -> Result<Arc<[u8]>, LoadProblem> {
        if let Some(bytes) = blobs::kept(self.engine, digest).await {
            return Ok(bytes);
        }
        let url = self.reference.url(what, digest);
        let mut answer = get(self.engine, &url, self.outgoing(), bytes_max).await?;
        if answer.status == StatusCode::UNAUTHORIZED && self.authorization.is_none() {
            // Many want a token even from whoever may read anonymously.
            let entry = self.door().await?.enter(&answer.headers).await?;
            self.authorization = entry.header();
            answer = get(self.engine, &url, self.outgoing(), bytes_max).await?;
        }
        let bytes = good(&url, answer)?;
        let actual = blobs::digest_of(&bytes).await?;
        if actual != digest {
            return Err(LoadProblem::DigestMismatch {
                pinned: format!("sha256:{digest}"),
                actual: format!("sha256:{actual}"),
            });
        }
        blobs::keep(self.engine, digest, &bytes).await;
        Ok(bytes)
    }

    fn outgoing(&self) -> Outgoing {
        let outgoing = Outgoing::get().with(ACCEPT, HeaderValue::from_static(MANIFEST_TYPE));
        match &self.authorization {
            Some(value) => outgoing.with(AUTHORIZATION, value.clone()),
            None => outgoing,
        }
    }

    async fn door(&self) -> Result<Door<'_>, LoadProblem> {
        Ok(Door {
            engine: self.engine,
            registry: &self.reference.registry,
            tls: self.reference.tls,
            repository: &self.reference.repository,
            actions: "pull",
            token_hosts: &self.access.token_hosts,
            credentials: self.credentials().await?,
            way_out: WayOut::Configuration,
        })
    }

    async fn credentials(&self) -> Result<Option<RegistryCredentials>, LoadProblem> {
        let Some(path) = self.access.auth_file.clone() else {
            return Ok(None);
        };
        let (registry, repository) = (
            self.reference.registry.clone(),
            self.reference.repository.clone(),
        );
        let read =
            spawn_blocking(move || RegistryCredentials::read(&path, &registry, &repository)).await;
        match read {
            Ok(read) => read.map_err(|error| {
                LoadProblem::Fetch(format!("`plugins.registry_auth_file` {error}"))
            }),
            Err(error) => Err(LoadProblem::Fetch(format!("reading it panicked: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::Reference;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_reference_names_registry_repository_and_digest() {
        let reference = format!("oci://registry.example:5000/acme/tenant-headers:1.0@{DIGEST}");
        let reference = Reference::parse(&reference).unwrap();
        assert_eq!(
            reference.url("manifests", reference.digest),
            format!("https://registry.example:5000/v2/acme/tenant-headers/manifests/{DIGEST}")
        );
        for bad in [
            "oci://registry.example/name:latest".to_owned(),
            format!("oci://name@{DIGEST}"),
            format!("oci://registry.example/../x@{DIGEST}"),
            format!("oci://registry.example/a//b@{DIGEST}"),
            format!("oci://registry.example/Name@{DIGEST}"),
            format!("oci://user@registry.example/name@{DIGEST}"),
            "oci://registry.example/name@sha256:12".to_owned(),
            format!("https://registry.example/name@{DIGEST}"),
        ] {
            assert!(Reference::parse(&bad).is_err(), "{bad}");
        }
    }
}
