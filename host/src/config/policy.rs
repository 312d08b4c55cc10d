//! Policies and plugins.

use std::path::PathBuf;
use std::time::Duration;

use nowconnect_plugins::signature::PublicKey;
use nowconnect_plugins::{Instances, RegistryAccess, VersionReq};

use super::build::{Surroundings, ms};
use super::bundle::BundleConfig;
use super::file::{
    OnSwapFile, PluginFile, PluginHookFile, PluginInstancesFile, PluginLimitsFile, PluginModeFile,
    PluginsFile, PolicyFile, RegistryFile,
};
use super::listener::ListenerName;
use super::problem::{Problems, hide_user_info};
use super::tree::Path;

/// `policy`: where the Cedar policies are and what a swap does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyConfig {
    /// The folder with `*.cedar` and, optionally, `entities.json`; `None` means the policies that
    /// are built in.
    pub dir: Option<PathBuf>,
    /// Signed bundles, instead of a folder; `None` where no key is trusted.
    pub bundle: Option<BundleConfig>,
    /// What a new generation does to running flows.
    pub on_swap: OnSwap,
    /// How often running flows are asked again; `None` is never.
    pub recheck_interval: Option<Duration>,
    /// How many flows are asked again before others get their turn.
    pub recheck_batch: u32,
    /// How many decision records are kept for `policy explain --last`.
    pub decisions_kept: u32,
    /// Bytes of distinct requests that are kept for `policy requests`.
    pub requests_kept_bytes: u64,
    /// How long hubs of a cluster may have others in force than this one.
    pub max_skew: Duration,
}

/// What a new generation does to running flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSwap {
    /// They keep the generation that let them in.
    Keep,
    /// They are asked again; a deny is logged and counted, the flow goes on.
    Recheck,
    /// They are asked again; a deny ends the flow with `policy_denied`.
    RecheckAndClose,
}

/// `plugins`: the Wasm plugins.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginsConfig {
    /// Where relative plugin files are looked for; `None` if every plugin names its whole path.
    pub dir: Option<PathBuf>,
    /// Where compiled plugins are cached, a folder only this user can read; `None` is no cache.
    pub cache_dir: Option<PathBuf>,
    /// The bound on all plugins of one hook together.
    pub pipeline_timeout: Duration,
    /// Instances at once, of all plugins of two generations.
    pub instances_max: u32,
    /// Certificates that plugins' requests trust beside those of the system.
    pub ca_bundle: Option<PathBuf>,
    /// In the order in which they are called (`order`, then name). Names are unique.
    pub list: Vec<PluginConfig>,
}

/// One plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginConfig {
    /// Its name: metric label, prefix of its signals, owner of its key-value bucket.
    pub name: String,
    /// Where the component is.
    pub source: PluginOrigin,
    /// The SHA-256 that the component must have.
    pub digest: Option<[u8; 32]>,
    /// Keys whose signatures count.
    pub trust: Vec<PublicKey>,
    /// It must be signed by one of them.
    pub require_signature: bool,
    /// Its signature, where it is not found beside the component.
    pub signature: Option<String>,
    /// The name that its signer gave it; `None` where that is `name`.
    pub signed_as: Option<String>,
    /// The versions that its signer may have given it; `None` is any.
    pub version: Option<VersionReq>,
    /// How its registry is read, where it comes from one.
    pub registry: RegistryAccess,
    /// Whether its instances serve one call or several.
    pub instances: Instances,
    /// The hooks that are called; empty means all that it exports.
    pub hooks: Vec<PluginHook>,
    /// The tenants that it is called for; empty means all.
    pub tenants: Vec<String>,
    /// The capabilities that are linked, such as `log` or `kv:16MiB`.
    pub grants: Vec<String>,
    /// What it may use.
    pub limits: PluginLimits,
    /// Handed to the plugin as JSON. May hold secrets: never logged.
    pub config: serde_json::Value,
    /// The folder with files that it may read, already joined with the configuration's.
    pub data: Option<PathBuf>,
    /// Whether its answers count.
    pub mode: PluginMode,
    /// Whether its faults are skipped instead of denying.
    pub optional: bool,
    /// Lower is called earlier.
    pub order: i32,
}

/// Where a component is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginOrigin {
    /// A file, already joined with `plugins.dir`.
    File(PathBuf),
    /// A web server.
    Url(String),
    /// A registry.
    Oci(String),
}

/// A point where plugins are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PluginHook {
    /// An agent's HELLO, after policy.
    Hello,
    /// An agent's end.
    Bye,
    /// Before policy: adds signals.
    Enrich,
    /// A client's OPEN, after policy.
    Open,
    /// A flow's end.
    Close,
    /// A request on its way to the origin.
    HttpRequest,
    /// A response on its way to the client.
    HttpResponse,
    /// Records before they leave the process.
    Mask,
}

/// What one call of a plugin may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// Linear memory in bytes.
    pub memory_bytes: u64,
    /// Guest time.
    pub time: Duration,
    /// Wall-clock time, host calls included.
    pub wall: Duration,
    /// What it may return, in bytes.
    pub output_bytes: u64,
    /// Calls at once; more wait for `queue`.
    pub concurrency: u32,
    /// How long a call may wait before it is shed.
    pub queue: Duration,
    /// Table elements.
    pub table_elements: u32,
    /// Faults that quarantine it.
    pub quarantine: PluginQuarantine,
}

/// When a plugin that faults is no longer called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginQuarantine {
    /// So many faults …
    pub faults: u32,
    /// … in this time …
    pub window: Duration,
    /// … leave it uncalled for this long; then one call tries it.
    pub retry_after: Duration,
}

/// Whether a plugin's answers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginMode {
    /// They do.
    Enforce,
    /// It is called and its answers are only recorded.
    Shadow,
    /// It is loaded and checked, but not called.
    Off,
}

impl PolicyConfig {
    pub(super) fn build(
        file: &PolicyFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        let dir = around.optional_path(file.dir.as_ref());
        let here = path.key("bundle");
        Self {
            bundle: BundleConfig::build(&file.bundle, dir.as_ref(), &here, around, problems),
            dir,
            on_swap: match file.on_swap {
                OnSwapFile::Keep => OnSwap::Keep,
                OnSwapFile::Recheck => OnSwap::Recheck,
                OnSwapFile::RecheckAndClose => OnSwap::RecheckAndClose,
            },
            recheck_interval: (file.recheck_interval_ms > 0).then(|| ms(file.recheck_interval_ms)),
            recheck_batch: file.recheck_batch,
            decisions_kept: file.decisions_kept,
            requests_kept_bytes: file.requests_kept_bytes,
            max_skew: ms(file.max_skew_ms),
        }
    }
}

impl PluginsConfig {
    pub(super) fn build(
        file: &PluginsFile,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Self {
        let dir = around.optional_path(file.dir.as_ref());
        let trust = keys(&file.trust, &path.key("trust"), problems);
        check_registries(&file.registries, &path.key("registries"), problems);
        let registry_auth_file = around.optional_path(file.registry_auth_file.as_ref());
        let mut list: Vec<PluginConfig> = Vec::with_capacity(file.list.len());
        for (index, plugin) in file.list.iter().enumerate() {
            let here = path.key("list").index(index);
            let Some(mut plugin) =
                PluginConfig::build(plugin, dir.as_ref(), &here, around, problems)
            else {
                continue;
            };
            if plugin.trust.is_empty() {
                plugin.trust.clone_from(&trust);
            }
            plugin.require_signature = file.require_signature;
            check_trust(&plugin, path, &here, problems);
            plugin.registry = registry_access(&plugin.source, &file.registries);
            plugin.registry.auth_file.clone_from(&registry_auth_file);
            if list.iter().any(|other| other.name == plugin.name) {
                problems.add_with_help(
                    &here.key("name"),
                    format!("the plugin name `{}` is used twice", plugin.name),
                    "give each a name of its own; several may share one `file`",
                );
            }
            list.push(plugin);
        }
        list.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
        Self {
            dir,
            cache_dir: around.optional_path(file.cache_dir.as_ref()),
            instances_max: file.instances_max,
            pipeline_timeout: ms(file.pipeline_timeout_ms),
            ca_bundle: around.optional_path(file.ca_bundle.as_ref()),
            list,
        }
    }
}

impl PluginConfig {
    /// The component's file, where it is one.
    pub fn file(&self) -> Option<&PathBuf> {
        match &self.source {
            PluginOrigin::File(path) => Some(path),
            PluginOrigin::Url(_) | PluginOrigin::Oci(_) => None,
        }
    }

    fn build(
        file: &PluginFile,
        dir: Option<&PathBuf>,
        path: &Path,
        around: &Surroundings<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<Self> {
        if ListenerName::parse(&file.name).is_err() {
            problems.add_with_help(
                &path.key("name"),
                format!("`{}` cannot be a plugin's name", file.name),
                "use letters, digits, `.`, `_` and `-`, at most 64",
            );
            return None;
        }
        for (index, tenant) in file.tenants.iter().enumerate() {
            let parsed = nowconnect_protocol::TenantName::parse(tenant);
            let _ = super::build::name(parsed, &path.key("tenants").index(index), problems);
        }
        if !file.tenants.is_empty() && file.hooks.contains(&PluginHookFile::Mask) {
            problems.add_with_help(
                &path.key("hooks"),
                "a plugin for some tenants cannot mask log records, which are of all tenants",
                "leave `mask` out of `hooks`, or `tenants` out of the plugin",
            );
        }
        if file.limits.wall_ms < file.limits.time_ms {
            problems.add(
                &path.key("limits").key("wall_ms"),
                format!(
                    "`{path}.limits.wall_ms` is `{}`, less than `time_ms` of `{}`",
                    file.limits.wall_ms, file.limits.time_ms
                ),
            );
        }
        let in_dir = |name: &String| dir.map_or_else(|| around.path(name), |dir| dir.join(name));
        let component = file
            .file
            .clone()
            .unwrap_or_else(|| format!("{}.wasm", file.name));
        let source = match &file.source {
            None => PluginOrigin::File(in_dir(&component)),
            Some(source) => origin(file, source, path, problems)?,
        };
        Some(Self {
            name: file.name.clone(),
            source,
            trust: keys(&file.trust, &path.key("trust"), problems),
            require_signature: false,
            signature: file.signature.clone(),
            signed_as: file.signed_as.clone(),
            version: version(file.version.as_deref(), &path.key("version"), problems),
            registry: RegistryAccess::default(),
            instances: match file.instances {
                PluginInstancesFile::Fresh => Instances::Fresh,
                PluginInstancesFile::Warm => Instances::Warm {
                    max_calls: file.warm.max_calls,
                    max_idle: ms(file.warm.max_idle_ms),
                },
            },
            digest: digest(file.digest.as_deref(), &path.key("digest"), problems),
            hooks: file.hooks.iter().copied().map(PluginHook::from).collect(),
            tenants: file.tenants.clone(),
            grants: file.grants.clone(),
            limits: PluginLimits::build(&file.limits),
            config: file.config.clone(),
            data: around.optional_path(file.data.as_ref()),
            mode: match file.mode {
                PluginModeFile::Enforce => PluginMode::Enforce,
                PluginModeFile::Shadow => PluginMode::Shadow,
                PluginModeFile::Off => PluginMode::Off,
            },
            optional: file.optional,
            order: file.order,
        })
    }
}

impl PluginLimits {
    fn build(file: &PluginLimitsFile) -> Self {
        Self {
            memory_bytes: file.memory_bytes,
            time: ms(file.time_ms),
            wall: ms(file.wall_ms),
            output_bytes: file.output_bytes,
            concurrency: file.concurrency,
            queue: ms(file.queue_ms),
            table_elements: file.table_elements,
            quarantine: PluginQuarantine {
                faults: file.quarantine.faults,
                window: ms(file.quarantine.window_ms),
                retry_after: ms(file.quarantine.retry_ms),
            },
        }
    }
}

impl From<PluginHookFile> for PluginHook {
    fn from(file: PluginHookFile) -> Self {
        match file {
            PluginHookFile::Hello => Self::Hello,
            PluginHookFile::Bye => Self::Bye,
            PluginHookFile::Enrich => Self::Enrich,
            PluginHookFile::Open => Self::Open,
            PluginHookFile::Close => Self::Close,
            PluginHookFile::HttpRequest => Self::HttpRequest,
            PluginHookFile::HttpResponse => Self::HttpResponse,
            PluginHookFile::Mask => Self::Mask,
        }
    }
}

fn origin(
    file: &PluginFile,
    source: &str,
    path: &Path,
    problems: &mut Problems<'_>,
) -> Option<PluginOrigin> {
    let here = path.key("source");
    if file.file.is_some() {
        problems.add_with_help(
            &here,
            format!("`{path}` has both `file` and `source`"),
            "keep the one that counts",
        );
        return None;
    }
    if source.starts_with("oci://") || source.starts_with("oci+http://") {
        if !source.contains("@sha256:") {
            problems.add_with_help(
                &here,
                format!("`{here}` names no digest"),
                "write `oci://registry/name@sha256:…`; a tag can be moved to another component",
            );
        }
        return Some(PluginOrigin::Oci(source.to_owned()));
    }
    if !source.starts_with("https://") {
        problems.add_with_help(
            &here,
            format!("`{here}` cannot be `{}`", hide_user_info(source)),
            "write `oci://…` or `https://…`; a file of this machine is named by `file`",
        );
        return None;
    }
    if file.digest.is_none() {
        problems.add_with_help(
            &path.key("digest"),
            format!("`{path}.digest` is missing"),
            "what comes from a web server is loaded only where its digest is given",
        );
    }
    Some(PluginOrigin::Url(source.to_owned()))
}

/// Says what is missing where a signature is needed and none could count.
fn check_trust(plugin: &PluginConfig, path: &Path, here: &Path, problems: &mut Problems<'_>) {
    if !plugin.trust.is_empty() {
        return;
    }
    if plugin.require_signature {
        problems.add_with_help(
            &path.key("require_signature"),
            format!(
                "`{path}.require_signature` is on, and no key is trusted for `{}`",
                plugin.name
            ),
            "name the signer's public key in `plugins.trust`; while you develop, \
             `require_signature: false` takes unsigned plugins",
        );
    } else if plugin.version.is_some() {
        problems.add_with_help(
            &here.key("version"),
            format!("`{here}.version` is what a signature says, and no key is trusted"),
            "name the signer's public key in `plugins.trust`, or leave `version` out",
        );
    }
}

fn check_registries(files: &[RegistryFile], path: &Path, problems: &mut Problems<'_>) {
    for (index, file) in files.iter().enumerate() {
        let here = path.index(index);
        let hosts = std::iter::once(("host", &file.host))
            .chain(file.token_hosts.iter().map(|host| ("token_hosts", host)));
        for (key, host) in hosts {
            if !RegistryAccess::is_host(host) {
                problems.add_with_help(
                    &here.key(key),
                    format!("`{here}.{key}` cannot be `{}`", hide_user_info(host)),
                    "write a host such as `auth.example`, with `:port` where it has another",
                );
            }
        }
        if files[..index].iter().any(|other| other.host == file.host) {
            problems.add_with_help(
                &here.key("host"),
                format!("the registry `{}` is there twice", file.host),
                "write all its `token_hosts` in one entry",
            );
        }
    }
}

/// What the configuration says about the registry of this source.
fn registry_access(source: &PluginOrigin, files: &[RegistryFile]) -> RegistryAccess {
    let PluginOrigin::Oci(reference) = source else {
        return RegistryAccess::default();
    };
    let registry = reference
        .split_once("://")
        .and_then(|(_, rest)| rest.split('/').next())
        .unwrap_or_default();
    let file = files
        .iter()
        .find(|file| file.host.eq_ignore_ascii_case(registry));
    RegistryAccess {
        token_hosts: file
            .map(|file| file.token_hosts.clone())
            .unwrap_or_default(),
        auth_file: None,
    }
}

/// A semantic version's requirement.
fn version(text: Option<&str>, path: &Path, problems: &mut Problems<'_>) -> Option<VersionReq> {
    match text?.parse() {
        Ok(version) => Some(version),
        Err(error) => {
            problems.add_with_help(
                path,
                format!("`{path}` cannot be `{}`: {error}", text.unwrap_or_default()),
                "write versions such as `>=1.2, <2`",
            );
            None
        }
    }
}

/// Public keys, `ed25519:` and base64.
fn keys(texts: &[String], path: &Path, problems: &mut Problems<'_>) -> Vec<PublicKey> {
    let mut keys = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match PublicKey::parse(text) {
            Ok(key) => keys.push(key),
            Err(error) => problems.add(
                &path.index(index),
                format!("`{path}` has something that is no public key: {error}"),
            ),
        }
    }
    keys
}

/// `sha256:` and 64 hex digits.
fn digest(text: Option<&str>, path: &Path, problems: &mut Problems<'_>) -> Option<[u8; 32]> {
    let text = text?;
    let parsed = text.strip_prefix("sha256:").and_then(|hex| {
        let mut bytes = [0_u8; 32];
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(bytes)
    });
    if parsed.is_none() {
        problems.add_with_help(
            path,
            format!("`{path}` cannot be `{text}`"),
            "write `sha256:` and the 64 hex digits that `sha256sum` prints",
        );
    }
    parsed
}
