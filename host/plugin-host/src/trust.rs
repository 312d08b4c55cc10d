//! Whether a component may run by who signed it.

use crate::error::LoadProblem;
use crate::signature::{ComponentSignature, ComponentSignatures, SignatureError, Wanted};
use crate::spec::PluginSpec;

/// Longest text of a component's signatures.
pub(crate) const SIGNATURES_BYTES_MAX: u64 = 8192;

/// Finds the signature that counts: of a trusted key, over these bytes, as this plugin. Without
/// trusted keys a signature says nothing, and is not looked at.
///
/// # Errors
/// A trusted key's signature does not hold, whether one is needed or not; or one is needed, and no trusted key
/// made one.
pub(crate) fn check(
    bytes: &[u8],
    signatures: Option<&str>,
    spec: &PluginSpec,
) -> Result<Option<ComponentSignature>, LoadProblem> {
    if spec.trust.is_empty() {
        return if spec.require_signature {
            Err(LoadProblem::NobodyTrusted)
        } else {
            Ok(None)
        };
    }
    let signed = ComponentSignatures::parse(signatures.unwrap_or_default())?;
    let wanted = Wanted {
        name: Some(spec.signed_as.as_deref().unwrap_or(&spec.name)),
        version: spec.version.as_ref(),
    };
    match signed.verify(bytes, &spec.trust, wanted) {
        Ok(found) => Ok(Some(found.clone())),
        Err(SignatureError::Unsigned | SignatureError::Untrusted(_)) if !spec.require_signature => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::check;
    use crate::error::LoadProblem;
    use crate::signature::{ComponentSignature, PublicKey, SecretKey, SignedAs};
    use crate::spec::{PluginSource, PluginSpec};

    fn spec(trust: &[PublicKey], required: bool) -> PluginSpec {
        let mut spec = PluginSpec::new("guard", PluginSource::Bytes([].into()));
        spec.trust = trust.to_vec();
        spec.require_signature = required;
        spec
    }

    fn signed(key: &SecretKey, name: &str) -> String {
        let signed_as = SignedAs::new(name, "1.0.0").unwrap();
        ComponentSignature::new(key, signed_as, b"a").to_string()
    }

    #[test]
    fn what_no_trusted_key_signed_passes_only_where_it_may() {
        let (ours, theirs) = (
            SecretKey::generate().unwrap(),
            SecretKey::generate().unwrap(),
        );
        let trust = [ours.public()];
        let (good, other) = (signed(&ours, "guard"), signed(&theirs, "guard"));
        let found = check(b"a", Some(&good), &spec(&trust, true)).unwrap();
        assert_eq!(found.unwrap().key(), &ours.public());
        for signatures in [None, Some(&*other)] {
            let passed = check(b"a", signatures, &spec(&trust, false)).unwrap();
            assert_eq!(passed, None);
            assert!(check(b"a", signatures, &spec(&trust, true)).is_err());
        }
        assert_eq!(check(b"a", Some(&good), &spec(&[], false)).unwrap(), None);
        let error = check(b"a", Some(&good), &spec(&[], true)).unwrap_err();
        assert!(matches!(error, LoadProblem::NobodyTrusted), "{error}");
    }

    #[test]
    fn a_signature_that_does_not_hold_or_is_for_another_never_passes() {
        let ours = SecretKey::generate().unwrap();
        let trust = [ours.public()];
        let (signature, other) = (signed(&ours, "guard"), signed(&ours, "gate"));
        for (bytes, text) in [
            (b"b", &*signature),
            (b"a", &*other),
            (b"a", "ed25519:AAAA BBBB"),
        ] {
            for required in [false, true] {
                assert!(check(bytes, Some(text), &spec(&trust, required)).is_err());
            }
        }
        let mut renamed = spec(&trust, true);
        renamed.signed_as = Some("gate".to_owned());
        assert!(check(b"a", Some(&other), &renamed).unwrap().is_some());
    }
}
