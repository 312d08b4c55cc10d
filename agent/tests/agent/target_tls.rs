//! Targets that ask who is there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nowconnect_agent::Target;
use nowconnect_agent::config::{ClientCertificateFiles, TargetTls};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::binary::{Setup, agent, diagnose, hop, place, signal};
use crate::stub_hub::StubHub;
use crate::support::{LIMIT, config, eventually, name, ready, soon, tcp};

#[tokio::test]
async fn a_target_that_asks_is_shown_the_certificate() {
    let server = MutualTarget::start().await;
    let hub = StubHub::start().await;
    let files = server.issue("agent-1");
    let target = Target {
        tls: Some(TargetTls {
            ca_bundle: Some(server.path("ca.pem")),
            server_name: Some("target.test".to_owned()),
            client_certificate: Some(files),
            ..TargetTls::default()
        }),
        ..tcp(server.address)
    };
    let _running = ready(config(&hub.url()).with_target(name("secret"), target)).await;
    assert_eq!(greeting(&hub).await, "agent-1");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let server = MutualTarget::start().await;
    let hub = StubHub::start().await;
    let setup = Setup::new(&hub, server.address);
    server.issue("agent-1");
    setup.write_targets(&hub.url(), &server.section(CLIENT));
    let mut child = agent(&setup.path, &["run"]).spawn().unwrap();
    eventually("a tunnel", || {
        hub.with(|script| script.is_up().then_some(()))
    })
    .await;
    assert_eq!(greeting(&hub).await, "agent-1");

    server.issue("agent-2");
    let give_up = std::time::Instant::now() + LIMIT;
    while greeting(&hub).await != "agent-2" {
        assert!(std::time::Instant::now() < give_up, "the old one is shown");
    }
    signal(&child, "TERM").await;
    soon("the end", child.wait()).await.unwrap();
}

#[tokio::test]
async fn diagnose_says_that_a_target_asks_for_a_certificate_or_refuses_it() {
    let server = MutualTarget::start().await;
    let hub = StubHub::start().await;
    let setup = Setup::new(&hub, server.address);
    setup.write_targets(&hub.url(), &server.section(""));
    let (report, output) = diagnose(&setup.path).await;
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    let detail = hop(&report, "target secret")["detail"].to_string();
    assert!(detail.contains("`cert_file`"), "{detail}");

    MutualTarget::start()
        .await
        .issue_into(server.folder.path(), "stranger");
    setup.write_targets(&hub.url(), &server.section(CLIENT));
    let (report, _) = diagnose(&setup.path).await;
    let found = hop(&report, "target secret");
    assert_eq!(found["status"], "failed", "{report:#}");
    assert!(
        found["notes"][0].as_str().unwrap().contains("CN=stranger"),
        "{found}"
    );

    server.issue("agent-1");
    let (report, output) = diagnose(&setup.path).await;
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert!(
        hop(&report, "target secret")["notes"][0]
            .as_str()
            .unwrap()
            .contains("CN=agent-1")
    );
}

#[tokio::test]
async fn a_pair_that_does_not_belong_together_is_refused_before_anything_is_dialled() {
    let server = MutualTarget::start().await;
    let hub = StubHub::start().await;
    let setup = Setup::new(&hub, server.address);
    server.issue("agent-1");
    let key = std::fs::read(server.path("client.key")).unwrap();
    server.issue("agent-2");
    std::fs::write(server.path("client.key"), key).unwrap();
    setup.write_targets(&hub.url(), &server.section(CLIENT));
    let output = agent(&setup.path, &["config", "check"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("`targets.secret.tls`: client certificate and key: they do not belong"),
        "{told}"
    );
}

/// The keys of a client certificate, for [`MutualTarget::section`].
const CLIENT: &str = ", cert_file: FOLDER/client.pem, key_file: FOLDER/client.key";

/// Opens a flow and reads until the target ends it.
async fn greeting(hub: &StubHub) -> String {
    let (mut client, _outcomes) = hub.open("secret").await;
    let mut text = String::new();
    // A target that refuses the certificate resets.
    let _ = soon("the greeting", client.read_to_string(&mut text)).await;
    text
}

/// A TLS server with a CA of its own, which tells each client the name in its certificate.
struct MutualTarget {
    address: SocketAddr,
    folder: tempfile::TempDir,
    ca: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl MutualTarget {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        let ca = rcgen::Issuer::new(params, key);

        let own_key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec!["target.test".to_owned()])
            .unwrap()
            .signed_by(&own_key, &ca)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&provider),
        )
        .build()
        .unwrap();
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![own.der().clone()],
                PrivatePkcs8KeyDer::from(own_key.serialize_der()).into(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(greet(listener, TlsAcceptor::from(Arc::new(server))));
        Self {
            address,
            folder,
            ca,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a certificate for `who` and its key.
    fn issue(&self, who: &str) -> ClientCertificateFiles {
        self.issue_into(self.folder.path(), who)
    }

    fn issue_into(&self, folder: &Path, who: &str) -> ClientCertificateFiles {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, who);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        let files = ClientCertificateFiles {
            cert_file: folder.join("client.pem"),
            key_file: folder.join("client.key"),
        };
        std::fs::write(&files.cert_file, certificate.pem()).unwrap();
        std::fs::write(&files.key_file, key.serialize_pem()).unwrap();
        files
    }

    /// The target's section of a config; `FOLDER` of `more` is this server's.
    fn section(&self, more: &str) -> String {
        let folder = self.folder.path().display().to_string();
        let more = more.replace("FOLDER", &folder);
        let tls = format!(", tls: {{server_name: target.test, ca_bundle: {folder}/ca.pem{more}}}");
        format!("  secret: {}\n", place(self.address, &tls))
    }
}

async fn greet(listener: TcpListener, acceptor: TlsAcceptor) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
            let (_, parsed) = x509_parser::parse_x509_certificate(&shown).unwrap();
            let name = parsed.subject().iter_common_name().next().unwrap();
            let name = name.as_str().unwrap().to_owned();
            let _ = stream.write_all(name.as_bytes()).await;
            let _ = stream.shutdown().await;
        });
    }
}
