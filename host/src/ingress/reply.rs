//! What plugins and routes make of an answer.

use bytes::Bytes;
use http::header::{HOST, HeaderName, LOCATION};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use nowconnect_plugins::{Edit, Field};

use super::account::Account;
use super::body::ReplyBody;
use super::failure::Failure;
use super::headers::REQUEST_ID;
use super::host::Authority;
use crate::authorize::PluginReply;

/// Applies what plugins change; they were checked against their grants before.
///
/// # Errors
/// A name or a value that no field can have, which the plugin host does not let pass.
pub(super) fn apply(headers: &mut HeaderMap, edits: &[Edit]) -> Result<(), Failure> {
    for edit in edits {
        match edit {
            Edit::Set(field) => {
                let (name, value) = parsed(field)?;
                // One host, whatever a plugin appends.
                headers.insert(name, value);
            }
            Edit::Append(field) => {
                let (name, value) = parsed(field)?;
                if name == HOST {
                    headers.insert(name, value);
                } else {
                    headers.append(name, value);
                }
            }
            Edit::Remove(name) => {
                let name = HeaderName::try_from(name).map_err(unusable)?;
                if name != HOST {
                    headers.remove(name);
                }
            }
        }
    }
    Ok(())
}

/// The answer of a plugin itself.
///
/// # Errors
/// As [`apply`].
pub(super) fn plugins_own(
    reply: PluginReply,
    account: &Account,
) -> Result<Response<ReplyBody>, Failure> {
    let mut response = Response::new(ReplyBody::whole(Bytes::from(reply.body)));
    *response.status_mut() = StatusCode::from_u16(reply.status).map_err(unusable)?;
    for field in &reply.headers {
        let (name, value) = parsed(field)?;
        response.headers_mut().append(name, value);
    }
    put_id(response.headers_mut(), account);
    tracing::debug!(request_id = %account.id, plugin = %reply.plugin, "a plugin answers itself");
    Ok(response)
}

/// Names the request to its viewer.
pub(super) fn put_id(headers: &mut HeaderMap, account: &Account) {
    if let Ok(id) = HeaderValue::from_str(&account.id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
}

/// Turns a redirect to the origin's `own` host into one to what the viewer asked for.
pub(super) fn turn_location(
    headers: &mut HeaderMap,
    own: &HeaderValue,
    (scheme, authority): (&str, &Authority),
) {
    let Some(location) = headers.get(LOCATION) else {
        return;
    };
    let Ok(target) = Uri::try_from(location.as_bytes()) else {
        return;
    };
    let is_own = target.authority().is_some_and(|target| {
        target
            .as_str()
            .as_bytes()
            .eq_ignore_ascii_case(own.as_bytes())
    });
    if !is_own {
        return;
    }
    let path = target.path_and_query().map_or("/", |path| path.as_str());
    if let Ok(turned) = HeaderValue::from_str(&format!("{scheme}://{authority}{path}")) {
        headers.insert(LOCATION, turned);
    }
}

/// The target of a request over HTTP/2, which names the host in place of the field.
///
/// # Errors
/// The host is none, which was looked at before.
pub(super) fn absolute(headers: &mut HeaderMap, target: &PathAndQuery) -> Result<Uri, Failure> {
    let host = headers.remove(HOST);
    let host = host.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
    let mut parts = http::uri::Parts::default();
    // What the agent speaks to the service is its own affair.
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(host.try_into().map_err(unusable)?);
    parts.path_and_query = Some(target.clone());
    Uri::from_parts(parts).map_err(unusable)
}

fn parsed((name, value): &Field) -> Result<(HeaderName, HeaderValue), Failure> {
    let name = HeaderName::try_from(name).map_err(unusable)?;
    let value = HeaderValue::from_bytes(value).map_err(unusable)?;
    Ok((name, value))
}

fn unusable(error: impl ToString) -> Failure {
    Failure::plugin_failed().with_detail(error)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn only_a_redirect_to_the_origins_own_name_is_turned() {
        let turned = |location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, HeaderValue::from_str(location).unwrap());
            let own = HeaderValue::from_static("app.internal:8080");
            let shown = Authority::parse("shop.example.com").unwrap();
            turn_location(&mut headers, &own, ("https", &shown));
            headers[LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(
            turned("http://App.internal:8080/a?b=1"),
            "https://shop.example.com/a?b=1"
        );
        for other in [
            "http://app.internal/a",
            "https://elsewhere.example/a",
            "/a",
            "a",
        ] {
            assert_eq!(turned(other), other);
        }
    }

    #[test]
    fn edits_leave_a_request_with_one_host() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("a"));
        let field = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        apply(
            &mut headers,
            &[
                Edit::Append(field("host", "b")),
                Edit::Remove("host".to_owned()),
                Edit::Append(field("x-a", "1")),
                Edit::Append(field("x-a", "2")),
                Edit::Set(field("x-b", "1")),
            ],
        )
        .unwrap();
        assert_eq!(headers.get_all(HOST).iter().count(), 1);
        assert_eq!(headers[HOST], "b");
        assert_eq!(headers.get_all("x-a").iter().count(), 2);
    }
}
