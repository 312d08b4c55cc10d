//! One question over HTTP, bounded in time by its caller and in size here.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use http::{HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::answer::{self, Flaw, Verdict};
use super::question::Evaluation;
use crate::config::{PdpConfig, PdpKind};
use crate::identity::fetch::{ca_bundle, innermost};

/// How long a token is used before its file is read again.
const TOKEN_AGE: Duration = Duration::from_secs(10);

/// The largest token, in bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// How long a discovery document is believed.
const DISCOVERY_AGE: Duration = Duration::from_secs(600);

/// Questions of one HELLO under way at once, at a decision point without batches.
const UNBATCHED: usize = 8;

/// Connections that wait for the next question at most.
const MAX_IDLE: usize = 32;

/// How long a connection waits for the next question.
const IDLE: Duration = Duration::from_secs(30);

const REQUEST_ID: &str = "x-request-id";

/// Why there is no answer. Holds no part of what was answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("it did not answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("it cannot be reached: {0}")]
    Unreachable(Arc<str>),
    #[error("it answered {0}")]
    Status(u16),
    #[error("it answered more than {0} bytes")]
    TooLarge(u64),
    #[error("its answer is not understood: {0}")]
    Malformed(&'static str),
    #[error("its answer to this question is not understood: {0}")]
    NoAnswer(&'static str),
    #[error("its discovery document is refused: {0}")]
    Discovery(&'static str),
    #[error("`pdp.token_file`: {0}")]
    Token(Arc<str>),
    #[error("it failed too often and is not asked for a while")]
    Paused,
}

impl Failure {
    /// Whether it may be the question that cannot be answered, while others can. What an agent
    /// has asked in its name must not keep the decision point from being asked about others.
    pub(super) fn is_of_the_question(&self) -> bool {
        const OF_THE_QUESTION: [StatusCode; 3] = [
            StatusCode::BAD_REQUEST,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNPROCESSABLE_ENTITY,
        ];
        match self {
            Self::NoAnswer(_) => true,
            Self::Status(status) => OF_THE_QUESTION.iter().any(|of| of == status),
            Self::Timeout(_)
            | Self::Unreachable(_)
            | Self::TooLarge(_)
            | Self::Malformed(_)
            | Self::Discovery(_)
            | Self::Token(_)
            | Self::Paused => false,
        }
    }
}

impl From<Flaw> for Failure {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Whole(problem) => Self::Malformed(problem),
            Flaw::One(problem) => Self::NoAnswer(problem),
        }
    }
}

/// What came of one question.
pub(super) type Said = Result<Verdict, Failure>;

/// The moment until which one call may take.
#[derive(Clone, Copy)]
struct Until {
    moment: tokio::time::Instant,
    timeout: Duration,
}

impl Until {
    fn after(timeout: Duration) -> Self {
        Self {
            moment: tokio::time::Instant::now() + timeout,
            timeout,
        }
    }

    async fn limit<T>(self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let ended = tokio::time::timeout_at(self.moment, work).await;
        ended.unwrap_or(Err(Failure::Timeout(self.timeout)))
    }
}

fn all(failure: &Failure, questions: &[Evaluation]) -> Vec<Said> {
    vec![Err(failure.clone()); questions.len()]
}

pub(super) struct Client {
    http: reqwest::Client,
    kind: PdpKind,
    /// Of one call, whatever it asks.
    timeout: Duration,
    /// As configured.
    base: Url,
    identifier: String,
    ignored: Vec<String>,
    max_bytes: u64,
    places: Semaphore,
    token: Option<Token>,
    endpoints: Mutex<Option<(Endpoints, Instant)>>,
    discovery: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Endpoints {
    evaluation: Url,
    evaluations: Option<Url>,
}

struct Token {
    file: PathBuf,
    kept: Mutex<Option<(HeaderValue, Instant)>>,
}

impl Client {
    pub(super) fn new(config: &PdpConfig, url: &Url) -> Result<Self, String> {
        let idle = usize::try_from(config.max_concurrent).unwrap_or(MAX_IDLE);
        let mut builder = reqwest::Client::builder()
            .connect_timeout(config.timeout)
            .timeout(config.timeout)
            // A decision is not to be had from somewhere else.
            .redirect(reqwest::redirect::Policy::none())
            // The token is for the decision point and not for a proxy.
            .no_proxy()
            .pool_max_idle_per_host(idle.min(MAX_IDLE))
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("nowconnect/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &config.ca_bundle {
            let (roots, _) = ca_bundle("pdp.ca_bundle", path)?;
            builder = builder.tls_certs_merge(roots);
        }
        let http = builder
            .build()
            .map_err(|error| format!("no HTTP client: {error}"))?;
        let token = config.token_file.clone().map(|file| Token {
            file,
            kept: Mutex::new(None),
        });
        if let Some(token) = &token {
            let text = std::fs::read(&token.file).map_err(|error| error.to_string());
            let read = text.and_then(|text| bearer(&text));
            let header = read
                .map_err(|problem| format!("token_file `{}`: {problem}", token.file.display()))?;
            *token.kept.lock() = Some((header, Instant::now()));
        }
        Ok(Self {
            http,
            kind: config.kind,
            timeout: config.timeout,
            base: url.clone(),
            identifier: config.identifier.trim_end_matches('/').to_owned(),
            ignored: config.ignore_context.clone(),
            max_bytes: config.max_response_bytes,
            places: Semaphore::new(usize::try_from(config.max_concurrent).unwrap_or(1)),
            token,
            endpoints: Mutex::new(None),
            discovery: config.discovery,
        })
    }

    /// What comes of these questions, for each by itself: that one of them was not answered takes
    /// nothing from what was said to another. Takes no longer than the configured timeout.
    pub(super) async fn evaluate(&self, id: &str, questions: &[Evaluation]) -> Vec<Said> {
        let until = Until::after(self.timeout);
        let prepared = until.limit(async {
            let place = self.places.acquire().await.map_err(|_| Failure::Paused)?;
            let endpoints = match self.kind {
                PdpKind::Simple => Endpoints {
                    evaluation: self.base.clone(),
                    evaluations: None,
                },
                PdpKind::Authzen => self.endpoints().await?,
            };
            Ok((place, endpoints))
        });
        let (_place, endpoints) = match prepared.await {
            Ok(prepared) => prepared,
            Err(failure) => return all(&failure, questions),
        };
        match (questions, &endpoints.evaluations) {
            ([_], _) | (_, None) => self.each(&endpoints.evaluation, id, questions, until).await,
            (_, Some(batch)) => {
                let asked = until.limit(self.post(batch, id, Evaluation::batch(questions)));
                match asked.await {
                    Ok(body) => answer::evaluations(&body, questions.len(), &self.ignored)
                        .into_iter()
                        .map(|said| said.map_err(Failure::from))
                        .collect(),
                    Err(failure) => all(&failure, questions),
                }
            }
        }
    }

    async fn each(&self, url: &Url, id: &str, questions: &[Evaluation], until: Until) -> Vec<Said> {
        let asked: Vec<_> = questions
            .iter()
            .map(|question| until.limit(self.one(url, id, question)).boxed())
            .collect();
        futures_util::stream::iter(asked)
            .buffered(UNBATCHED)
            .collect()
            .await
    }

    async fn one(&self, url: &Url, id: &str, question: &Evaluation) -> Result<Verdict, Failure> {
        let body = self.post(url, id, question.body().to_owned()).await?;
        let verdict = match self.kind {
            PdpKind::Simple => answer::simple(&body),
            PdpKind::Authzen => answer::evaluation(&body, &self.ignored),
        };
        Ok(verdict?)
    }

    async fn post(&self, url: &Url, id: &str, body: String) -> Result<Vec<u8>, Failure> {
        let mut request = self
            .http
            .post(url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(REQUEST_ID, id)
            .body(body);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token.header().await?);
        }
        let answer = request.send().await.map_err(unreachable)?;
        if answer.status() == StatusCode::UNAUTHORIZED
            && let Some(token) = &self.token
        {
            // It may have been changed on disk; the next question reads it.
            *token.kept.lock() = None;
        }
        if answer.status() != StatusCode::OK {
            return Err(Failure::Status(answer.status().as_u16()));
        }
        if answer
            .headers()
            .get(REQUEST_ID)
            .is_some_and(|echoed| echoed.as_bytes() != id.as_bytes())
        {
            return Err(Failure::Malformed("it is about another request"));
        }
        self.read(answer).await
    }

    async fn read(&self, mut answer: reqwest::Response) -> Result<Vec<u8>, Failure> {
        if answer
            .content_length()
            .is_some_and(|bytes| bytes > self.max_bytes)
        {
            return Err(Failure::TooLarge(self.max_bytes));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            if (body.len() + chunk.len()) as u64 > self.max_bytes {
                return Err(Failure::TooLarge(self.max_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    async fn endpoints(&self) -> Result<Endpoints, Failure> {
        if !self.discovery {
            return Ok(Endpoints {
                evaluation: below(&self.base, "/access/v1/evaluation"),
                evaluations: Some(below(&self.base, "/access/v1/evaluations")),
            });
        }
        let known = self.endpoints.lock().clone();
        if let Some((endpoints, since)) = known
            && since.elapsed() < DISCOVERY_AGE
        {
            return Ok(endpoints);
        }
        let endpoints = self.discover().await?;
        *self.endpoints.lock() = Some((endpoints.clone(), Instant::now()));
        Ok(endpoints)
    }

    async fn discover(&self) -> Result<Endpoints, Failure> {
        #[derive(Deserialize)]
        struct Document {
            policy_decision_point: String,
            access_evaluation_endpoint: String,
            #[serde(default)]
            access_evaluations_endpoint: Option<String>,
        }
        // The path of the identifier comes after the well-known name.
        let mut url = self.base.clone();
        let path = self.base.path().trim_end_matches('/');
        url.set_path(&format!("/.well-known/authzen-configuration{path}"));
        let answer = self.http.get(url).send().await.map_err(unreachable)?;
        if answer.status() != StatusCode::OK {
            return Err(Failure::Status(answer.status().as_u16()));
        }
        let body = self.read(answer).await?;
        let document: Document = serde_json::from_slice(&body)
            .map_err(|_| Failure::Discovery("it is no AuthZEN configuration"))?;
        if document.policy_decision_point.trim_end_matches('/') != self.identifier {
            return Err(Failure::Discovery(
                "its `policy_decision_point` is not `pdp.url`",
            ));
        }
        let evaluations = match document.access_evaluations_endpoint {
            Some(text) => Some(self.same_origin(&text)?),
            None => None,
        };
        Ok(Endpoints {
            evaluation: self.same_origin(&document.access_evaluation_endpoint)?,
            evaluations,
        })
    }

    /// What a document names may not lead the token elsewhere.
    fn same_origin(&self, text: &str) -> Result<Url, Failure> {
        Url::parse(text)
            .ok()
            .filter(|url| url.origin() == self.base.origin())
            .ok_or(Failure::Discovery(
                "an endpoint is not at the origin of `pdp.url`",
            ))
    }
}

impl Token {
    async fn header(&self) -> Result<HeaderValue, Failure> {
        let kept = self.kept.lock().clone();
        if let Some((header, since)) = &kept
            && since.elapsed() < TOKEN_AGE
        {
            return Ok(header.clone());
        }
        let read = tokio::fs::read(&self.file)
            .await
            .map_err(|error| error.to_string())
            .and_then(|text| bearer(&text))
            .map_err(|problem| Failure::Token(problem.into()));
        let header = match (read, kept) {
            (Ok(header), _) => header,
            // While the file is being replaced the last one still serves.
            (Err(_), Some((header, _))) => return Ok(header),
            (Err(failure), None) => return Err(failure),
        };
        *self.kept.lock() = Some((header.clone(), Instant::now()));
        Ok(header)
    }
}

fn bearer(text: &[u8]) -> Result<HeaderValue, String> {
    let token = text.trim_ascii();
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return Err(format!("it must hold 1 to {MAX_TOKEN_BYTES} bytes"));
    }
    let mut header = HeaderValue::from_bytes(&[b"Bearer ", token].concat())
        .map_err(|_| "it holds what no header field may".to_owned())?;
    header.set_sensitive(true);
    Ok(header)
}

fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let whole = format!("{}{path}", base.path().trim_end_matches('/'));
    url.set_path(&whole);
    url
}

fn unreachable(error: reqwest::Error) -> Failure {
    Failure::Unreachable(innermost(&error.without_url()).into())
}
