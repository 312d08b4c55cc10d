//! What an authority says about the best time to renew (RFC 9773).

use std::time::Duration;

use instant_acme::{Account, CertificateIdentifier, Error};

/// How often an authority is asked at most.
const SOONEST: Duration = Duration::from_secs(3600);

/// How often it is asked at least, and where it has no opinion.
const LATEST: Duration = Duration::from_secs(86_400);

/// When it is asked again after an answer that is none, as RFC 9773, 4.3.3 wants it.
const AFTER_TROUBLE: Duration = Duration::from_secs(6 * 3600);

/// What it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// From when until when it wants the renewal, Unix milliseconds.
    pub(super) window_ms: Option<(u64, u64)>,
    /// How long not to ask again, milliseconds.
    pub(super) again_ms: u64,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            window_ms: None,
            again_ms: milliseconds(LATEST),
        }
    }
}

/// Asks. An authority that has no opinion, or none that can be had, leaves it to us.
pub(super) async fn ask(account: &Account, certificate: &CertificateIdentifier<'_>) -> Answer {
    let (info, again) = match account.renewal_info(certificate).await {
        Ok(answered) => answered,
        // It gives no such information to anybody.
        Err(Error::Unsupported(_)) => return Answer::default(),
        Err(_) => {
            return Answer {
                window_ms: None,
                again_ms: milliseconds(AFTER_TROUBLE),
            };
        }
    };
    let window = info.suggested_window;
    let unix_ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    let (start, end) = (
        unix_ms(window.start.unix_timestamp()),
        unix_ms(window.end.unix_timestamp()),
    );
    Answer {
        // One that ends before it begins is to be taken as none.
        window_ms: (start <= end).then_some((start, end)),
        again_ms: milliseconds(again.clamp(SOONEST, LATEST)),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
