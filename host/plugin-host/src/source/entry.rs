//! How a registry lets us in: anonymously, by user and password, or by a token that it, or who
//! the operator named, hands out.

use std::net::IpAddr;
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
pub(crate) enum RegistryEntry {
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
    /// Knocks without a reference to anything that is in there; gives the registry, too.
    pub(crate) async fn knock(self) -> Result<(Target, RegistryEntry), LoadProblem> {
        let registry = self.target()?;
        let url = format!("{}/v2/", self.base());
        let answer = get(self.engine, &url, Outgoing::get(), TOKEN_BYTES_MAX).await?;
        let entry = match answer.status {
            StatusCode::UNAUTHORIZED => self.enter(&answer.headers).await?,
            _ => RegistryEntry::Anonymous,
        };
        Ok((registry, entry))
    }

    /// What the registry wants to be shown, by its answer to who showed nothing.
    pub(crate) async fn enter(self, headers: &HeaderMap) -> Result<RegistryEntry, LoadProblem> {
        // A token that credentials were given for opens as much as they do.
        if self.credentials.is_some() && !self.tls && !is_loopback(&self.target()?) {
            return Err(self.in_clear(self.registry));
        }
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
        let registry = self.target()?;
        let scope = format!("repository:{}:{}", self.repository, self.actions);
        let url = token_url(realm, service, &scope, &registry, self.token_hosts);
        let url = url.map_err(|problem| self.bad_realm(&problem))?;
        let mut outgoing = Outgoing::get();
        let basic = self.credentials.as_ref().and_then(|known| known.basic());
        if let Some(basic) = basic {
            let asked = Target::parse(&url).map_err(|_| self.refused())?;
            if !asked.tls && !is_loopback(&asked) {
                return Err(self.in_clear(&asked.authority()));
            }
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

    fn target(&self) -> Result<Target, LoadProblem> {
        Target::parse(&self.base()).map_err(|_| self.refused())
    }

    /// Credentials would be read by whoever is on the way.
    fn in_clear(&self, host: &str) -> LoadProblem {
        LoadProblem::Fetch(format!(
            "`{host}` has no TLS, and credentials are shown without TLS to this machine only; \
             write `oci://`, or read and push there anonymously"
        ))
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
            BadRealm::Query => format!(
                "the registry `{registry}` sends us for a token to a URL with a query of its own, \
                 which could ask for more than we do"
            ),
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

/// Whether what goes there stays on this machine.
fn is_loopback(target: &Target) -> bool {
    match target.host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => target.host == "localhost",
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::is_loopback;
    use crate::web::Target;

    #[test]
    fn only_this_machine_is_shown_credentials_without_tls() {
        for (url, right) in [
            ("http://127.0.0.1:5000/", true),
            ("http://[::1]:5000/", true),
            ("http://LOCALHOST:5000/", true),
            ("http://192.0.2.1/", false),
            ("http://0.0.0.0/", false),
            ("http://localhost.example/", false),
            ("http://127.0.0.1.example/", false),
        ] {
            assert_eq!(is_loopback(&Target::parse(url).unwrap()), right, "{url}");
        }
    }
}
