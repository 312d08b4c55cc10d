//! What names one request in its answer, in the access log and at its origin.

use std::fmt;

/// A random UUID (version 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RequestId(u128);

impl RequestId {
    pub(crate) fn random() -> Self {
        const VERSION_4: u128 = 0x4 << 76;
        const VARIANT: u128 = 0b10 << 62;
        const FREE: u128 = !((0xf << 76) | (0b11 << 62));
        Self(rand::random::<u128>() & FREE | VERSION_4 | VARIANT)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |shift: u32, digits: u32| (self.0 >> shift) & ((1 << (digits * 4)) - 1);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            part(96, 8),
            part(80, 4),
            part(64, 4),
            part(48, 4),
            part(0, 12)
        )
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_uuid_of_version_4() {
        let text = RequestId::random().to_string();
        let parts: Vec<&str> = text.split('-').collect();
        let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{text}");
        assert!(parts[2].starts_with('4'), "{text}");
        assert!(parts[3].starts_with(['8', '9', 'a', 'b']), "{text}");
        assert_ne!(RequestId::random(), RequestId::random());
        assert_eq!(
            RequestId(0x0123_4567_89ab_4cde_8f01_2345_6789_abcd).to_string(),
            "01234567-89ab-4cde-8f01-23456789abcd"
        );
    }
}
