//! Finds secrets in text, in one pass over its bytes.
//!
//! The pass stops at a handful of trigger bytes and looks left (for a key or a scheme word) and
//! right (for the secret's end) from there. All looks are bounded by [`MAX_LOOK_BYTES`] or end
//! what they found at the end of the text, so the time is linear but for a small factor.

use std::ops::Range;

use super::is_sensitive_key;

/// Farthest look back for a key, bytes.
const MAX_LOOK_BYTES: usize = 128;

/// Farthest look for the `@` behind a URL's userinfo, bytes.
const MAX_USERINFO_BYTES: usize = 2048;

/// Shortest credential behind a scheme word; below it the word is prose.
const MIN_CREDENTIAL_BYTES: usize = 6;

/// Longest word that is taken for prose behind a key or scheme word.
const MAX_PROSE_BYTES: usize = 16;

/// Scheme words whose next word is a credential.
const SCHEMES: &[&str] = &["bearer", "basic", "dpop", "negotiate", "token", "apikey"];

/// The ranges of `text` to take out, in order of their start; they may overlap.
pub(super) fn secrets(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hit = match bytes[at] {
            b':' if bytes[at..].starts_with(b"://") => userinfo(bytes, at + 3),
            b'=' | b':' | b'|' => keyed(bytes, at, at + 1),
            b'%' if is_encoded_equals(bytes, at) => keyed(bytes, at, at + 3),
            b' ' => schemed(bytes, at),
            b'e' if bytes[at..].starts_with(b"eyJ") => json_web(bytes, at),
            b'-' if bytes[at..].starts_with(b"-----BEGIN ") => pem(text, at),
            _ => None,
        };
        match hit {
            Some(range) => {
                at = range.end.max(at + 1);
                found.push(range);
            }
            None => at += 1,
        }
    }
    found
}

fn is_encoded_equals(bytes: &[u8], at: usize) -> bool {
    matches!(
        bytes.get(at + 1..at + 3),
        Some([b'3', b'D' | b'd' | b'A' | b'a'])
    )
}

/// `key=value`, `key: value`, `"key":"value"`, `key|value`, with the separator at `separator`
/// and the value from `after`.
fn keyed(bytes: &[u8], separator: usize, after: usize) -> Option<Range<usize>> {
    let key = key_before(bytes, separator)?;
    if !is_sensitive_key(key) {
        return None;
    }
    let spaced = bytes.get(after).is_some_and(u8::is_ascii_whitespace);
    let mut start = skip(bytes, after, |byte| byte == b' ' || byte == b'\t');
    for wrapper in [&b"Some("[..], b"b"] {
        // The forms that `{:?}` gives an optional or a byte string.
        if let Some(rest) = bytes[start..].strip_prefix(wrapper)
            && rest.iter().find(|byte| **byte != b'\\') == Some(&b'"')
        {
            start += wrapper.len();
        }
    }
    let quote_at = skip(bytes, start, |byte| byte == b'\\');
    if let Some(quote @ (b'"' | b'\'')) = bytes.get(quote_at).copied() {
        let end = quoted_end(bytes, quote_at + 1, quote, quote_at - start);
        return not_empty(quote_at + 1..end);
    }
    if is_header(key) {
        // A header's value has spaces in it; it ends with the line.
        return not_empty(start..skip(bytes, start, |byte| byte != b'\n' && byte != b'\r'));
    }
    let end = skip(bytes, start, |byte| !ends_value(byte));
    if spaced && is_prose(&bytes[start..end]) && !key_is_password(key) {
        return None;
    }
    not_empty(start..end)
}

/// The word before `separator`, without the quotes or spaces between.
fn key_before(bytes: &[u8], separator: usize) -> Option<&str> {
    let floor = separator.saturating_sub(MAX_LOOK_BYTES);
    let mut end = separator;
    while end > floor && matches!(bytes[end - 1], b' ' | b'"' | b'\'' | b'\\' | b']') {
        end -= 1;
    }
    let mut start = end;
    while start > floor
        && (bytes[start - 1].is_ascii_alphanumeric()
            || matches!(bytes[start - 1], b'_' | b'-' | b'.'))
    {
        start -= 1;
    }
    if start == end {
        return None;
    }
    std::str::from_utf8(&bytes[start..end]).ok()
}

fn is_header(key: &str) -> bool {
    let key = key.as_bytes();
    let ends = |word: &[u8]| {
        key.len() >= word.len() && key[key.len() - word.len()..].eq_ignore_ascii_case(word)
    };
    ends(b"authorization") || ends(b"cookie")
}

/// A password may well be a plain word.
fn key_is_password(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["pass", "pwd", "secret", "pin", "otp"]
        .iter()
        .any(|part| key.contains(part))
}

/// A credential behind the scheme word that ends at the space `at`.
fn schemed(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let scheme = key_before(bytes, at)?;
    if bytes[at - 1] == b' '
        || !SCHEMES
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return None;
    }
    let start = skip(bytes, at, |byte| byte == b' ');
    let end = skip(bytes, start, |byte| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=' | b'|')
    });
    let word = &bytes[start..end];
    if word.len() < MIN_CREDENTIAL_BYTES || is_prose(word) {
        return None;
    }
    Some(start..end)
}

/// `eyJ….….…`: a JSON object in base64url, dots between.
fn json_web(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let end = skip(bytes, at, |byte| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.' | b'=' | b'+' | b'/' | b'~')
    });
    let token = &bytes[at..end];
    // A header alone, as where a line was cut, is still no text anybody needs.
    (token.contains(&b'.') || token.len() >= 16).then_some(at..end)
}

/// The userinfo of a URL whose authority starts at `start`.
fn userinfo(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    let limit = bytes.len().min(start + MAX_USERINFO_BYTES);
    let mut end = start;
    let mut last_at = None;
    let mut slash = None;
    while end < limit
        && !matches!(
            bytes[end],
            b' ' | b'\t' | b'\n' | b'\r' | b'"' | b'<' | b'>' | b'\''
        )
    {
        match bytes[end] {
            b'@' if slash.is_none() => last_at = Some(end),
            b'@' if has_password(&bytes[start..slash.unwrap_or(end)]) => last_at = Some(end),
            b'/' | b'?' | b'#' if slash.is_none() => slash = Some(end),
            _ => {}
        }
        end += 1;
    }
    not_empty(start..last_at?)
}

/// Whether an authority that was cut at a slash looks like `user:password` rather than
/// `host:port`.
fn has_password(authority: &[u8]) -> bool {
    let Some(colon) = authority.iter().rposition(|byte| *byte == b':') else {
        return false;
    };
    let after = &authority[colon + 1..];
    !authority.contains(&b'@') && (after.is_empty() || !after.iter().all(u8::is_ascii_digit))
}

/// A PEM block that holds a private key, to its end line or the end of the text.
fn pem(text: &str, at: usize) -> Option<Range<usize>> {
    const LONGEST_LABEL_BYTES: usize = 64;
    let label = at + "-----BEGIN ".len();
    let label_end = text.floor_char_boundary(text.len().min(label + LONGEST_LABEL_BYTES));
    if !text[label..label_end].contains("PRIVATE KEY") {
        return None;
    }
    let end = match text[label..].find("-----END ") {
        Some(offset) => {
            let tail = label + offset + "-----END ".len();
            text[tail..]
                .find("-----")
                .map_or(text.len(), |dashes| tail + dashes + "-----".len())
        }
        None => text.len(),
    };
    Some(at..end)
}

/// The end of a quoted value: the same quote behind as many backslashes as its opening had.
fn quoted_end(bytes: &[u8], start: usize, quote: u8, backslashes: usize) -> usize {
    let mut at = start;
    let mut run = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => run += 1,
            byte if byte == quote && run == backslashes => return at - backslashes,
            _ => run = 0,
        }
        at += 1;
    }
    bytes.len()
}

/// Lower-case letters only: a word of a sentence, as in `token: expired`.
fn is_prose(word: &[u8]) -> bool {
    let word = match word {
        [rest @ .., b'.' | b','] => rest,
        whole => whole,
    };
    word.len() <= MAX_PROSE_BYTES && word.iter().all(u8::is_ascii_lowercase)
}

const fn ends_value(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\t'
            | b'\n'
            | b'\r'
            | b'&'
            | b';'
            | b','
            | b'"'
            | b'\''
            | b'`'
            | b')'
            | b']'
            | b'}'
            | b'<'
            | b'>'
            | b'#'
    )
}

fn skip(bytes: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> usize {
    bytes[from..]
        .iter()
        .position(|byte| !wanted(*byte))
        .map_or(bytes.len(), |offset| from + offset)
}

fn not_empty(range: Range<usize>) -> Option<Range<usize>> {
    (range.start < range.end).then_some(range)
}
