//! Whether a component may run by who signed it.

use crate::error::LoadProblem;
use crate::signature::{ComponentSignatures, PublicKey, SignatureError};

/// Longest text of a component's signatures.
pub(crate) const SIGNATURES_BYTES_MAX: u64 = 4096;

/// Says which trusted key signed the bytes. Without trusted keys a signature says nothing, and is
/// not looked at.
///
/// # Errors
/// A signature does not hold, whether one is needed or not; or one is needed, and no trusted key
/// made one.
pub(crate) fn check(
    bytes: &[u8],
    signatures: Option<&str>,
    trust: &[PublicKey],
    required: bool,
) -> Result<Option<PublicKey>, LoadProblem> {
    if trust.is_empty() {
        return if required {
            Err(LoadProblem::NobodyTrusted)
        } else {
            Ok(None)
        };
    }
    let signed = ComponentSignatures::parse(signatures.unwrap_or_default())?;
    match signed.verify(bytes, trust) {
        Ok(key) => Ok(Some(key.clone())),
        Err(SignatureError::Unsigned | SignatureError::Untrusted(_)) if !required => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::check;
    use crate::error::LoadProblem;
    use crate::signature::SecretKey;

    #[test]
    fn what_no_trusted_key_signed_passes_only_where_it_may() {
        let (ours, theirs) = (
            SecretKey::generate().unwrap(),
            SecretKey::generate().unwrap(),
        );
        let trust = [ours.public()];
        let (good, other) = (ours.sign(b"a").to_string(), theirs.sign(b"a").to_string());
        assert_eq!(
            check(b"a", Some(&good), &trust, true).unwrap(),
            Some(ours.public())
        );
        for signatures in [None, Some(&*other)] {
            assert_eq!(check(b"a", signatures, &trust, false).unwrap(), None);
            assert!(check(b"a", signatures, &trust, true).is_err());
        }
        assert_eq!(check(b"a", Some(&good), &[], false).unwrap(), None);
        let error = check(b"a", Some(&good), &[], true).unwrap_err();
        assert!(matches!(error, LoadProblem::NobodyTrusted), "{error}");
    }

    #[test]
    fn a_signature_that_does_not_hold_never_passes() {
        let ours = SecretKey::generate().unwrap();
        let signature = ours.sign(b"a").to_string();
        for (bytes, text) in [(b"b", &*signature), (b"a", "ed25519:AAAA BBBB")] {
            for required in [false, true] {
                assert!(check(bytes, Some(text), &[ours.public()], required).is_err());
            }
        }
    }
}
