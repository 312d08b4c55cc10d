//! What is pushed to a registry.
//!
//! Whoever pushes shows credentials, so nothing that a registry answers leads them, or the bytes,
//! elsewhere: no redirect is followed, no second challenge is answered, and the place that it names
//! for an upload must be its own.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use thiserror::Error;

use super::entry::RegistryEntry;
use crate::engine::EngineInner;
use crate::names::Asker;
use crate::web::{Incoming, Outgoing, Target, WebError};

/// Bytes of an answer, which nobody reads.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why a registry does not have what was pushed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UploadError {
    /// It could not be asked.
    #[error("{0}")]
    Exchange(String),
    /// It says no.
    #[error("it answers {0}")]
    Refused(StatusCode),
    /// It does not say where the bytes go.
    #[error("it does not say where the upload goes")]
    Nowhere,
    /// It would have the bytes, and who we are, sent elsewhere.
    #[error("it wants the upload sent to `{0}`, and nobody is believed about another host")]
    Elsewhere(String),
}

impl From<WebError> for UploadError {
    fn from(error: WebError) -> Self {
        Self::Exchange(error.to_string())
    }
}

/// A repository that let us in. The caller bounds the time of each upload.
pub struct RegistryUpload<'a> {
    engine: &'a Arc<EngineInner>,
    registry: Target,
    repository: String,
    authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for RegistryUpload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryUpload")
            .field("registry", &self.registry.authority())
            .field("repository", &self.repository)
            .finish_non_exhaustive()
    }
}

impl<'a> RegistryUpload<'a> {
    pub(crate) fn new(
        engine: &'a Arc<EngineInner>,
        registry: Target,
        repository: &str,
        entry: &RegistryEntry,
    ) -> Self {
        Self {
            engine,
            registry,
            repository: repository.to_owned(),
            authorization: entry.header(),
        }
    }

    /// Puts a blob there in one piece; `digest` is `sha256:` and its hash in hex.
    ///
    /// # Errors
    /// The registry cannot be asked, says no, or sends us elsewhere.
    pub async fn blob(&self, digest: &str, bytes: Bytes) -> Result<(), UploadError> {
        let begin = self.at(format!("/v2/{}/blobs/uploads/", self.repository));
        let begun = self.send(Method::POST, &begin, None, Bytes::new()).await?;
        if begun.status != StatusCode::ACCEPTED {
            return Err(UploadError::Refused(begun.status));
        }
        let mut place = self.place(&begun.headers)?;
        place
            .path
            .push(if place.path.contains('?') { '&' } else { '?' });
        place.path.push_str("digest=");
        place.path.push_str(digest);
        let octets = Some("application/octet-stream");
        created(&self.send(Method::PUT, &place, octets, bytes).await?)
    }

    /// Puts a manifest there under this tag.
    ///
    /// # Errors
    /// The registry cannot be asked, or says no.
    pub async fn manifest(
        &self,
        tag: &str,
        media_type: &'static str,
        bytes: Bytes,
    ) -> Result<(), UploadError> {
        let place = self.at(format!("/v2/{}/manifests/{tag}", self.repository));
        created(
            &self
                .send(Method::PUT, &place, Some(media_type), bytes)
                .await?,
        )
    }

    fn at(&self, path: String) -> Target {
        Target {
            path,
            ..self.registry.clone()
        }
    }

    /// Where an upload that was begun goes on.
    fn place(&self, headers: &HeaderMap) -> Result<Target, UploadError> {
        let named = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let named = named.ok_or(UploadError::Nowhere)?;
        let place = self
            .registry
            .join(named)
            .map_err(|_| UploadError::Nowhere)?;
        let (ours, its) = (&self.registry, &place);
        if (ours.tls, &ours.host, ours.port) != (its.tls, &its.host, its.port) {
            let scheme = if its.tls { "https" } else { "http" };
            let elsewhere = format!("{scheme}://{}", its.authority());
            return Err(UploadError::Elsewhere(elsewhere));
        }
        Ok(place)
    }

    async fn send(
        &self,
        method: Method,
        target: &Target,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Incoming, UploadError> {
        let mut headers = HeaderMap::new();
        // Without a body it would be left out, which some servers do not take from a POST.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let outgoing = Outgoing {
            method,
            headers,
            body,
        };
        // Whoever pushes has named the registry, wherever it is.
        let may_reach = |_| true;
        let sent =
            self.engine
                .web
                .exchange(target, outgoing, ANSWER_BYTES_MAX, Asker::Source, may_reach);
        Ok(sent.await?)
    }
}

fn created(answer: &Incoming) -> Result<(), UploadError> {
    match answer.status {
        StatusCode::CREATED => Ok(()),
        other => Err(UploadError::Refused(other)),
    }
}
