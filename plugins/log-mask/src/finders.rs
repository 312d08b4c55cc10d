//! What a text contains. Finding too much costs a covered value, finding too little a leak; so
//! these lean to finding.

use std::net::IpAddr;

/// Shortest run of token characters that is taken for a secret.
const TOKEN_BYTES_MIN: usize = 32;

/// Some part of the text is an e-mail address.
pub fn has_email(text: &str) -> bool {
    text.match_indices('@').any(|(at, _)| {
        let local = text[..at].chars().next_back();
        let domain: &str = text[at + 1..]
            .split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '.'))
            .next()
            .unwrap_or_default();
        let labels: Vec<&str> = domain.trim_end_matches('.').split('.').collect();
        local.is_some_and(|c| c.is_alphanumeric() || "._%+-\"".contains(c))
            && labels.len() >= 2
            && labels.iter().all(|label| !label.is_empty())
    })
}

/// Some part of the text is a bearer token, a JWT, or a long run of random-looking characters.
pub fn has_token(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    if lower.contains("bearer ") || lower.contains("basic ") {
        return true;
    }
    words(text, is_token_char).any(|word| is_jwt(word) || is_random(word))
}

/// Some part of the text is an IP address, with or without a port.
pub fn has_ip(text: &str) -> bool {
    words(text, |c| c.is_ascii_hexdigit() || c == '.' || c == ':').any(is_ip)
}

fn is_ip(word: &str) -> bool {
    let word = word.trim_matches(|c| c == '.');
    let parses = |text: &str| text.parse::<IpAddr>().is_ok();
    parses(word)
        || parses(word.trim_end_matches(':'))
        || word
            .rsplit_once(':')
            .is_some_and(|(ip, port)| parses(ip) && port.parse::<u16>().is_ok())
}

/// Three parts joined by dots, of which the first begins like a JSON object in base64.
fn is_jwt(word: &str) -> bool {
    word.starts_with("eyJ") && word.matches('.').count() >= 2
}

/// Long, and with digits and letters mixed: words and paths are not, keys and hashes are. Ids
/// of the hub's own (`origin.boot.number`, W3C trace ids) are shorter or in named fields.
fn is_random(word: &str) -> bool {
    let parts = word.split(['.', '/', '-', '_']);
    parts
        .filter(|part| part.len() >= TOKEN_BYTES_MIN)
        .any(|part| {
            let digits = part.bytes().filter(u8::is_ascii_digit).count();
            let letters = part.bytes().filter(u8::is_ascii_alphabetic).count();
            digits * 16 >= part.len() && letters * 16 >= part.len()
        })
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_./+=~".contains(c)
}

fn words(text: &str, belongs: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    text.split(move |c| !belongs(c))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{has_email, has_ip, has_token};

    #[test]
    fn emails_are_found() {
        for text in [
            "ann@example.com",
            "login of <ann.lee+x@mail.example.co.uk> failed",
            "a@b.c",
            "müller@exämple.de.",
        ] {
            assert!(has_email(text), "{text}");
        }
        for text in ["ann", "@example", "a @ b.c", "user@host", "x@.com", ""] {
            assert!(!has_email(text), "{text}");
        }
    }

    #[test]
    fn tokens_are_found() {
        for text in [
            "Authorization: Bearer abc",
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln",
            "key=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "AKIA4f9Gd0s8Qw2Er5Ty7Ui1Op3As6Df8Gh0Jk",
        ] {
            assert!(has_token(text), "{text}");
        }
        for text in [
            "connection open",
            "/usr/share/doc/some-quite-long-package-name/README",
            "hub-1.1712345678.42",
            "bearing",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(!has_token(text), "{text}");
        }
    }

    #[test]
    fn addresses_are_found() {
        for text in [
            "192.0.2.1",
            "from 192.0.2.1:4711.",
            "[2001:db8::1]:443",
            "peer=2001:db8::1,",
            "::ffff:192.0.2.1",
        ] {
            assert!(has_ip(text), "{text}");
        }
        for text in [
            "1.2.3",
            "12:30:45",
            "v1.2.3.4.5",
            "1.95.0",
            "a.b.c.d",
            "dead:beef",
        ] {
            assert!(!has_ip(text), "{text}");
        }
    }
}
