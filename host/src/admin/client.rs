//! The client of the admin API, for the operator's command line.
//!
//! One connection per call over the Unix socket, bounded in time and in the size of the answer.
//! Errors say what to do: the hub is not running, the socket belongs to another user, the hub
//! refused and why.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::bundles::{Discarded, TAR};
use super::problem::Problem;
use super::routes::{
    ANSWER_TIMEOUT, AgentPage, DecisionPage, DecisionQuery, Done, LogLevel, RequestPage,
    RequestQuery,
};
use super::socket::{DEV_SOCKET, default_socket_path, dev_folder};
use super::view::{
    AgentAddressPage, AgentAddressQuery, BackupRequest, BundlePush, DrainProgress, DrainQuery,
    DrainRequest, ExplainRequest, FlowPage, FlowQuery, GenerationStatus, HubStatus, ReloadReport,
    RotateRequest, RotatedKey,
};
use crate::bundle::view::{
    ActivateReport, ActivateRequest, BundleStatus, DeliverReport, ShadowStatus,
};
use crate::certificates::view::CertificatePage;
use crate::cluster::ClusterStatus;
use crate::codes::page;
use crate::telemetry::decisions::DecisionRecord;

/// Largest answer taken. The largest is a list of 4096 agents with their connectors.
pub const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// A little longer than the hub itself waits, so that its answer comes first.
const CALL_TIMEOUT: Duration = ANSWER_TIMEOUT.saturating_add(Duration::from_secs(5));

/// Calls one hub.
#[derive(Debug, Clone)]
pub struct AdminClient {
    socket: PathBuf,
}

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no hub answers on `{socket}`; is it running? Name another socket with `--socket PATH` \
         (`admin.socket` of its configuration)"
    )]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket is somebody else's.
    #[error("no permission for `{socket}`; use the hub's user or root, such as with `sudo`")]
    NotPermitted {
        /// The socket.
        socket: PathBuf,
    },
    /// The hub refused.
    #[error("the hub refused ({code}): {detail}{}", page::hint(code))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The stable code.
        code: String,
        /// What is wrong.
        detail: String,
    },
    /// No answer in time.
    #[error("the hub did not answer on `{socket}` within {seconds} s")]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long we waited.
        seconds: u64,
    },
    /// What answered is not a hub, or one of another version.
    #[error("`{socket}` does not answer like a hub of this version: {problem}")]
    Unexpected {
        /// The socket.
        socket: PathBuf,
        /// What is strange.
        problem: String,
    },
}

impl AdminClient {
    /// Calls the hub on this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The socket given, else the first existing one of the usual places: the user's runtime
    /// folder (`XDG_RUNTIME_DIR`), then `/run/nowconnect`, then that of a hub of `nowconnect dev`.
    pub fn find(given: Option<&Path>) -> Self {
        if let Some(given) = given {
            return Self::new(given);
        }
        let own = std::env::var("XDG_RUNTIME_DIR").ok();
        let own = default_socket_path(own.as_deref());
        let usual = default_socket_path(None);
        let of_dev = dev_folder().map(|folder| folder.join(DEV_SOCKET));
        let found = [Some(&own), Some(&usual), of_dev.as_ref()]
            .into_iter()
            .flatten()
            .find(|socket| socket.exists());
        Self::new(found.unwrap_or(&usual).clone())
    }

    /// The socket that is called.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The hub as a whole.
    ///
    /// # Errors
    /// [`ClientError`], here and in the other calls.
    pub async fn status(&self) -> Result<HubStatus, ClientError> {
        self.get("/v1/status", &()).await
    }

    /// Agents with a session.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn agents(&self) -> Result<AgentPage, ClientError> {
        self.get("/v1/agents", &()).await
    }

    /// Where agents have dialled in from.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn agent_addresses(
        &self,
        query: &AgentAddressQuery,
    ) -> Result<AgentAddressPage, ClientError> {
        self.get("/v1/agent-addresses", query).await
    }

    /// Running flows.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn flows(&self, query: &FlowQuery) -> Result<FlowPage, ClientError> {
        self.get("/v1/flows", query).await
    }

    /// Kept decisions, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn decisions(&self, query: &DecisionQuery) -> Result<DecisionPage, ClientError> {
        self.get("/v1/decisions", query).await
    }

    /// One kept decision.
    ///
    /// # Errors
    /// [`ClientError`]; with code `not_found` where it is not kept any more.
    pub async fn decision(&self, id: &str) -> Result<DecisionRecord, ClientError> {
        self.get(&format!("/v1/decisions/{}", escaped(id)), &())
            .await
    }

    /// Distinct requests that were decided, the latest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn requests(&self, query: &RequestQuery) -> Result<RequestPage, ClientError> {
        self.get("/v1/requests", query).await
    }

    /// The generation in force.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn generation(&self) -> Result<GenerationStatus, ClientError> {
        self.get("/v1/generation", &()).await
    }

    /// Reloads; the report says whether it was taken.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn reload(&self) -> Result<ReloadReport, ClientError> {
        self.call(Method::POST, "/v1/reload", None::<&()>).await
    }

    /// The log level.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn log_level(&self) -> Result<LogLevel, ClientError> {
        self.get("/v1/log-level", &()).await
    }

    /// Changes the log level.
    ///
    /// # Errors
    /// [`ClientError`]; with code `invalid_request` where the level is not understood.
    pub async fn set_log_level(&self, level: &str) -> Result<LogLevel, ClientError> {
        let body = LogLevel {
            level: level.to_owned(),
        };
        self.call(Method::PUT, "/v1/log-level", Some(&body)).await
    }

    /// The cluster as the hub sees it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cluster(&self) -> Result<ClusterStatus, ClientError> {
        self.get("/v1/cluster", &()).await
    }

    /// The certificates of the HTTP ports.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn certificates(&self) -> Result<CertificatePage, ClientError> {
        self.get("/v1/certificates", &()).await
    }

    /// Has a name's certificate ordered now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn renew_certificate(&self, name: &str) -> Result<Done, ClientError> {
        let path = format!("/v1/certificates/{}/renew", escaped(name));
        self.call(Method::POST, &path, None::<&()>).await
    }

    /// Ends an agent's session.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn kick_agent(&self, agent: &str) -> Result<Done, ClientError> {
        let path = format!("/v1/agents/{}/kick", escaped(agent));
        self.call(Method::POST, &path, None::<&()>).await
    }

    /// Ends a flow.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn close_flow(&self, flow: &str) -> Result<Done, ClientError> {
        let path = format!("/v1/flows/{}/close", escaped(flow));
        self.call(Method::POST, &path, None::<&()>).await
    }

    /// Starts draining.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn drain(&self, request: &DrainRequest) -> Result<Done, ClientError> {
        self.call(Method::POST, "/v1/drain", Some(request)).await
    }

    /// Has the hub write a copy of what its control plane keeps.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn backup_state(&self, path: &Path) -> Result<Done, ClientError> {
        let request = BackupRequest {
            path: path.to_path_buf(),
        };
        self.call(Method::POST, "/v1/state/backup", Some(&request))
            .await
    }

    /// Lets another key sign the control plane's tokens.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rotate_keys(&self, distrust: bool) -> Result<RotatedKey, ClientError> {
        let request = RotateRequest { distrust };
        self.call(Method::POST, "/v1/state/rotate-keys", Some(&request))
            .await
    }

    /// How the drain goes: what holds at its end, or `wait` from now where that is earlier.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn drain_progress(&self, wait: Duration) -> Result<DrainProgress, ClientError> {
        let query = DrainQuery {
            wait_ms: u64::try_from(wait.as_millis()).ok(),
        };
        self.get("/v1/drain", &query).await
    }

    /// Explains a kept decision or a question.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn explain(
        &self,
        request: &ExplainRequest,
    ) -> Result<serde_json::Value, ClientError> {
        self.call(Method::POST, "/v1/explain", Some(request)).await
    }

    /// The policy bundles.
    ///
    /// # Errors
    /// [`ClientError`], here and below; with a code of its own where a bundle is refused.
    pub async fn bundles(&self) -> Result<BundleStatus, ClientError> {
        self.get("/v1/policy", &()).await
    }

    /// The comparison of the staged policies with those in force.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn shadow(&self) -> Result<ShadowStatus, ClientError> {
        self.get("/v1/policy/shadow", &()).await
    }

    /// Brings a bundle, as the bytes of a tar.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn push_bundle(
        &self,
        tar: Vec<u8>,
        push: BundlePush,
    ) -> Result<DeliverReport, ClientError> {
        let path = format!("/v1/policy/bundles{}", self.query_text(&push)?);
        let body = Some((tar, TAR));
        let answer = self.within_time(Method::POST, &path, body).await?;
        serde_json::from_slice(&answer).map_err(|error| self.unexpected(&error))
    }

    /// The bytes of a bundle that the hub keeps.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn bundle_bytes(&self, revision: u64) -> Result<Vec<u8>, ClientError> {
        let path = format!("/v1/policy/bundles/{revision}");
        let answer = self.within_time(Method::GET, &path, None).await?;
        Ok(answer.to_vec())
    }

    /// Puts the staged bundle in force, or asks what that would do.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn activate_bundle(
        &self,
        request: &ActivateRequest,
    ) -> Result<ActivateReport, ClientError> {
        self.call(Method::POST, "/v1/policy/activate", Some(request))
            .await
    }

    /// Takes the staged bundle back.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn discard_bundle(&self) -> Result<Discarded, ClientError> {
        self.call(Method::POST, "/v1/policy/discard", None::<&()>)
            .await
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<T, ClientError> {
        let path = format!("{path}{}", self.query_text(query)?);
        self.call(Method::GET, &path, None::<&()>).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, ClientError> {
        let body = match body {
            Some(body) => {
                let bytes = serde_json::to_vec(body).map_err(|error| self.unexpected(&error))?;
                Some((bytes, "application/json"))
            }
            None => None,
        };
        let answer = self.within_time(method, path, body).await?;
        serde_json::from_slice(&answer).map_err(|error| self.unexpected(&error))
    }

    /// The body of a good answer.
    async fn within_time(
        &self,
        method: Method,
        path: &str,
        body: Option<(Vec<u8>, &'static str)>,
    ) -> Result<Bytes, ClientError> {
        let exchange = tokio::time::timeout(CALL_TIMEOUT, self.exchange(method, path, body));
        let (status, answer) = exchange.await.map_err(|_| ClientError::Timeout {
            socket: self.socket.clone(),
            seconds: CALL_TIMEOUT.as_secs(),
        })??;
        if status.is_success() {
            return Ok(answer);
        }
        let problem: Problem = serde_json::from_slice(&answer)
            .map_err(|_| self.unexpected(&format!("HTTP status {status} without a reason")))?;
        Err(ClientError::Refused {
            status: problem.status,
            code: problem.code,
            detail: problem.detail,
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(Vec<u8>, &'static str)>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.not_connected(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unexpected(&error))?;
        let connection = AbortOnDrop(tokio::spawn(connection));
        let (bytes, kind) = match body {
            Some((bytes, kind)) => (bytes, Some(kind)),
            None => (Vec::new(), None),
        };
        let mut request = Request::new(Full::new(Bytes::from(bytes)));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error| self.unexpected(&error))?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        if let Some(kind) = kind {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.unexpected(&error))?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| {
                if error.is::<LengthLimitError>() {
                    self.unexpected(&"its answer is too large")
                } else {
                    self.unexpected(&error)
                }
            })?;
        drop(connection);
        Ok((status, answer.to_bytes()))
    }

    /// `?name=value&…` of the fields that are set.
    fn query_text(&self, query: &impl Serialize) -> Result<String, ClientError> {
        let value = serde_json::to_value(query).map_err(|error| self.unexpected(&error))?;
        let mut text = String::new();
        for (name, value) in value.as_object().into_iter().flatten() {
            let value = match value {
                serde_json::Value::String(text) => escaped(text),
                serde_json::Value::Null
                | serde_json::Value::Bool(_)
                | serde_json::Value::Number(_)
                | serde_json::Value::Array(_)
                | serde_json::Value::Object(_) => escaped(&value.to_string()),
            };
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(name);
            text.push('=');
            text.push_str(&value);
        }
        Ok(text)
    }

    fn not_connected(&self, error: &io::Error) -> ClientError {
        let socket = self.socket.clone();
        let kind = error.kind();
        if matches!(
            kind,
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        ) {
            ClientError::NotRunning { socket }
        } else if kind == io::ErrorKind::PermissionDenied {
            ClientError::NotPermitted { socket }
        } else {
            self.unexpected(error)
        }
    }

    fn unexpected(&self, problem: &dyn std::fmt::Display) -> ClientError {
        ClientError::Unexpected {
            socket: self.socket.clone(),
            problem: problem.to_string(),
        }
    }
}

/// Ends a task with the call that needs it.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Percent-encoding of everything but unreserved characters.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                let digit = char::from_digit(u32::from(digit), 16).unwrap_or('0');
                out.push(digit.to_ascii_uppercase());
            }
        }
    }
    out
}
