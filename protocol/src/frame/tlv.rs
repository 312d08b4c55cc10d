//! Fields of the larger bodies: key (one byte), length (two bytes), value.
//!
//! A reader skips keys that it does not know, so a later release can add fields. A field that
//! may stand more than once is a list.

use bytes::{BufMut, Bytes, BytesMut};

use super::DecodeError;

/// Appends fields to a body.
pub(crate) struct FieldWriter<'a> {
    out: &'a mut BytesMut,
}

impl<'a> FieldWriter<'a> {
    pub(crate) fn new(out: &'a mut BytesMut) -> Self {
        Self { out }
    }

    /// A value longer than 65,535 bytes is cut there; every type that reaches this is bounded
    /// far below.
    pub(crate) fn bytes(&mut self, key: u8, value: &[u8]) {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.out.put_u8(key);
        self.out.put_u16(length);
        self.out.put_slice(&value[..usize::from(length)]);
    }

    pub(crate) fn text(&mut self, key: u8, value: &str) {
        self.bytes(key, value.as_bytes());
    }

    pub(crate) fn u16(&mut self, key: u8, value: u16) {
        self.bytes(key, &value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, key: u8, value: u32) {
        self.bytes(key, &value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, key: u8, value: u64) {
        self.bytes(key, &value.to_be_bytes());
    }

    pub(crate) fn pair(&mut self, key: u8, name: &str, value: &str) {
        let mut both = BytesMut::with_capacity(2 + name.len() + value.len());
        put_short_text(&mut both, name);
        both.put_slice(value.as_bytes());
        self.bytes(key, &both);
    }
}

/// Writes a text of at most 65,535 bytes with its length in front.
pub(crate) fn put_short_text(out: &mut BytesMut, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.put_u16(length);
    out.put_slice(&text.as_bytes()[..usize::from(length)]);
}

/// Reads what [`put_short_text`] wrote.
pub(crate) fn take_short_text(input: &mut Bytes) -> Result<String, DecodeError> {
    let length = usize::from(take_u16(input)?);
    text(&take(input, length)?)
}

pub(crate) fn take(input: &mut Bytes, length: usize) -> Result<Bytes, DecodeError> {
    if input.len() < length {
        return Err(DecodeError::Truncated);
    }
    Ok(input.split_to(length))
}

pub(crate) fn take_u8(input: &mut Bytes) -> Result<u8, DecodeError> {
    Ok(take(input, 1)?[0])
}

pub(crate) fn take_u16(input: &mut Bytes) -> Result<u16, DecodeError> {
    let bytes = take(input, 2)?;
    Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
}

pub(crate) fn take_u32(input: &mut Bytes) -> Result<u32, DecodeError> {
    let mut value = [0; 4];
    value.copy_from_slice(&take(input, 4)?);
    Ok(u32::from_be_bytes(value))
}

pub(crate) fn take_u64(input: &mut Bytes) -> Result<u64, DecodeError> {
    let mut value = [0; 8];
    value.copy_from_slice(&take(input, 8)?);
    Ok(u64::from_be_bytes(value))
}

pub(crate) fn text(bytes: &[u8]) -> Result<String, DecodeError> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| DecodeError::Utf8)
}

/// One field of a body.
pub(crate) struct Field {
    pub(crate) key: u8,
    pub(crate) value: Bytes,
}

impl Field {
    pub(crate) fn text(&self) -> Result<String, DecodeError> {
        text(&self.value)
    }

    pub(crate) fn u16(&self) -> Result<u16, DecodeError> {
        exact(&self.value, take_u16)
    }

    pub(crate) fn u32(&self) -> Result<u32, DecodeError> {
        exact(&self.value, take_u32)
    }

    pub(crate) fn u64(&self) -> Result<u64, DecodeError> {
        exact(&self.value, take_u64)
    }

    pub(crate) fn pair(&self) -> Result<(String, String), DecodeError> {
        let mut value = self.value.clone();
        let name = take_short_text(&mut value)?;
        Ok((name, text(&value)?))
    }
}

fn exact<T>(
    value: &Bytes,
    read: impl Fn(&mut Bytes) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut value = value.clone();
    let result = read(&mut value)?;
    if value.is_empty() {
        Ok(result)
    } else {
        Err(DecodeError::FieldLength)
    }
}

/// The next field, or none at the end of the body.
pub(crate) fn next_field(body: &mut Bytes) -> Result<Option<Field>, DecodeError> {
    if body.is_empty() {
        return Ok(None);
    }
    let key = take_u8(body)?;
    let length = usize::from(take_u16(body)?);
    let value = take(body, length)?;
    Ok(Some(Field { key, value }))
}
