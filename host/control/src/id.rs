//! Random texts that nobody can guess and that fit into host names.

/// Lower case, without letters and digits that look alike in print (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// `characters` random characters, five bits each. `None` if the system has no randomness.
pub(crate) fn random(characters: usize) -> Option<String> {
    let mut bytes = vec![0u8; characters];
    getrandom::fill(&mut bytes).ok()?;
    let text = bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect();
    Some(text)
}
