//! The token's source, proxies and trust.

use std::path::PathBuf;

use serde_saphyr::Spanned;

use super::{Checker, Origin, server_name};
use crate::config::file::{AuthSection, OidcSection, ProxySection, TunnelSection, known};
use crate::config::url::FetchUrl;
use crate::config::{
    Auth, HubUrl, NoProxy, OidcAuth, OidcEndpoint, Outbound, ProxyUrl, SigningSecret,
};
use crate::secret::Secret;
use crate::signing::check_secret;

impl Checker<'_> {
    pub(super) fn auth(&mut self, section: Option<&AuthSection>) -> Option<Auth> {
        let token = self.env.var("NC_TOKEN");
        let token = token.filter(|token| !token.trim().is_empty());
        match (self.env.var("NC_TOKEN_FILE"), token) {
            (Some(path), None) => return Some(Auth::TokenFile(PathBuf::from(path))),
            (None, Some(token)) => return Some(Auth::Fixed(Secret::new(token.trim()))),
            (Some(_), Some(_)) => {
                let origin = Origin::Variable("NC_TOKEN".to_owned());
                let message = "is set beside `NC_TOKEN_FILE`; keep one of the two".to_owned();
                self.problem(&origin, message);
                return None;
            }
            (None, None) => {}
        }
        let token_file = section.and_then(|section| section.token_file.as_ref());
        let oidc = section.and_then(|section| section.oidc.as_ref());
        match (token_file, oidc) {
            (Some(path), None) => Some(Auth::TokenFile(self.path(path))),
            (None, Some(oidc)) => {
                let origin = Origin::File(known(oidc.referenced));
                self.oidc(&origin, &oidc.value).map(Auth::Oidc)
            }
            (Some(path), Some(_)) => {
                self.problem(
                    &Origin::File(known(path.referenced)),
                    "`tunnel.auth` has `token_file` and `oidc`; keep one of the two".to_owned(),
                );
                None
            }
            (None, None) => {
                self.problem(
                    &Origin::File(None),
                    "no token is configured; set `tunnel.auth.token_file` (or `NC_TOKEN_FILE`, or `NC_TOKEN`), or `tunnel.auth.oidc`"
                        .to_owned(),
                );
                None
            }
        }
    }

    /// Optional: most hubs take the token alone.
    pub(super) fn signing_secret(
        &mut self,
        section: Option<&AuthSection>,
    ) -> Option<SigningSecret> {
        let file = self.first_variable(&["NC_HMAC_SECRET_FILE"]);
        let text = self.first_variable(&["NC_HMAC_SECRET"]);
        match (file, text) {
            (Some(path), None) => Some(SigningSecret::File(PathBuf::from(path.value))),
            (None, Some(text)) => match check_secret(text.value.trim()) {
                Ok(()) => Some(SigningSecret::Fixed(Secret::new(text.value.trim()))),
                Err(message) => {
                    self.problem(&text.origin, message);
                    None
                }
            },
            (Some(_), Some(text)) => {
                let message = "is set beside `NC_HMAC_SECRET_FILE`; keep one of the two".to_owned();
                self.problem(&text.origin, message);
                None
            }
            (None, None) => {
                let path = section.and_then(|section| section.hmac_secret_file.as_ref())?;
                Some(SigningSecret::File(self.path(path)))
            }
        }
    }

    fn oidc(&mut self, origin: &Origin, section: &OidcSection) -> Option<OidcAuth> {
        let mut url = |key: &str, value: Option<&Spanned<String>>| {
            self.optional(key, None, value, |text| {
                FetchUrl::parse(text)
                    .map(|_| text.trim_end_matches('/').to_owned())
                    .map_err(|error| error.to_string())
            })
        };
        let issuer = url("tunnel.auth.oidc.issuer", section.issuer.as_ref());
        let token_url = url("tunnel.auth.oidc.token_url", section.token_url.as_ref());
        let endpoint = match (issuer, token_url) {
            (_, Some(_)) => section
                .token_url
                .as_ref()
                .map(|url| OidcEndpoint::TokenUrl(url.value.trim().to_owned())),
            (Some(_), None) => section
                .issuer
                .as_ref()
                .map(|issuer| OidcEndpoint::Issuer(issuer.value.trim().to_owned())),
            (None, None) => {
                if section.issuer.is_none() && section.token_url.is_none() {
                    self.problem(
                        origin,
                        "`tunnel.auth.oidc` needs `issuer` or `token_url`".to_owned(),
                    );
                }
                None
            }
        };
        for (name, value) in [
            ("client_id", &section.client_id),
            ("client_secret_file", &section.client_secret_file),
        ] {
            if value.is_none() {
                self.problem(origin, format!("`tunnel.auth.oidc` needs `{name}`"));
            }
        }
        Some(OidcAuth {
            endpoint: endpoint?,
            client_id: section.client_id.as_ref()?.value.clone(),
            client_secret_file: self.path(section.client_secret_file.as_ref()?),
            audience: section.audience.clone(),
            resource: section.resource.clone(),
            scope: section.scope.clone(),
        })
    }

    pub(super) fn outbound(
        &mut self,
        tunnel: &TunnelSection,
        section: &ProxySection,
        hub: Option<&HubUrl>,
    ) -> Outbound {
        let trust_env = self
            .flag("NC_TRUST_ENV")
            .or(section.trust_env)
            .unwrap_or(false);
        let from_file = self.optional(
            "proxy.https_proxy",
            None,
            section.https_proxy.as_ref(),
            parse_proxy,
        );
        let mut outbound = Outbound {
            trust_env,
            hub_proxy: from_file.clone(),
            https_proxy: from_file,
            no_proxy: section
                .no_proxy
                .as_ref()
                .map(|hosts| NoProxy::parse(&hosts.value.joined()))
                .unwrap_or_default(),
            ca_bundle: self
                .env
                .var("NC_CA_BUNDLE")
                .map(PathBuf::from)
                .or_else(|| Some(self.path(section.ca_bundle.as_ref()?))),
            server_name: self.optional(
                "tunnel.server_name",
                None,
                tunnel.server_name.as_ref(),
                server_name,
            ),
        };
        if trust_env {
            let all = self.proxy_variable(&["ALL_PROXY", "all_proxy"]);
            let https = self.proxy_variable(&["HTTPS_PROXY", "https_proxy"]);
            // `HTTP_PROXY` in capitals can be set by a request's `Proxy:` header in a CGI program,
            // so only the small form is read.
            let http = self.proxy_variable(&["http_proxy"]);
            let plain_hub = hub.is_some_and(|hub| !hub.tls);
            let for_hub = if plain_hub { http } else { https.clone() };
            outbound.hub_proxy = for_hub.or_else(|| all.clone()).or(outbound.hub_proxy);
            outbound.https_proxy = https.or(all).or(outbound.https_proxy);
            if let Some(hosts) = self.first_variable(&["NO_PROXY", "no_proxy"]) {
                outbound.no_proxy = NoProxy::parse(&hosts.value);
            }
        }
        outbound
    }

    fn proxy_variable(&mut self, names: &[&str]) -> Option<ProxyUrl> {
        let found = self.first_variable(names)?;
        match parse_proxy(&found.value) {
            Ok(proxy) => Some(proxy),
            Err(message) => {
                self.problem(&found.origin, message);
                None
            }
        }
    }
}

fn parse_proxy(text: &str) -> Result<ProxyUrl, String> {
    ProxyUrl::parse(text).map_err(|error| error.to_string())
}
