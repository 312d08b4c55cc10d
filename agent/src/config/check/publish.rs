//! `publish`: what gets public names.

use serde_saphyr::Spanned;

use super::{Checker, Origin};
use crate::config::file::{PublishSection, ServiceSection, known};
use crate::config::url::FetchUrl;
use crate::config::{DEFAULT_CONTROL_URL, PublishConfig, Service, check_name, parse_target};
use crate::publish::{ControlClient, ControlPoint, Protocol, Wish};

/// Services of one file: each is an agent of its own.
const SERVICES_MAX: usize = 64;

impl Checker<'_> {
    pub(super) fn publish(&mut self, section: &PublishSection) -> Option<PublishConfig> {
        let point = self.control_point(section);
        let region = section.region.as_ref().map(|region| region.value.clone());
        let sections = section.services.as_deref().unwrap_or_default();
        if sections.is_empty() {
            self.problem(
                &Origin::File(None),
                "`publish.services` is empty; add one, such as `- {name: shop, target: \"3000\"}`"
                    .to_owned(),
            );
            return None;
        }
        let mut services: Vec<Service> = Vec::with_capacity(sections.len());
        for (index, section) in sections.iter().enumerate() {
            let origin = Origin::File(known(section.referenced));
            if index == SERVICES_MAX {
                let message = format!("`publish.services` has more than {SERVICES_MAX} services");
                self.problem(&origin, message);
            }
            let Some(service) = self.service(index, section, region.clone()) else {
                continue;
            };
            let name = service.memory_name();
            if services.iter().any(|other| other.memory_name() == name) {
                let message = format!(
                    "`publish.services[{index}]` is there twice; give each a `name` of its own"
                );
                self.problem(&origin, message);
            }
            services.push(service);
        }
        Some(PublishConfig {
            point: point?,
            services,
        })
    }

    fn control_point(&mut self, section: &PublishSection) -> Option<ControlPoint> {
        let given = section.control_url.is_some() || self.env.var("NC_CONTROL_URL").is_some();
        let url = self.optional(
            "publish.control_url",
            Some("NC_CONTROL_URL"),
            section.control_url.as_ref(),
            control_url,
        );
        let url = match url {
            None if !given => DEFAULT_CONTROL_URL.to_owned(),
            url => url?,
        };
        let id = self.optional(
            "publish.client_id",
            Some("NC_CLIENT_ID"),
            section.client_id.as_ref(),
            |text| Ok(text.to_owned()),
        );
        let secret_file = match self.env.var("NC_CLIENT_SECRET_FILE") {
            Some(path) => Some(path.into()),
            None => section
                .client_secret_file
                .as_ref()
                .map(|path| self.path(path)),
        };
        let client = match (id, secret_file) {
            (None, None) => None,
            (Some(id), Some(secret_file)) => Some(ControlClient { id, secret_file }),
            (Some(_), None) | (None, Some(_)) => {
                let message =
                    "`publish.client_id` and `publish.client_secret_file` go together".to_owned();
                self.problem(&Origin::File(None), message);
                return None;
            }
        };
        Some(ControlPoint { url, client })
    }

    fn service(
        &mut self,
        index: usize,
        section: &Spanned<ServiceSection>,
        region: Option<String>,
    ) -> Option<Service> {
        let key = |name: &str| format!("publish.services[{index}].{name}");
        let origin = Origin::File(known(section.referenced));
        let section = &section.value;
        let protocol = match &section.protocol {
            None => Protocol::Http,
            protocol => self.optional(
                &key("protocol"),
                None,
                protocol.as_ref(),
                |text| match text {
                    "http" => Ok(Protocol::Http),
                    "tcp" => Ok(Protocol::Tcp),
                    _ => Err(format!("`{text}` must be `http` or `tcp`")),
                },
            )?,
        };
        let name = match &section.name {
            None => None,
            name => Some(self.optional(&key("name"), None, name.as_ref(), |text| {
                check_name(text).map(|()| text.to_ascii_lowercase())
            })?),
        };
        if section.target.is_none() {
            let message = format!("`{}` is missing; write a port or HOST:PORT", key("target"));
            self.problem(&origin, message);
        }
        let target = self.optional(&key("target"), None, section.target.as_ref(), |text| {
            parse_target(text, protocol)
        })?;
        Some(Service {
            wish: Wish {
                name,
                protocol,
                region,
            },
            target,
        })
    }
}

/// Scheme, host and port, without a slash at the end.
pub(crate) fn control_url(text: &str) -> Result<String, String> {
    let url = FetchUrl::parse(text).map_err(|error| error.to_string())?;
    if url.path_and_query != "/" {
        return Err(format!("`{text}`: write scheme, host and port only"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}
