//! Where a token may be, and what wins.

use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use crate::identity::{ExtractError, TokenSource, extract_token};

const A: &str = "aaaa.bbbb.cccc";
const B: &str = "aaaa.bbbb.dddd";

#[test]
fn each_place_is_read() {
    for (request, source) in [
        (bearer(A), TokenSource::Authorization),
        (
            field(&AUTHORIZATION, &format!("bearer  {A} ")),
            TokenSource::Authorization,
        ),
        (
            subprotocol(&format!("nb_token|{A}")),
            TokenSource::Subprotocol,
        ),
        (
            subprotocol(&format!("nowconnect.v1, nb_token.v1|{A}")),
            TokenSource::Subprotocol,
        ),
        (query(&format!("x=1&nb_token={A}&y")), TokenSource::Query),
        (
            query(&format!("nb_token={}", A.replace('.', "%2E"))),
            TokenSource::Query,
        ),
    ] {
        let found = extract(&request).unwrap();
        assert_eq!(found, (A.to_owned(), source), "{request:?}");
    }
}

/// Every combination of the three places: the same token everywhere counts by the strongest
/// place, two different ones are refused.
#[test]
fn precedence_and_ambiguity() {
    let choices = [None, Some(A), Some(B)];
    for authorization in choices {
        for protocol in choices {
            for in_query in choices {
                let mut request = Request::default();
                if let Some(token) = authorization {
                    request.headers.extend(bearer(token).headers);
                }
                if let Some(token) = protocol {
                    request
                        .headers
                        .extend(subprotocol(&format!("nb_token|{token}")).headers);
                }
                request.query = in_query.map(|token| format!("nb_token={token}"));
                let sent: Vec<(&str, TokenSource)> = [
                    authorization.map(|token| (token, TokenSource::Authorization)),
                    protocol.map(|token| (token, TokenSource::Subprotocol)),
                    in_query.map(|token| (token, TokenSource::Query)),
                ]
                .into_iter()
                .flatten()
                .collect();
                let expected = match sent.as_slice() {
                    [] => Err(ExtractError::Missing),
                    [(first, source), rest @ ..] => {
                        if rest.iter().all(|(token, _)| token == first) {
                            Ok(((*first).to_owned(), *source))
                        } else {
                            Err(ExtractError::Ambiguous)
                        }
                    }
                };
                assert_eq!(extract(&request), expected, "{sent:?}");
            }
        }
    }
}

#[test]
fn two_different_tokens_in_one_place_are_ambiguous() {
    let mut twice = HeaderMap::new();
    twice.append(AUTHORIZATION, value(&format!("Bearer {A}")));
    twice.append(AUTHORIZATION, value(&format!("Bearer {B}")));
    for request in [
        Request {
            headers: twice,
            query: None,
        },
        subprotocol(&format!("nb_token|{A}, nb_token.v1|{B}")),
        query(&format!("nb_token={A}&nb_token={B}")),
    ] {
        assert_eq!(extract(&request), Err(ExtractError::Ambiguous));
    }
}

#[test]
fn what_is_no_token_is_refused_wherever_it_is() {
    for request in [
        field(&AUTHORIZATION, "Basic dXNlcjpwYXNz"),
        field(&AUTHORIZATION, "Bearer"),
        field(&AUTHORIZATION, "Bearer a.b"),
        field(&AUTHORIZATION, "Bearer a.b.c.d"),
        field(&AUTHORIZATION, &format!("Bearer {A},{B}")),
        field(
            &AUTHORIZATION,
            &format!("Bearer {}.b.c", "a".repeat(20_000)),
        ),
        subprotocol("nb_token"),
        subprotocol("nb_token|"),
        subprotocol("nb_token.v2"),
        subprotocol("nb_token|a..c"),
        query("nb_token="),
        query("nb_token=a.b.%2"),
        query("nb_token=a.b.%zz"),
        query("nb_token=a.b.%ff"),
    ] {
        assert!(
            matches!(extract(&request), Err(ExtractError::Malformed(_))),
            "{request:?}"
        );
    }
    // A broken weaker place does not hide behind a good stronger one.
    let mut request = bearer(A);
    request.query = Some("nb_token=".to_owned());
    assert!(matches!(extract(&request), Err(ExtractError::Malformed(_))));
}

#[test]
fn other_subprotocols_and_parameters_are_not_looked_at() {
    for request in [
        subprotocol("nowconnect.v1, nb_tokens|x, nb_tokenx"),
        query("token=a.b.c&nb_token2=a.b.c&xnb_token=a.b.c"),
        Request::default(),
    ] {
        assert_eq!(extract(&request), Err(ExtractError::Missing), "{request:?}");
    }
}

#[test]
fn the_query_can_be_turned_off() {
    let headers = HeaderMap::new();
    let query = format!("nb_token={A}");
    assert_eq!(
        extract_token(&headers, Some(&query), false),
        Err(ExtractError::Missing)
    );
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(
        authorization in prop::option::of(prop::collection::vec(any::<u8>(), 0..64)),
        protocol in "[ -~]{0,64}",
        query in "\\PC{0,64}",
    ) {
        let mut headers = HeaderMap::new();
        if let Some(bytes) = authorization
            && let Ok(value) = HeaderValue::from_bytes(&bytes)
        {
            headers.append(AUTHORIZATION, value);
        }
        if let Ok(value) = HeaderValue::from_str(&protocol) {
            headers.append(SEC_WEBSOCKET_PROTOCOL, value);
        }
        if let Ok(found) = extract_token(&headers, Some(&query), true) {
            prop_assert_eq!(found.token.expose().split('.').count(), 3);
        }
    }
}

#[derive(Debug, Default)]
struct Request {
    headers: HeaderMap,
    query: Option<String>,
}

fn extract(request: &Request) -> Result<(String, TokenSource), ExtractError> {
    extract_token(&request.headers, request.query.as_deref(), true)
        .map(|found| (found.token.expose().to_owned(), found.source))
}

fn bearer(token: &str) -> Request {
    field(&AUTHORIZATION, &format!("Bearer {token}"))
}

fn subprotocol(text: &str) -> Request {
    field(&SEC_WEBSOCKET_PROTOCOL, text)
}

fn query(text: &str) -> Request {
    Request {
        query: Some(text.to_owned()),
        ..Request::default()
    }
}

fn field(name: &HeaderName, text: &str) -> Request {
    let mut headers = HeaderMap::new();
    headers.append(name, value(text));
    Request {
        headers,
        query: None,
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap()
}
