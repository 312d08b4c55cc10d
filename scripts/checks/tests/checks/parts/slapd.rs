//! OpenLDAP, over TLS only.

use std::fmt::Write as _;
use std::path::Path;

use super::certificates::Authority;
use super::{Daemon, free_port, program, run_ok};

/// The programs that it needs.
pub(crate) const PROGRAMS: [&str; 3] = ["slapd", "slapadd", "ldapsearch"];

/// The folder tree's root.
pub(crate) const BASE: &str = "dc=corp,dc=local";

/// Its administrator, and the password.
pub(crate) const ADMIN: (&str, &str) = ("cn=admin,dc=corp,dc=local", "secret");

/// A directory server.
pub(crate) struct Slapd {
    /// Where it takes LDAPS.
    pub(crate) port: u16,
    /// The server; public so that a test can look at its log.
    pub(crate) daemon: Daemon,
}

impl Slapd {
    /// A directory with `people` entries `uid=u0000` and on, whose `description` is `marker`, and
    /// a certificate for `name` and 127.0.0.1.
    pub(crate) fn start(
        folder: &Path,
        authority: &Authority,
        name: &str,
        marker: &str,
        people: usize,
    ) -> Self {
        let own = folder.join(format!("slapd-{name}"));
        let database = own.join("db");
        std::fs::create_dir_all(&database).unwrap();
        let certificate = authority.issue(name, &[name, "127.0.0.1"]);
        let config = own.join("slapd.conf");
        let text = format!(
            "include /etc/ldap/schema/core.schema\n\
             include /etc/ldap/schema/cosine.schema\n\
             include /etc/ldap/schema/inetorgperson.schema\n\
             modulepath /usr/lib/ldap\n\
             moduleload back_mdb\n\
             pidfile {own}/slapd.pid\n\
             TLSCACertificateFile {ca}\n\
             TLSCertificateFile {cert}\n\
             TLSCertificateKeyFile {key}\n\
             database mdb\n\
             suffix \"{BASE}\"\n\
             rootdn \"{admin}\"\n\
             rootpw {password}\n\
             directory {database}\n\
             maxsize 33554432\n\
             index uid eq\n",
            own = own.display(),
            ca = authority.bundle().display(),
            cert = certificate.cert_file.display(),
            key = certificate.key_file.display(),
            admin = ADMIN.0,
            password = ADMIN.1,
            database = database.display(),
        );
        std::fs::write(&config, text).unwrap();
        let ldif = own.join("people.ldif");
        std::fs::write(&ldif, people_ldif(marker, people)).unwrap();
        run_ok(
            program("slapadd")
                .args(["-q", "-f"])
                .arg(&config)
                .arg("-l")
                .arg(&ldif),
        );

        let port = free_port();
        let mut command = program("slapd");
        command.arg("-f").arg(&config).args([
            "-h",
            &format!("ldaps://127.0.0.1:{port}"),
            "-d",
            "0",
        ]);
        let mut daemon = Daemon::start(&format!("slapd-{name}"), &mut command, folder);
        daemon.wait_for_port(port);
        Self { port, daemon }
    }
}

fn people_ldif(marker: &str, people: usize) -> String {
    let mut text = format!(
        "dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: corp\ndc: corp\n\n\
         dn: ou=people,{BASE}\nobjectClass: organizationalUnit\nou: people\n\n"
    );
    for number in 0..people {
        writeln!(
            text,
            "dn: uid=u{number:04},ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: u{number:04}\n\
             cn: Person {number}\nsn: {number}\ndescription: {marker}\n"
        )
        .unwrap();
    }
    text
}
