//! `nowconnect policy keygen | build | sign | verify | inspect`: bundles as they are delivered.
//!
//! None of them needs a hub. The secret key is in a file that only its owner can read; it is
//! never an argument and never printed.

mod inspect;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use nowconnect_policy::{
    BundleArchive, Folder, ManifestFacts, PublicKey, Refusal, RefusalCode, SecretKey, TrustedKeys,
    parse_time, time_text,
};

use super::Exit;
use super::material::Material;
use crate::codes::page;

pub(super) use inspect::Inspect;

/// Bytes of a key file; a key has less than a hundred.
const KEY_FILE_BYTES: u64 = 4096;

/// See [`super::Command::Keygen`].
#[derive(Clone, Debug, Args)]
pub struct Keygen {
    /// File for the secret key, which only you will be able to read; the public key goes beside
    /// it, with `.pub` at the end. Files are never replaced
    file: PathBuf,
}

/// See [`super::Command::Build`].
#[derive(Clone, Debug, Args)]
pub struct Build {
    /// Folder with the policies, `tests/` and `assertions/`
    dir: PathBuf,
    /// Where to write it: a tar, or a folder where the name does not end with `.tar`
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// A number above that of every earlier bundle
    #[arg(long, value_name = "NUMBER")]
    revision: u64,
    /// When it stops being acceptable, such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    not_after: Option<SystemTime>,
    /// The lowest version of the hub that can run it
    #[arg(long, value_name = "VERSION")]
    min_hub: Option<String>,
}

/// See [`super::Command::Sign`].
#[derive(Clone, Debug, Args)]
pub struct Sign {
    /// The bundle; the signature is put into it
    bundle: PathBuf,
    /// File with the secret key
    #[arg(short, long, value_name = "FILE")]
    key: PathBuf,
}

/// See [`super::Command::Verify`].
#[derive(Clone, Debug, Args)]
pub struct Verify {
    /// The bundle
    bundle: PathBuf,
    /// A key to trust: `ed25519:…`, or a file with it. May be given several times
    #[arg(short, long = "trust", value_name = "KEY", required = true)]
    trust: Vec<String>,
    /// How many of the keys must have signed
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    signers: usize,
}

fn time(text: &str) -> Result<SystemTime, String> {
    parse_time(text).ok_or_else(|| format!("`{text}` is no time such as 2027-01-31T00:00:00Z"))
}

impl Keygen {
    pub(super) fn run(&self, out: &mut dyn Write, problems: &mut dyn Write) -> io::Result<Exit> {
        let key = match SecretKey::generate() {
            Ok(key) => key,
            Err(error) => {
                writeln!(problems, "{error}")?;
                return Ok(Exit::Failure);
            }
        };
        let public_file = public_file_of(&self.file);
        let public = format!("{}\n", key.public());
        let written = write_new(&self.file, key.to_text().as_bytes(), true)
            .and_then(|()| write_new(&public_file, public.as_bytes(), false));
        if let Err(problem) = written {
            writeln!(problems, "{problem}")?;
            return Ok(Exit::Usage);
        }
        writeln!(out, "secret key: {}, for you alone", self.file.display())?;
        writeln!(out, "public key: {}", public_file.display())?;
        writeln!(out, "  id    {}", key.public().id())?;
        writeln!(out, "  trust {}", key.public())?;
        Ok(Exit::Success)
    }
}

impl Build {
    pub(super) fn run(&self, out: &mut dyn Write, problems: &mut dyn Write) -> io::Result<Exit> {
        let min_hub = match self.min_hub.as_deref().map(str::parse).transpose() {
            Ok(version) => version,
            Err(error) => {
                writeln!(problems, "`--min-hub` is no version such as 0.1.0: {error}")?;
                return Ok(Exit::Usage);
            }
        };
        let folder = match Folder::read(&self.dir) {
            Ok(folder) => folder,
            Err(error) => {
                writeln!(problems, "{error}")?;
                return Ok(Exit::Usage);
            }
        };
        let facts = ManifestFacts {
            revision: self.revision,
            created: SystemTime::now(),
            not_after: self.not_after,
            min_hub,
        };
        let archive = match folder.build(facts) {
            Ok(archive) => archive,
            Err(refusal) => return refused(&refusal, problems),
        };
        if let Err(problem) = write_archive(&self.out, &archive, true) {
            writeln!(problems, "{problem}")?;
            return Ok(Exit::Usage);
        }
        writeln!(
            out,
            "built: revision {}, {}, payload {}, in {}; next: `nowconnect policy sign --key FILE \
             {}`",
            archive.revision(),
            super::count(archive.manifest().files.len(), "file"),
            short(&archive.payload_digest()),
            self.out.display(),
            self.out.display(),
        )?;
        Ok(Exit::Success)
    }
}

impl Sign {
    pub(super) fn run(&self, out: &mut dyn Write, problems: &mut dyn Write) -> io::Result<Exit> {
        let key = match read_secret(&self.key) {
            Ok(key) => key,
            Err(problem) => {
                writeln!(problems, "{problem}")?;
                return Ok(Exit::Usage);
            }
        };
        let mut archive = match BundleArchive::read(&self.bundle) {
            Ok(archive) => archive,
            Err(refusal) => return refused(&refusal, problems),
        };
        archive.sign(&key);
        if let Err(problem) = write_archive(&self.bundle, &archive, false) {
            writeln!(problems, "{problem}")?;
            return Ok(Exit::Usage);
        }
        writeln!(
            out,
            "signed: revision {} by key {}",
            archive.revision(),
            key.public().id()
        )?;
        Ok(Exit::Success)
    }
}

impl Verify {
    pub(super) fn run(&self, out: &mut dyn Write, problems: &mut dyn Write) -> io::Result<Exit> {
        let mut keys = Vec::new();
        for text in &self.trust {
            match read_public(text) {
                Ok(key) => keys.push(key),
                Err(problem) => {
                    writeln!(problems, "{problem}")?;
                    return Ok(Exit::Usage);
                }
            }
        }
        let trusted = TrustedKeys::new(keys).require(self.signers);
        let verified = BundleArchive::read(&self.bundle)
            .and_then(|archive| {
                archive.verify(&trusted, SystemTime::now(), env!("CARGO_PKG_VERSION"))
            })
            .and_then(|verified| Ok((verified.compile(0)?, verified)));
        let (bundle, verified) = match verified {
            Ok(verified) => verified,
            Err(refusal) => return refused(&refusal, problems),
        };
        let signers: Vec<String> = verified.signers().iter().map(ToString::to_string).collect();
        writeln!(
            out,
            "good: revision {}, {}, signed by {}",
            verified.archive().revision(),
            super::count(bundle.policy_count(), "policy"),
            signers.join(", "),
        )?;
        if let Some(until) = verified.archive().manifest().not_after {
            writeln!(out, "until {}", time_text(until))?;
        }
        Ok(Exit::Success)
    }
}

/// Prints a refusal. What cannot be read at all is a wrong argument.
pub(super) fn refused(refusal: &Refusal, problems: &mut dyn Write) -> io::Result<Exit> {
    let hint = page::hint(refusal.code.as_str());
    writeln!(problems, "refused: {refusal}{hint}")?;
    Ok(match refusal.code {
        RefusalCode::Unreadable => Exit::Usage,
        RefusalCode::Unsigned
        | RefusalCode::BadSignature
        | RefusalCode::UntrustedKey
        | RefusalCode::Digest
        | RefusalCode::FileMissing
        | RefusalCode::FileExtra
        | RefusalCode::Expired
        | RefusalCode::FromFuture
        | RefusalCode::NewerHub
        | RefusalCode::UnknownSchema
        | RefusalCode::Rollback
        | RefusalCode::RevisionConflict
        | RefusalCode::Invalid
        | RefusalCode::TestsFailed
        | RefusalCode::TooLarge
        | RefusalCode::Malformed => Exit::Failure,
    })
}

/// The first letters of a digest, which tell two apart.
pub(super) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn public_file_of(secret: &Path) -> PathBuf {
    let mut name = secret.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

fn write_new(path: &Path, bytes: &[u8], secret: bool) -> Result<(), String> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if secret {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| format!("cannot write `{}`: {error}", path.display()))
}

/// Writes whole or not at all, so that a reader never sees half an archive.
fn write_archive(path: &Path, archive: &BundleArchive, new: bool) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot write `{}`: {error}", path.display());
    if new && path.exists() {
        return Err(format!(
            "`{}` is there already; name another place",
            path.display()
        ));
    }
    if path.is_dir() || (new && path.extension().is_none_or(|ending| ending != "tar")) {
        return archive.write_to(path).map_err(failed);
    }
    let tar = archive.to_tar().map_err(|refusal| refusal.to_string())?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    std::fs::write(&beside, tar)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(failed)
}

fn read_secret(path: &Path) -> Result<SecretKey, String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let others = std::fs::metadata(path)
            .map(|about| about.permissions().mode() & 0o077)
            .unwrap_or_default();
        if others != 0 {
            return Err(format!(
                "others can read `{}`: `chmod 600` it, and make a new key if somebody may have",
                path.display()
            ));
        }
    }
    let text = read_small(path)?;
    SecretKey::parse(&text).map_err(|error| format!("`{}`: {error}", path.display()))
}

fn read_public(text: &str) -> Result<PublicKey, String> {
    if text.starts_with("ed25519:") {
        return PublicKey::parse(text).map_err(|error| format!("`{text}`: {error}"));
    }
    let path = Path::new(text);
    PublicKey::parse(&read_small(path)?).map_err(|error| format!("`{}`: {error}", path.display()))
}

fn read_small(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(KEY_FILE_BYTES).read_to_string(&mut text))
        .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    Ok(text)
}

/// The archive at a path, for commands that also take plain folders.
pub(super) fn material_of(archive: &BundleArchive) -> Result<Material, Refusal> {
    Ok(Material {
        folder: Folder::of(archive)?,
        from_folder: false,
    })
}

#[cfg(test)]
mod tests;
