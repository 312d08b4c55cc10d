//! The part of BER that LDAP messages of a search need: definite lengths, one-byte tags.

use crate::failure::Failure;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const SEQUENCE: u8 = 0x30;

/// A value with its tag and length in front.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    out.push(tag);
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        Ok(_) | Err(_) => {
            let bytes = content.len().to_be_bytes();
            let skipped = bytes.iter().take_while(|byte| **byte == 0).count();
            // At most eight bytes of length: fits beside the high bit.
            out.push(0x80 | (bytes.len() - skipped) as u8);
            out.extend_from_slice(&bytes[skipped..]);
        }
    }
    out.extend_from_slice(content);
    out
}

/// Values one after the other in one constructed value.
pub(crate) fn constructed(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(tag, &parts.concat())
}

pub(crate) fn integer(value: u32) -> Vec<u8> {
    number(INTEGER, value)
}

pub(crate) fn number(tag: u8, value: u32) -> Vec<u8> {
    let bytes = [0, 0, 0, 0, 0]
        .into_iter()
        .zip(u64::from(value).to_be_bytes()[3..].iter())
        .map(|(_, byte)| *byte)
        .collect::<Vec<u8>>();
    // Shortest form whose highest bit is clear, so that it reads as positive.
    let mut start = 0;
    while start < 4 && bytes[start] == 0 && bytes[start + 1] < 0x80 {
        start += 1;
    }
    tlv(tag, &bytes[start..])
}

pub(crate) fn octets(value: &[u8]) -> Vec<u8> {
    tlv(OCTET_STRING, value)
}

/// A value read: its tag, content, and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) rest: &'a [u8],
}

/// Reads one value; `None` while bytes are missing.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<Value<'_>>, Failure> {
    let [tag, first, rest @ ..] = bytes else {
        return Ok(None);
    };
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let count = usize::from(*first & 0x7f);
        if count == 0 || count > 4 {
            return Err(Failure::new(format!("BER length of {count} bytes")));
        }
        if rest.len() < count {
            return Ok(None);
        }
        let (length, rest) = rest.split_at(count);
        let length = length
            .iter()
            .fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
        (length, rest)
    };
    if rest.len() < length {
        return Ok(None);
    }
    let (content, rest) = rest.split_at(length);
    Ok(Some(Value {
        tag: *tag,
        content,
        rest,
    }))
}

/// Reads one value that must be whole and of this tag.
pub(crate) fn expect(bytes: &[u8], tag: u8) -> Result<Value<'_>, Failure> {
    match read(bytes)? {
        Some(value) if value.tag == tag => Ok(value),
        Some(value) => Err(Failure::new(format!(
            "BER tag {:#04x} where {tag:#04x} was due",
            value.tag
        ))),
        None => Err(Failure::new("BER value cut short")),
    }
}

/// A non-negative number of up to eight bytes.
pub(crate) fn as_number(content: &[u8]) -> Result<u64, Failure> {
    if content.is_empty() || content.len() > 8 {
        return Err(Failure::new(format!("number of {} bytes", content.len())));
    }
    Ok(content
        .iter()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}
