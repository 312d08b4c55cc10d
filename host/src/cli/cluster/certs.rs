//! `nowconnect cluster certs`: an authority for the mesh and a certificate for each hub.
//!
//! For trying out, and for those who have no authority of their own. What it makes is what any
//! authority has to make: a leaf for client and server authentication whose only URI is
//! `nowconnect://replica/<ha.replica_id>`, with the hosts by which the others dial.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use nowconnect_mesh::replica_uri;
use nowconnect_protocol::ReplicaId;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::cli::Exit;

/// How long the authority is good.
const AUTHORITY_DAYS: u64 = 3650;

/// How far back a certificate begins: clocks of hubs differ.
const BACKDATED: Duration = Duration::from_secs(300);

/// The largest key that is read, in bytes.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// `nowconnect cluster certs`.
#[derive(Clone, Debug, Args)]
pub struct Certs {
    /// Each hub: its `ha.replica_id`, `=`, and the hosts by which others dial it
    #[arg(value_name = "HUB=HOST[,HOST]", required = true, value_parser = Named::parse)]
    hubs: Vec<Named>,
    /// The folder; an authority that is there already signs, and hubs that are there get new
    /// certificates
    #[arg(long, value_name = "FOLDER", default_value = "mesh-certs")]
    out: PathBuf,
    /// How many days the hubs' certificates are good
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=825))]
    days: u16,
}

/// A hub and its hosts.
#[derive(Clone, Debug)]
struct Named {
    hub: ReplicaId,
    hosts: Vec<String>,
}

impl Named {
    fn parse(text: &str) -> Result<Self, String> {
        let (hub, hosts) = text
            .split_once('=')
            .ok_or("write it as HUB=HOST, such as `hub-a=hub-a.example.org`")?;
        let hosts: Vec<String> = hosts.split(',').map(str::to_owned).collect();
        if hosts.iter().any(String::is_empty) {
            return Err(format!("`{text}`: a host is missing"));
        }
        if let Some(wild) = hosts.iter().find(|host| host.contains('*')) {
            return Err(format!("`{wild}`: name each host in full"));
        }
        Ok(Self {
            hub: ReplicaId::parse(hub).map_err(|error| error.to_string())?,
            hosts,
        })
    }
}

/// Why nothing, or not all, was made.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("`{path}`: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("`{path}` is no key of an authority that this command made: {error}")]
    Key { path: PathBuf, error: rcgen::Error },
    #[error("`{what}` cannot stand in a certificate: {error}")]
    Content { what: String, error: rcgen::Error },
}

impl Certs {
    /// Runs it.
    pub fn run(self) -> Exit {
        match self.make() {
            Ok(lines) => {
                // Nobody reads a closed terminal; the files are there.
                let _ = io::stdout().lock().write_all(lines.as_bytes());
                Exit::Success
            }
            Err(trouble) => {
                // As above; the exit code tells.
                let _ = writeln!(io::stderr().lock(), "{trouble}");
                Exit::Failure
            }
        }
    }

    fn make(&self) -> Result<String, Trouble> {
        fs::create_dir_all(&self.out).map_err(|error| file(&self.out, error))?;
        let authority = self.authority()?;
        let mut lines = format!(
            "ha.mesh.tls.ca_bundle  {}\n",
            self.path("ca", "pem").display()
        );
        for named in &self.hubs {
            let (certificate, key) = sign(&authority, named, self.days)?;
            let (pem, secret) = (
                self.path(named.hub.as_str(), "pem"),
                self.path(named.hub.as_str(), "key"),
            );
            write(&secret, &key, 0o600)?;
            write(&pem, &certificate, 0o644)?;
            lines.push_str(&format!(
                "{}  cert_file {}  key_file {}\n",
                named.hub,
                pem.display(),
                secret.display()
            ));
        }
        Ok(lines)
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        self.out.join(format!("{name}.{kind}"))
    }

    /// The authority in the folder, or a new one.
    fn authority(&self) -> Result<Issuer<'static, KeyPair>, Trouble> {
        let (pem, secret) = (self.path("ca", "pem"), self.path("ca", "key"));
        let params = authority_params()?;
        match read(&secret) {
            Ok(text) => {
                let key = KeyPair::from_pem(&text).map_err(|error| Trouble::Key {
                    path: secret,
                    error,
                })?;
                // Its certificate is left as it is: hubs have copies of it.
                Ok(Issuer::new(params, key))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let content = |error| Trouble::Content {
                    what: "the authority".to_owned(),
                    error,
                };
                let key = KeyPair::generate().map_err(content)?;
                let certificate = params.self_signed(&key).map_err(content)?;
                write(&secret, &key.serialize_pem(), 0o600)?;
                write(&pem, &certificate.pem(), 0o644)?;
                Ok(Issuer::new(params, key))
            }
            Err(error) => Err(file(&secret, error)),
        }
    }
}

/// The same each time: a leaf names its issuer by these.
fn authority_params() -> Result<CertificateParams, Trouble> {
    let mut params = params(&[], AUTHORITY_DAYS)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "NowConnect mesh");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn sign(
    authority: &Issuer<'static, KeyPair>,
    named: &Named,
    days: u16,
) -> Result<(String, String), Trouble> {
    let content = |error| Trouble::Content {
        what: named.hub.to_string(),
        error,
    };
    let mut params = params(&named.hosts, u64::from(days))?;
    params
        .distinguished_name
        .push(DnType::CommonName, named.hub.as_str());
    let uri = Ia5String::try_from(replica_uri(&named.hub)).map_err(content)?;
    params.subject_alt_names.push(SanType::URI(uri));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(content)?;
    let leaf = params.signed_by(&key, authority).map_err(content)?;
    Ok((leaf.pem(), key.serialize_pem()))
}

fn params(hosts: &[String], days: u64) -> Result<CertificateParams, Trouble> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for host in hosts {
        let name = match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => {
                let name = Ia5String::try_from(host.as_str());
                SanType::DnsName(name.map_err(|error| Trouble::Content {
                    what: host.clone(),
                    error,
                })?)
            }
        };
        params.subject_alt_names.push(name);
    }
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + Duration::from_secs(days * 86_400)).into();
    Ok(params)
}

fn file(path: &Path, error: io::Error) -> Trouble {
    Trouble::File {
        path: path.to_path_buf(),
        error,
    }
}

fn read(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path)?
        .take(KEY_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Whole, in place of what is there: a hub that watches the file must not see half of it.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Trouble> {
    let unfinished = path.with_extension("unfinished");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&unfinished, path));
    written.map_err(|error| file(path, error))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::os::unix::fs::PermissionsExt as _;

    use nowconnect_mesh::{Credentials, MeshFiles};

    use super::*;

    fn made(folder: &Path, hubs: &[&str]) -> Result<String, Trouble> {
        let certs = Certs {
            hubs: hubs.iter().map(|hub| Named::parse(hub).unwrap()).collect(),
            out: folder.to_path_buf(),
            days: 30,
        };
        certs.make()
    }

    fn load(folder: &Path, hub: &str) -> Credentials {
        let files = MeshFiles {
            ca_bundle: folder.join("ca.pem"),
            cert_file: folder.join(format!("{hub}.pem")),
            key_file: folder.join(format!("{hub}.key")),
        };
        Credentials::load(&files, &ReplicaId::parse(hub).unwrap()).unwrap()
    }

    #[test]
    fn hubs_take_what_is_made_and_keys_are_their_owners() {
        let folder = tempfile::tempdir().unwrap();
        let lines = made(
            folder.path(),
            &["hub-a=localhost,127.0.0.1", "hub-b=b.test"],
        )
        .unwrap();
        assert!(lines.contains("hub-b.key"), "{lines}");
        for hub in ["hub-a", "hub-b"] {
            load(folder.path(), hub);
        }
        for key in ["ca.key", "hub-a.key", "hub-b.key"] {
            let mode = fs::metadata(folder.path().join(key)).unwrap().permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{key}");
        }
    }

    #[test]
    fn a_second_run_adds_a_hub_and_renews_one_under_the_same_authority() {
        let folder = tempfile::tempdir().unwrap();
        made(folder.path(), &["hub-a=localhost"]).unwrap();
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
        let (authority, first) = (read("ca.pem"), read("hub-a.pem"));
        made(folder.path(), &["hub-a=localhost", "hub-c=c.test"]).unwrap();
        assert_eq!(read("ca.pem"), authority);
        assert_ne!(read("hub-a.pem"), first);
        load(folder.path(), "hub-c");
    }

    #[test]
    fn what_names_no_hub_or_host_is_refused() {
        for text in [
            "hub-a",
            "=host",
            "hub-a=",
            "hub-a=x,,y",
            "hub a=x",
            "a=*.test",
        ] {
            assert!(Named::parse(text).is_err(), "{text}");
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.key"), "no key").unwrap();
        let trouble = made(folder.path(), &["hub-a=localhost"]).unwrap_err();
        assert!(trouble.to_string().contains("ca.key"), "{trouble}");
        assert!(!folder.path().join("hub-a.pem").exists());
    }
}
