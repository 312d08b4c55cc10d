//! `plugin keygen`, `sign` and `verify`: detached signatures over a plugin's name, its version and
//! the exact bytes of its component. Key files are those of `policy keygen`: one key signs both, if its owner wants that.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use nowconnect_plugins::VersionReq;
use nowconnect_plugins::signature::{
    ComponentSignature, ComponentSignatures, PublicKey, SecretKey, SignedAs, Wanted,
};

use super::manifest::Manifest;
use super::mounting::read_component;
use super::{Done, Trouble};
use crate::cli::Exit;

/// Largest key or signature file, in bytes.
const TEXT_BYTES_MAX: u64 = 64 * 1024;

/// `nowconnect plugin keygen`.
#[derive(Clone, Debug, Args)]
pub struct Keygen {
    /// Where the secret key goes, readable by its owner only; the public one goes to `FILE.pub`
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Keygen {
    pub(super) fn run(self, out: &mut dyn Write) -> Done {
        let key = SecretKey::generate().map_err(Trouble::failure)?;
        let public = with_suffix(&self.file, "pub");
        write_new(&self.file, &key.to_text(), 0o600)?;
        write_new(&public, &format!("{}\n", key.public()), 0o644)?;
        writeln!(out, "secret key  {}", self.file.display())?;
        writeln!(out, "public key  {} in {}", key.public(), public.display())?;
        Ok(Exit::Success)
    }
}

/// `nowconnect plugin sign`.
#[derive(Clone, Debug, Args)]
pub struct Sign {
    /// The component
    file: PathBuf,
    /// The secret key's file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The plugin's name, which a hub compares with its own; without it that of `--manifest`
    #[arg(long, required_unless_present = "manifest")]
    name: Option<String>,
    /// The plugin's version, such as `1.2.3`; without it that of `--manifest`
    #[arg(long, required_unless_present = "manifest")]
    version: Option<String>,
    /// A `plugin.toml` of yours; none is looked for, since what lies beside a component may have
    /// come with it
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

impl Sign {
    pub(super) fn run(self, out: &mut dyn Write) -> Done {
        let bytes = read_component(&self.file)?;
        if !bytes.starts_with(b"\0asm") {
            let text = format!(
                "`{}` is not a component; nothing is signed",
                self.file.display()
            );
            return Err(Trouble::usage(text));
        }
        let key = read_secret(&self.key)?;
        let signed_as = self.signed_as()?;
        // A signature that nobody takes any more, or over other bytes, would make the component
        // one that nobody loads.
        let mut signatures = signatures_beside(&self.file)
            .ok()
            .flatten()
            .filter(|signatures| signatures.hold(&bytes).is_ok())
            .unwrap_or_default();
        let signature = ComponentSignature::new(&key, signed_as, &bytes);
        let signed_as = signature.signed_as().to_string();
        signatures.add(signature);
        let path = signature_path(&self.file);
        let refuse = |error: std::io::Error| {
            Trouble::failure(format!("cannot write `{}`: {error}", path.display()))
        };
        let unfinished = with_suffix(&path, "unfinished");
        std::fs::write(&unfinished, signatures.to_string()).map_err(refuse)?;
        std::fs::rename(&unfinished, &path).map_err(refuse)?;
        let public = key.public();
        writeln!(out, "signed as {signed_as} by {public}: {}", path.display())?;
        Ok(Exit::Success)
    }

    /// What is signed beside the bytes.
    fn signed_as(&self) -> Result<SignedAs, Trouble> {
        let manifest = match &self.manifest {
            Some(path) => Manifest::read(path)?,
            None => Manifest::default(),
        };
        let name = self.name.as_ref().or(manifest.name.as_ref());
        let version = self.version.as_ref().or(manifest.version.as_ref());
        let (Some(name), Some(version)) = (name, version) else {
            return Err(Trouble::usage(
                "say as what it is signed: by `--name` and `--version`, or by `name` and \
                 `version` of a `--manifest`",
            ));
        };
        SignedAs::new(name, version)
            .map_err(|error| Trouble::usage(format!("`{name} {version}`: {error}")))
    }
}

/// `nowconnect plugin verify`.
#[derive(Clone, Debug, Args)]
pub struct Verify {
    /// The component
    file: PathBuf,
    /// A trusted public key, or its file; may be given more than once
    #[arg(long = "key", value_name = "KEY|FILE", required = true)]
    keys: Vec<String>,
    /// The name that it must be signed as; without it any
    #[arg(long)]
    name: Option<String>,
    /// The versions that it may be signed as, such as `>=1.2, <2`; without it any
    #[arg(long, value_name = "REQ")]
    version: Option<VersionReq>,
}

impl Verify {
    pub(super) fn run(self, out: &mut dyn Write) -> Done {
        let bytes = read_component(&self.file)?;
        let trusted: Vec<PublicKey> = self
            .keys
            .iter()
            .map(|key| read_public(key))
            .collect::<Result<_, _>>()?;
        let signatures = signatures_beside(&self.file)?.unwrap_or_default();
        // As a hub decides it: of several that count, any that fits.
        let wanted = Wanted {
            name: self.name.as_deref(),
            version: self.version.as_ref(),
        };
        let found = signatures
            .verify(&bytes, &trusted, wanted)
            .map_err(|error| Trouble::failure(format!("`{}`: {error}", self.file.display())))?;
        let signed = found.signed_as();
        writeln!(out, "right: signed as {signed} by {}", found.key())?;
        Ok(Exit::Success)
    }
}

/// Where the signatures of a component are.
pub(super) fn signature_path(component: &Path) -> PathBuf {
    with_suffix(component, "sig")
}

/// The signatures beside a component; `None` where there is no such file.
pub(super) fn signatures_beside(component: &Path) -> Result<Option<ComponentSignatures>, Trouble> {
    let path = signature_path(component);
    if !path.exists() {
        return Ok(None);
    }
    let text = read_text(&path)?;
    ComponentSignatures::parse(&text)
        .map(Some)
        .map_err(|error| Trouble::usage(format!("`{}`: {error}", path.display())))
}

fn read_secret(path: &Path) -> Result<SecretKey, Trouble> {
    let refuse = |problem: String| Trouble::usage(format!("`{}`: {problem}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(refuse(format!(
            "others may read this secret key; run `chmod 600 {}`",
            path.display()
        )));
    }
    SecretKey::parse(&read_text(path)?).map_err(|error| refuse(error.to_string()))
}

fn read_public(given: &str) -> Result<PublicKey, Trouble> {
    let text = if given.starts_with("ed25519:") {
        given.to_owned()
    } else {
        read_text(Path::new(given))?
    };
    PublicKey::parse(&text).map_err(|error| Trouble::usage(format!("`{given}`: {error}")))
}

fn read_text(path: &Path) -> Result<String, Trouble> {
    let refuse = |problem: String| Trouble::usage(format!("`{}`: {problem}", path.display()));
    let bytes = std::fs::metadata(path)
        .map_err(|error| refuse(error.to_string()))?
        .len();
    if bytes > TEXT_BYTES_MAX {
        return Err(refuse(format!(
            "it has {bytes} bytes: not a key or signature"
        )));
    }
    std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))
}

/// Never over a file that is there: it may be the only copy of a key.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Trouble> {
    let refuse = |error: std::io::Error| {
        let problem = if error.kind() == ErrorKind::AlreadyExists {
            "it is there already; name another file".to_owned()
        } else {
            error.to_string()
        };
        Trouble::usage(format!("`{}`: {problem}", path.display()))
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(refuse)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}
