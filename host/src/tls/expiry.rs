//! When certificates end.

use rustls::pki_types::CertificateDer;

/// The end of the certificate that ends first, in seconds since 1970: from then on a chain is
/// worth nothing. `None` where there is no certificate whose dates can be read.
pub(crate) fn earliest_not_after(chain: &[CertificateDer<'_>]) -> Option<i64> {
    chain
        .iter()
        .filter_map(|certificate| x509_parser::parse_x509_certificate(certificate).ok())
        .map(|(_, parsed)| parsed.validity().not_after.timestamp())
        .min()
}

/// From when until when the first certificate of a chain is good, in seconds since 1970.
pub(crate) fn validity(chain: &[CertificateDer<'_>]) -> Option<(i64, i64)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    let validity = parsed.validity();
    Some((
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    ))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn the_certificate_that_ends_first_counts() {
        let ending = |year| {
            let mut params = rcgen::CertificateParams::new(vec!["hub".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().der().clone()
        };
        // Midnight, 1 January 2035, UTC.
        let chain = [ending(2040), ending(2035), ending(2050)];
        assert_eq!(earliest_not_after(&chain), Some(2_051_222_400));
        assert_eq!(earliest_not_after(&[]), None);
        assert_eq!(
            earliest_not_after(&[CertificateDer::from(vec![1, 2])]),
            None
        );
    }
}
