//! How a registry lets us in: anonymously, by user and password, or by a token that it, or who
//! the operator named, hands out.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use super::challenge::{BadRealm, Challenge, token_url};
use super::credentials::RegistryCredentials;
use super::{get, good};
use crate::engine::EngineInner;
use crate::error::LoadProblem;
use crate::web::{Outgoing, Target};

/// Bytes of an answer with a token.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// What to show a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum RegistryEntry {
    /// Nothing.
    Anonymous,
    /// The user and the password themselves.
    Password(RegistryCredentials),
    /// A token of its own.
    Token(String),
}

impl std::fmt::Debug for RegistryEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password(_) => "Password",
            Self::Token(_) => "Token",
        })
    }
}

impl RegistryEntry {
    /// As an `authorization` field.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::Anonymous => None,
            Self::Password(credentials) => credentials.basic(),
            Self::Token(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
                value.set_sensitive(true);
                Some(value)
            }
        }
    }
}

/// Who is to be told what to write where a registry does not let us in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WayOut {
    Configuration,
    CommandLine,
}

/// A repository of a registry that we want into.
pub(crate) struct Door<'a> {
    pub(crate) engine: &'a Arc<EngineInner>,
    /// The registry, as it is named in references, and whether it has TLS.
    pub(crate) registry: &'a str,
    pub(crate) tls: bool,
    pub(crate) repository: &'a str,
    /// What is to be done there, `pull` or `pull,push`.
    pub(crate) actions: &'static str,
    pub(crate) token_hosts: &'a [String],
    pub(crate) credentials: Option<RegistryCredentials>,
    pub(crate) way_out: WayOut,
}

impl Door<'_> {
    /// Knocks without a reference to anything that is in there.
    pub(crate) async fn knock(self) -> Result<RegistryEntry, LoadProblem> {
        let url = format!("{}/v2/", self.base());
        let answer = get(self.engine, &url, Outgoing::get(), TOKEN_BYTES_MAX).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            return self.enter(&answer.headers).await;
        }
        Ok(RegistryEntry::Anonymous)
    }

    /// What the registry wants to be shown, by its answer to who showed nothing.
    pub(crate) async fn enter(self, headers: &HeaderMap) -> Result<RegistryEntry, LoadProblem> {
        match Challenge::of(headers) {
            Some(Challenge::Token { realm, service }) => {
                self.fetch_token(&realm, service.as_deref()).await
            }
            Some(Challenge::Password) => match self.credentials {
                Some(credentials) => Ok(RegistryEntry::Password(credentials)),
                None => Err(self.refused()),
            },
            None => Err(self.refused()),
        }
    }

    async fn fetch_token(
        &self,
        realm: &str,
        service: Option<&str>,
    ) -> Result<RegistryEntry, LoadProblem> {
        let registry = Target::parse(&self.base()).map_err(|_| self.refused())?;
        let scope = format!("repository:{}:{}", self.repository, self.actions);
        let url = token_url(realm, service, &scope, &registry, self.token_hosts);
        let url = url.map_err(|problem| self.bad_realm(&problem))?;
        let mut outgoing = Outgoing::get();
        let basic = self.credentials.as_ref().and_then(|known| known.basic());
        if let Some(basic) = basic {
            outgoing = outgoing.with(AUTHORIZATION, basic);
        }
        let answer = get(self.engine, &url, outgoing, TOKEN_BYTES_MAX).await?;
        if answer.status == StatusCode::UNAUTHORIZED || answer.status == StatusCode::FORBIDDEN {
            return Err(self.refused());
        }
        let answer = good(&url, answer)?;
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let answer: Answer = serde_json::from_slice(&answer).map_err(|_| self.refused())?;
        let token = answer.token.or(answer.access_token);
        let entry = token.map(RegistryEntry::Token);
        // One that cannot be sent is none.
        entry
            .filter(|entry| entry.header().is_some())
            .ok_or_else(|| self.refused())
    }

    fn base(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.registry)
    }

    fn refused(&self) -> LoadProblem {
        let registry = self.registry;
        let knows_us = self.credentials.is_some();
        LoadProblem::Fetch(match (self.way_out, knows_us) {
            (WayOut::Configuration, true) => format!(
                "the registry `{registry}` does not let us read it; look at what \
                 `plugins.registry_auth_file` has for it"
            ),
            (WayOut::Configuration, false) => format!(
                "the registry `{registry}` lets nobody read it anonymously; name a file with \
                 credentials for it by `plugins.registry_auth_file`"
            ),
            (WayOut::CommandLine, true) => {
                format!("the registry `{registry}` does not take these credentials")
            }
            (WayOut::CommandLine, false) => format!(
                "the registry `{registry}` lets nobody in anonymously; give credentials by \
                 `--auth-file`, or by `--user` and `--password-file`"
            ),
        })
    }

    fn bad_realm(&self, problem: &BadRealm) -> LoadProblem {
        let registry = self.registry;
        LoadProblem::Fetch(match problem {
            BadRealm::NoUrl => {
                format!("the registry `{registry}` does not say where it hands out tokens")
            }
            BadRealm::NoTls => {
                format!("the registry `{registry}` hands out tokens without TLS only")
            }
            BadRealm::Elsewhere(host) => {
                let way_out = match self.way_out {
                    WayOut::Configuration => format!(
                        "write `registries: [{{host: \"{registry}\", token_hosts: \
                         [\"{host}\"]}}]` in `plugins`"
                    ),
                    WayOut::CommandLine => format!("add `--auth-host {host}`"),
                };
                format!(
                    "the registry `{registry}` sends us to `{host}` for a token, and nobody is \
                     believed about another host; if that one is right, {way_out}"
                )
            }
        })
    }
}
