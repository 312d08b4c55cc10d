//! An ingress that ends TLS in front of a hub: identity is proven through it all the same.

use std::net::SocketAddr;
use std::sync::Arc;

use nowconnect_mesh::MeshSettings;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::authority::{Authority, Files, Leaf};
use crate::hub::{Hub, settings, until};

/// Ends TLS with a certificate of its own and passes the rest on, with a header line more.
async fn ingress(
    authority: &Authority,
    to: SocketAddr,
    header: Option<String>,
) -> (SocketAddr, JoinHandle<()>) {
    use rustls::pki_types::pem::PemObject as _;
    let nobody = Leaf {
        uris: Vec::new(),
        ..Leaf::of("nobody")
    };
    let (chain, key) = authority.sign(&nobody);
    let chain = rustls::pki_types::CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = port.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = port.accept().await {
            let (acceptor, header) = (acceptor.clone(), header.clone());
            tokio::spawn(async move {
                let Ok(mut from) = acceptor.accept(stream).await else {
                    return;
                };
                let mut hub = TcpStream::connect(to).await.unwrap();
                if let Some(header) = header {
                    // Behind the request line, so that it stands among the headers.
                    let mut line = Vec::new();
                    while !line.ends_with(b"\r\n") {
                        line.push(from.read_u8().await.unwrap());
                    }
                    hub.write_all(&line).await.unwrap();
                    hub.write_all(header.as_bytes()).await.unwrap();
                }
                // Either end may go first.
                let _ = tokio::io::copy_bidirectional(&mut from, &mut hub).await;
            });
        }
    });
    (address, task)
}

async fn behind(authority: &Authority) -> Hub {
    let files = Files::signed(authority, "b");
    let settings = MeshSettings {
        credentials: Some(files.load("b")),
        trusted_ingress: vec!["127.0.0.1/32".parse().unwrap()],
        ..settings(&[])
    };
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Hub::start_at("b", port, settings, Some(files))
}

#[tokio::test]
async fn identity_is_proven_through_an_ingress_that_ends_tls() {
    let authority = Authority::new("mesh");
    let b = behind(&authority).await;
    let (address, _task) = ingress(&authority, b.address, None).await;
    let url = format!("wss://{address}/mesh");
    let a = Hub::start("a", Files::signed(&authority, "a"), &[url]).await;
    a.linked("b").await;
    b.linked("a").await;
    assert_eq!(b.view("a").unwrap().proven, Some(true));
}

#[tokio::test]
async fn a_hub_that_trusts_no_ingress_takes_nothing_through_one() {
    let authority = Authority::new("mesh");
    let mut b = behind(&authority).await;
    b.update(|settings| settings.trusted_ingress = Vec::new());
    let (address, _task) = ingress(&authority, b.address, None).await;
    let url = format!("wss://{address}/mesh");
    let a = Hub::start("a", Files::signed(&authority, "a"), &[url]).await;
    until("it is turned away", || {
        b.notes.0.lock().turned_away.contains(&"plain_text")
    })
    .await;
    assert_eq!(a.links() + b.links(), 0);
}

#[tokio::test]
async fn what_the_ingress_saw_must_be_what_the_hello_shows() {
    let authority = Authority::new("mesh");
    let b = behind(&authority).await;
    let files = Files::signed(&authority, "a");
    let leaf = {
        use rustls::pki_types::pem::PemObject as _;
        let pem = std::fs::read(files.mesh_files().cert_file).unwrap();
        rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap()
    };
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    let header = |hash: &str| Some(format!("x-forwarded-client-cert: Hash={hash}\r\n"));

    let another = hex(&[0x0a; 32]);
    let (address, _task) = ingress(&authority, b.address, header(&another)).await;
    let url = format!("wss://{address}/mesh");
    let a = Hub::start("a", files, &[url]).await;
    until("it is turned away", || {
        b.notes.0.lock().turned_away.contains(&"identity_refused")
    })
    .await;
    assert_eq!(a.links() + b.links(), 0);

    let its_own = hex(&Sha256::digest(&leaf));
    let (address, _task) = ingress(&authority, b.address, header(&its_own)).await;
    let mut a = a;
    a.update(|settings| {
        let url = format!("wss://{address}/mesh");
        settings.peers = vec![nowconnect_mesh::PeerUrl::parse(&url).unwrap()];
    });
    a.linked("b").await;
}
