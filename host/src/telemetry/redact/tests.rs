use super::*;

/// (a line as it could be logged, what must not come out of it)
const CORPUS: &[(&str, &str)] = &[
    (
        "GET / HTTP/1.1\r\nAuthorization: Bearer s3cr3t.value\r\nHost: a",
        "s3cr3t",
    ),
    ("authorization: Basic dXNlcjpodW50ZXIy", "dXNlcjpodW50ZXIy"),
    (
        "{\"authorization\": \"Bearer s3cr3tvalue\", \"host\": \"a\"}",
        "s3cr3tvalue",
    ),
    (
        "headers={\\\"Authorization\\\":\\\"Bearer s3cr3tvalue\\\"}",
        "s3cr3tvalue",
    ),
    ("Proxy-Authorization=Basic s3cr3tvalue", "s3cr3tvalue"),
    (
        "Authorization: Digest username=\"u\", response=\"6629fae49\"",
        "6629fae49",
    ),
    ("cookie: sid=s3cr3tvalue; theme=dark", "s3cr3tvalue"),
    ("Set-Cookie: __Host-nc=s3cr3tvalue; Secure", "s3cr3tvalue"),
    ("sent bearer s3cr3tvalue to peer", "s3cr3tvalue"),
    ("BEARER   s3cr3tvalue", "s3cr3tvalue"),
    ("wss://hub/tunnel?nb_token=s3cr3tvalue&x=1", "s3cr3tvalue"),
    (
        "https://hub/cb?a=1&access_token=s3cr3tvalue#frag",
        "s3cr3tvalue",
    ),
    (
        "https://hub/?redirect=%2Fa%3Ftoken%3Ds3cr3tvalue",
        "s3cr3tvalue",
    ),
    (
        "Sec-WebSocket-Protocol: nb_token|s3cr3tvalue, nowconnect.v1",
        "s3cr3tvalue",
    ),
    ("redis://:hunter2@redis:6379/0", "hunter2"),
    ("redis://user:hun/ter2@redis:6379/0", "ter2"),
    ("https://user:p%40ss@proxy.example:3128", "p%40ss"),
    ("ldap://cn=admin:hunter2@dc1/", "hunter2"),
    ("https://ghp_s3cr3tvalue@git.example/repo", "s3cr3tvalue"),
    ("password=hunter", "hunter"),
    ("password: hunter", "hunter"),
    ("client_secret: \"hunter two\"", "hunter two"),
    ("client_secret: \"hun\\\"ter two\"", "ter two"),
    (
        "Config { client_secret: Some(\"hunter2\"), a: 1 }",
        "hunter2",
    ),
    ("'api-key': 'hunter2'", "hunter2"),
    ("X-Api-Key: hunter2", "hunter2"),
    ("resume_token=0011aabb", "0011aabb"),
    ("refresh_token : abc123DEF", "abc123DEF"),
    (
        "claims eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl rejected",
        "eyJzdWIiOiJhIn0",
    ),
    ("(eyJhbGciOiJkaXIi.QUFB.QUFB.QUFB.QUFB)", "QUFB"),
    ("cut eyJhbGciOiJFUzI1NiIsImtpZCI6", "OiJFUzI1NiIs"),
    (
        "key -----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY----- end",
        "MC4CAQAwBQYDK2Vw",
    ),
    ("-----BEGIN EC PRIVATE KEY-----\\nMHcCAQEE", "MHcCAQEE"),
    ("DPoP s3cr3t.proof.value", "s3cr3t.proof"),
    ("ü token=s3cr3tü;ü", "s3cr3t"),
];

#[test]
fn no_secret_of_the_corpus_comes_out() {
    for (line, secret) in CORPUS {
        let clean = floor(line);
        assert!(!clean.contains(secret), "`{secret}` is in `{clean}`");
        assert!(clean.contains(ERASED), "nothing was marked in `{clean}`");
    }
}

#[test]
fn a_secret_is_found_wherever_the_line_stands() {
    for (line, secret) in CORPUS {
        for (before, after) in [
            ("", "\nnext"),
            ("é:", "\ttail"),
            ("a=1 ", "\r\n"),
            ("(", "\n)"),
        ] {
            let text = format!("{before}{line}{after}");
            assert!(!floor(&text).contains(secret), "in `{text}`");
        }
    }
}

#[test]
fn the_floor_applied_twice_changes_nothing_more() {
    for (line, _) in CORPUS {
        let once = floor(line).into_owned();
        assert_eq!(floor(&once), once);
    }
}

#[test]
fn what_stands_around_a_secret_stays() {
    assert_eq!(
        floor("dial wss://u:p@hub:8765/tunnel?nb_token=x1&a=b failed"),
        "dial wss://***@hub:8765/tunnel?nb_token=***&a=b failed"
    );
    assert_eq!(
        floor("{\"token\":\"a b\",\"agent\":\"dc1\"}"),
        "{\"token\":\"***\",\"agent\":\"dc1\"}"
    );
    assert_eq!(floor("a Bearer abc123XYZ b"), "a Bearer *** b");
}

#[test]
fn ordinary_lines_are_borrowed_unchanged() {
    for line in [
        "listener started on 127.0.0.1:6361",
        "agent `dc1` offers ldaps_dc1: accepted",
        "invalid token: expired",
        "bearer authentication required",
        "https://registry.example:443/@scope/pkg",
        "http://[::1]:8000/metrics",
        "token_expires_in_ms=60000 max_tokens=4",
        "-----BEGIN CERTIFICATE-----",
        "keys: kid=abc alg=ES256",
        "",
    ] {
        assert!(
            matches!(floor(line), Cow::Borrowed(_)),
            "`{line}` became `{}`",
            floor(line)
        );
    }
}

#[test]
fn sensitive_keys_are_known_in_every_spelling() {
    for key in [
        "authorization",
        "Proxy-Authorization",
        "nb_token",
        "access.token",
        "Set-Cookie",
        "clientSecret",
        "X-API-Key",
        "payload",
        "resume_token",
    ] {
        assert!(is_sensitive_key(key), "{key}");
    }
    for key in [
        "token_type",
        "agent_id",
        "code",
        "key_id",
        "connector",
        "",
        "bytes",
    ] {
        assert!(!is_sensitive_key(key), "{key}");
    }
}

#[test]
fn text_of_any_shape_neither_panics_nor_takes_long() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let parts = [
        "token",
        "=",
        ":",
        "://",
        "@",
        "eyJ",
        ".",
        " ",
        "\\",
        "\"",
        "Bearer ",
        "-----BEGIN ",
        "PRIVATE KEY",
        "-----END ",
        "%3D",
        "|",
        "ü",
        "\u{1F600}",
        "\n",
        "a",
        "Some(",
        "'",
    ];
    for _ in 0..2_000 {
        let mut text = String::new();
        for _ in 0..24 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let pick = usize::try_from(seed % parts.len() as u64).unwrap_or(0);
            text.push_str(parts[pick]);
        }
        let _ = floor(&text);
    }
}

#[test]
fn control_characters_are_written_out() {
    let mut out = String::new();
    push_escaped(&mut out, "a\u{1b}[31m\n\u{202e}b\u{85}é");
    assert_eq!(out, "a\\u001b[31m\\n\\u202eb\\u0085é");
}

#[test]
fn a_cut_never_splits_a_character() {
    assert_eq!(truncated("aé", 2), "a");
    assert_eq!(truncated("ab", 8), "ab");
}

proptest::proptest! {
    /// Whatever a credential looks like and whatever stands around it, it does not come out.
    #[test]
    fn no_credential_comes_out_of_any_line(
        before in "[ -~\\n]{0,40}",
        secret in "[A-Za-z0-9]{3}[A-Z0-9][A-Za-z0-9._~+-]{6,40}[A-Z0-9]",
        place in 0..PLACES.len(),
        after in "[ -~]{0,40}",
    ) {
        let line = PLACES[place].replace("{}", &secret);
        let text = format!("{before}\n{line}\n{after}");
        let clean = floor(&text);
        proptest::prop_assert!(!clean.contains(&secret), "{clean}");
    }
}

/// Where credentials stand in what is logged.
const PLACES: &[&str] = &[
    "Authorization: Bearer {}",
    "authorization: {}",
    "Cookie: a={}",
    "sent Bearer {} to the peer",
    "GET /tunnel?nb_token={}&v=1",
    "{\"access_token\":\"{}\",\"expires_in\":60}",
    "{\\\"client_secret\\\": \\\"{}\\\"}",
    "Config { password: Some(\"{}\") }",
    "password={}",
    "redis://:{}@redis:6379/0",
    "https://user:{}@proxy.example:3128/",
    "refresh_token: '{}'",
    "eyJ{}.eyJ{}.{}",
    "-----BEGIN RSA PRIVATE KEY-----\\n{}\\n-----END RSA PRIVATE KEY-----",
];
