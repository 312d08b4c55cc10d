#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const TOKEN: &str = r#"{"access_token":"t0ken","token_type":"Bearer","expires_in":600}"#;

#[tokio::test]
async fn a_token_is_found_by_discovery_with_basic_login() {
    let issuer = Issuer::start(&[]).await;
    let mut client = issuer.client(OidcEndpoint::Issuer(issuer.url()));
    let token = client.fetch(soon()).await.unwrap();
    assert_eq!(token.secret.expose(), "t0ken");
    assert!(token.expires_at.unwrap() > SystemTime::now() + Duration::from_secs(500));

    let requests = issuer.requests();
    assert!(requests[0].starts_with("GET /.well-known/openid-configuration HTTP/1.1\r\n"));
    assert!(requests[1].starts_with("POST /token HTTP/1.1\r\n"));
    // `premise 1:s/cret`, each part form-encoded first.
    let login = STANDARD.encode("premise+1:s%2Fcret");
    assert!(
        requests[1].contains(&format!("authorization: Basic {login}\r\n")),
        "{}",
        requests[1]
    );
    assert!(
        requests[1]
            .ends_with("\r\n\r\ngrant_type=client_credentials&audience=nowconnect&scope=a+b"),
        "{}",
        requests[1]
    );
}

#[tokio::test]
async fn a_fresh_token_is_used_again_until_it_is_forgotten() {
    let issuer = Issuer::start(&[]).await;
    let mut client = issuer.client(OidcEndpoint::TokenUrl(format!("{}/token", issuer.url())));
    client.fetch(soon()).await.unwrap();
    client.fetch(soon()).await.unwrap();
    assert_eq!(issuer.requests().len(), 1);
    client.forget();
    client.fetch(soon()).await.unwrap();
    assert_eq!(issuer.requests().len(), 2);
}

#[tokio::test]
async fn the_secret_goes_into_the_body_where_only_that_is_taken() {
    let issuer = Issuer::start(&[(
        "/.well-known/openid-configuration",
        r#"200 {"issuer":"ISSUER","token_endpoint":"ISSUER/token","token_endpoint_auth_methods_supported":["client_secret_post"]}"#,
    )])
    .await;
    let mut client = issuer.client(OidcEndpoint::Issuer(issuer.url()));
    client.fetch(soon()).await.unwrap();
    let request = &issuer.requests()[1];
    assert!(!request.contains("authorization:"), "{request}");
    assert!(
        request.ends_with("&client_id=premise+1&client_secret=s%2Fcret"),
        "{request}"
    );
}

#[tokio::test]
async fn an_issuer_that_calls_itself_otherwise_is_refused() {
    let issuer = Issuer::start(&[(
        "/.well-known/openid-configuration",
        r#"200 {"issuer":"https://evil.example.com","token_endpoint":"ISSUER/token"}"#,
    )])
    .await;
    let mut client = issuer.client(OidcEndpoint::Issuer(issuer.url()));
    let error = client.fetch(soon()).await.unwrap_err().to_string();
    assert!(
        error.contains("calls itself `https://evil.example.com`"),
        "{error}"
    );
    assert_eq!(issuer.requests().len(), 1);
}

#[tokio::test]
async fn refusals_redirects_and_floods_are_told() {
    let huge = format!("200 {}", "x".repeat(300 * 1024));
    for (answer, expected) in [
        (
            r#"401 {"error":"invalid_client","error_description":"no such\nclient"}"#,
            "answered 401 `invalid_client`: no suchclient",
        ),
        ("302 ", "answered a redirect (302)"),
        ("500 oops", "answered 500 without the JSON of a token"),
        (
            r#"200 {"access_token":"a","token_type":"DPoP"}"#,
            "not of type `Bearer`",
        ),
        (
            r#"200 {"token_type":"bearer"}"#,
            "answered no `access_token`",
        ),
        (huge.as_str(), "length limit exceeded"),
    ] {
        let issuer = Issuer::start(&[("/token", answer)]).await;
        let mut client = issuer.client(OidcEndpoint::TokenUrl(format!("{}/token", issuer.url())));
        let error = client.fetch(soon()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected} is not in {error}");
        assert!(!error.contains("s/cret"));
    }
}

#[tokio::test]
async fn a_silent_issuer_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = Issuer::start(&[]).await;
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let mut client = issuer.client(OidcEndpoint::TokenUrl(url));
    let deadline = Instant::now() + Duration::from_millis(50);
    let error = client.fetch(deadline).await.unwrap_err().to_string();
    assert!(error.contains("no answer in time"), "{error}");
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A small HTTP server that records what it is asked.
struct Issuer {
    address: std::net::SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
}

impl Issuer {
    /// `answers` are pairs of a path and `status body`; `ISSUER` in a body becomes the address.
    async fn start(answers: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut table: Vec<(String, String)> = answers
            .iter()
            .map(|(path, answer)| ((*path).to_owned(), (*answer).to_owned()))
            .collect();
        table.push((
            "/.well-known/openid-configuration".to_owned(),
            r#"200 {"issuer":"ISSUER","token_endpoint":"ISSUER/token"}"#.to_owned(),
        ));
        table.push(("/token".to_owned(), format!("200 {TOKEN}")));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                let path = request.split(' ').nth(1).unwrap().to_owned();
                record.lock().unwrap().push(request);
                let answer = table.iter().find(|(known, _)| *known == path).unwrap();
                let (status, body) = answer.1.split_once(' ').unwrap();
                let body = body.replace("ISSUER", &format!("http://{address}"));
                let response = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                // A client that has seen enough may close first.
                let _ = stream.write_all(response.as_bytes()).await;
            }
        });
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "s/cret\n").unwrap();
        Self {
            address,
            requests,
            folder,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn client(&self, endpoint: OidcEndpoint) -> OidcClient {
        let auth = OidcAuth {
            endpoint,
            client_id: "premise 1".to_owned(),
            client_secret_file: self.folder.path().join("secret"),
            audience: Some("nowconnect".to_owned()),
            resource: None,
            scope: Some("a b".to_owned()),
        };
        OidcClient::new(auth, Outbound::default())
    }
}

async fn read_request(stream: &mut tokio::net::TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).await.unwrap();
        request.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let wanted = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse::<usize>().unwrap());
        if body.len() >= wanted || length == 0 {
            return text;
        }
    }
}
