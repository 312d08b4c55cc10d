//! Paths as routes, policies and origins see them: all three the same one.
//!
//! A path that policies read in one way and an origin in another is a way around the policies.
//! So a request's path is brought into one form before anything looks at it, and it is that form
//! that is sent on:
//!
//! - what need not be percent-encoded is decoded (`%61` is `a`), other encodings have capital
//!   digits, and nothing is decoded twice;
//! - `.` and `..` are resolved, however they were written, and several slashes are one;
//! - what origins are known to read differently is refused: `%5C` and `\`, `%00` and other
//!   control characters, `..` above the root, `..;` and `.;`, bytes outside ASCII, and a `%` that
//!   begins nothing;
//! - `%2F` is kept as it is, never taken for a slash, and only passes where the route says so;
//! - so is `;`, encoded or not: some origins take what is behind it away before they look
//!   (`/admin;x` is `/admin`), others do not.
//!
//! The query is not touched: it takes no part in routes and policies.

/// A path in its one form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NormalPath {
    /// Begins with a slash.
    pub(crate) text: String,
    /// Whether there is a `%2F` in it.
    pub(crate) encoded_slash: bool,
    /// Whether there is a `;` or a `%3B` in it.
    pub(crate) parameters: bool,
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPath {
    /// It has no slash at its start, as in `OPTIONS *`.
    #[error("a path begins with `/`")]
    NotAbsolute,
    /// A `%` without two hexadecimal digits.
    #[error("a `%` in the path begins no encoded byte")]
    Encoding,
    /// A byte, or an encoded one, that origins read differently.
    #[error(
        "the path has a byte that services read differently: a control character, a backslash or one outside ASCII"
    )]
    Ambiguous,
    /// It leads above the root, or tries to in a form that some origins follow.
    #[error("the path leads above the root, or has a parameter behind dots")]
    AboveRoot,
}

/// Brings `raw`, a path without a query, into its one form.
pub(crate) fn normal_path(raw: &str) -> Result<NormalPath, BadPath> {
    if !raw.starts_with('/') {
        return Err(BadPath::NotAbsolute);
    }
    let mut decoded = String::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (Some(high), Some(low)) = (
                    bytes.next().and_then(hex_value),
                    bytes.next().and_then(hex_value),
                ) else {
                    return Err(BadPath::Encoding);
                };
                match high << 4 | low {
                    plain if is_unreserved(plain) => decoded.push(char::from(plain)),
                    b'\\' | 0..=0x1f | 0x7f => return Err(BadPath::Ambiguous),
                    other => {
                        decoded.push('%');
                        decoded.push(hex_digit(other >> 4));
                        decoded.push(hex_digit(other & 0xf));
                    }
                }
            }
            b'\\' | b'#' | b'?' | 0..=b' ' | 0x7f.. => return Err(BadPath::Ambiguous),
            plain => decoded.push(char::from(plain)),
        }
    }
    let text = without_dots(&decoded)?;
    Ok(NormalPath {
        // Of what is sent on: what `..` took away reaches nobody.
        encoded_slash: text.contains("%2F"),
        parameters: text.contains(';') || text.contains("%3B"),
        text,
    })
}

fn without_dots(path: &str) -> Result<String, BadPath> {
    let mut kept: Vec<&str> = Vec::new();
    // Whether what was read last leaves the path at a slash.
    let mut at_slash = true;
    for segment in path.split('/').skip(1) {
        at_slash = true;
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop().ok_or(BadPath::AboveRoot)?;
            }
            _ => {
                if segment.split("%2F").any(is_dots) {
                    return Err(BadPath::AboveRoot);
                }
                kept.push(segment);
                at_slash = false;
            }
        }
    }
    let mut text = String::with_capacity(path.len());
    for segment in &kept {
        text.push('/');
        text.push_str(segment);
    }
    if at_slash {
        text.push('/');
    }
    Ok(text)
}

/// Whether some origins would resolve it, once they have taken its parameters away.
fn is_dots(part: &str) -> bool {
    let end = [";", "%3B"].iter().filter_map(|begin| part.find(begin));
    let name = end.min().map_or(part, |end| &part[..end]);
    matches!(name, "." | "..")
}

/// What RFC 3986 (2.3) says never needs encoding.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn hex_value(byte: u8) -> Option<u8> {
    let value = char::from(byte).to_digit(16)?;
    u8::try_from(value).ok()
}

fn hex_digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).map_or('0', |digit| digit.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_has_one_form() {
        for (raw, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/%61dmin", "/admin"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/a%252e%252e/b", "/a%252e%252e/b"),
            ("/...", "/..."),
            ("/a:b@c!$&'()*+,=", "/a:b@c!$&'()*+,="),
        ] {
            assert_eq!(normal_path(raw).unwrap().text, normal, "{raw}");
        }
    }

    #[test]
    fn an_encoded_slash_is_kept_and_told() {
        let path = normal_path("/a%2fb/%2Fc").unwrap();
        assert_eq!(path.text, "/a%2Fb/%2Fc");
        assert!(path.encoded_slash);
        assert!(!normal_path("/a/b").unwrap().encoded_slash);
    }

    #[test]
    fn parameters_are_kept_and_told() {
        for (raw, normal) in [
            ("/a;v=1/b", "/a;v=1/b"),
            ("/;/admin", "/;/admin"),
            ("/admin%3bx", "/admin%3Bx"),
        ] {
            let path = normal_path(raw).unwrap();
            assert_eq!(path.text, normal);
            assert!(path.parameters, "{raw}");
        }
        assert!(!normal_path("/a:b=c").unwrap().parameters);
    }

    #[test]
    fn what_services_read_differently_is_refused() {
        for raw in [
            "",
            "a",
            "*",
            "/..",
            "/a/../..",
            "/%2e%2e",
            "/a\\b",
            "/a%5cb",
            "/a%5C",
            "/%00",
            "/a%0d%0a",
            "/%7f",
            "/a b",
            "/a\tb",
            "/é",
            "/%",
            "/%2",
            "/%zz",
            "/%+1",
            "/a/..;/b",
            "/.;x/b",
            "/%2e%2e;/b",
            "/..%3b/b",
            "/a%2f.%3Bx",
            "/a%2f..",
            "/a%2f..%2fb",
            "/..%2f",
            "/a#b",
            "/a?b",
        ] {
            assert!(normal_path(raw).is_err(), "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn the_form_is_final_and_has_nothing_to_resolve(raw in "/([a-z.;/]|%2[eEfF]|%6[1-5]|%25){0,24}") {
            if let Ok(once) = normal_path(&raw) {
                prop_assert_eq!(&normal_path(&once.text).unwrap(), &once);
                prop_assert!(once.text.starts_with('/'));
                prop_assert!(!once.text.contains("//"));
                for segment in once.text.split('/') {
                    prop_assert!(segment != "." && segment != "..", "{}", once.text);
                }
            }
        }

        #[test]
        fn no_text_is_too_odd(raw in "\\PC{0,80}") {
            let _ = normal_path(&raw);
        }

        #[test]
        fn what_is_encoded_without_need_leads_to_the_same(segment in "[a-z]{1,8}") {
            let encoded: String = segment.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let (plain, encoded) = (format!("/{segment}"), format!("/{encoded}"));
            prop_assert_eq!(normal_path(&plain).unwrap(), normal_path(&encoded).unwrap());
        }
    }
}
