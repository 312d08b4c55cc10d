//! RFC 4515 filters to BER, without extensible matches.

use super::ber::{constructed, octets, tlv};
use crate::failure::{Context, Failure};

const AND: u8 = 0xa0;
const OR: u8 = 0xa1;
const NOT: u8 = 0xa2;
const EQUALITY: u8 = 0xa3;
const SUBSTRINGS: u8 = 0xa4;
const GREATER_OR_EQUAL: u8 = 0xa5;
const LESS_OR_EQUAL: u8 = 0xa6;
const PRESENT: u8 = 0x87;
const APPROXIMATE: u8 = 0xa8;

/// Deeper filters than this are refused, far above what people write.
const MAX_DEPTH: usize = 32;

/// Encodes a filter such as `(&(objectClass=person)(uid=u1*))`.
pub(crate) fn encode(text: &str) -> Result<Vec<u8>, Failure> {
    let (filter, rest) = group(text.trim(), 0)?;
    if rest.is_empty() {
        Ok(filter)
    } else {
        Err(Failure::new(format!("filter: `{rest}` after its end")))
    }
}

fn group(text: &str, depth: usize) -> Result<(Vec<u8>, &str), Failure> {
    if depth > MAX_DEPTH {
        return Err(Failure::new(format!(
            "filter nested deeper than {MAX_DEPTH}"
        )));
    }
    let inner = text
        .strip_prefix('(')
        .context(|| format!("filter: `(` missing before `{text}`"))?;
    let (filter, rest) = match inner.as_bytes().first() {
        Some(b'&') => list(AND, &inner[1..], depth)?,
        Some(b'|') => list(OR, &inner[1..], depth)?,
        Some(b'!') => {
            let (negated, rest) = group(&inner[1..], depth + 1)?;
            (tlv(NOT, &negated), rest)
        }
        Some(_) | None => {
            let end = inner
                .find(')')
                .context(|| format!("filter: `)` missing after `{inner}`"))?;
            (item(&inner[..end])?, &inner[end..])
        }
    };
    let rest = rest
        .strip_prefix(')')
        .context(|| format!("filter: `)` missing before `{rest}`"))?;
    Ok((filter, rest))
}

fn list(tag: u8, mut text: &str, depth: usize) -> Result<(Vec<u8>, &str), Failure> {
    let mut parts = Vec::new();
    while text.starts_with('(') {
        let (part, rest) = group(text, depth + 1)?;
        parts.push(part);
        text = rest;
    }
    Ok((constructed(tag, &parts), text))
}

fn item(text: &str) -> Result<Vec<u8>, Failure> {
    let (left, value) = text
        .split_once('=')
        .context(|| format!("filter: `=` missing in `{text}`"))?;
    let (tag, attribute) = match left.as_bytes().last() {
        Some(b'>') => (GREATER_OR_EQUAL, &left[..left.len() - 1]),
        Some(b'<') => (LESS_OR_EQUAL, &left[..left.len() - 1]),
        Some(b'~') => (APPROXIMATE, &left[..left.len() - 1]),
        Some(b':') => {
            return Err(Failure::new(format!(
                "filter: extensible match `{text}` is not supported"
            )));
        }
        Some(_) => (EQUALITY, left),
        None => return Err(Failure::new(format!("filter: no attribute in `{text}`"))),
    };
    if tag == EQUALITY && value == "*" {
        return Ok(tlv(PRESENT, attribute.as_bytes()));
    }
    if tag == EQUALITY && value.contains('*') {
        return substrings(attribute, value);
    }
    let parts = [octets(attribute.as_bytes()), octets(&unescape(value)?)];
    Ok(constructed(tag, &parts))
}

fn substrings(attribute: &str, value: &str) -> Result<Vec<u8>, Failure> {
    let pieces: Vec<&str> = value.split('*').collect();
    let last = pieces.len() - 1;
    let mut parts = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        if piece.is_empty() {
            continue;
        }
        let position = match number {
            0 => 0x80,
            _ if number == last => 0x82,
            _ => 0x81,
        };
        parts.push(tlv(position, &unescape(piece)?));
    }
    let parts = [octets(attribute.as_bytes()), constructed(0x30, &parts)];
    Ok(constructed(SUBSTRINGS, &parts))
}

/// `\28` and the like back to the bytes they stand for.
fn unescape(text: &str) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let digits = (bytes.next(), bytes.next());
        let (Some(high), Some(low)) = digits else {
            return Err(Failure::new(format!("filter: `\\` cut short in `{text}`")));
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (Some(high), Some(low)) = (digit(high), digit(low)) else {
            return Err(Failure::new(format!(
                "filter: `\\` without two hex digits in `{text}`"
            )));
        };
        // Two hex digits: at most 255.
        out.push((high * 16 + low) as u8);
    }
    Ok(out)
}
