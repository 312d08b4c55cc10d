//! What operators see of certificates; the forms are the admin API's JSON as well.

use serde::{Deserialize, Serialize};

/// The certificates of the HTTP ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificatePage {
    /// By source and name.
    pub certificates: Vec<CertificateStatus>,
}

/// One certificate, or a name that should have one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The names that it is for.
    pub names: Vec<String>,
    /// Where it comes from.
    pub source: CertificateSource,
    /// The file of one from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// When it ends, seconds since 1970; absent where there is none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
    /// Whether it ends so soon that its renewal should have happened: a sixth of its life is left, or
    /// a week where that is less.
    #[serde(default)]
    pub ending: bool,
    /// When it is ordered for the first time or anew, Unix milliseconds; absent for one from a
    /// file, and while an order is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_order_ms: Option<u64>,
    /// Whether an order is under way.
    #[serde(default)]
    pub under_way: bool,
    /// Orders that failed since the last that did not.
    #[serde(default)]
    pub failures: u32,
    /// Why the last order failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<CertificateError>,
}

/// Where a certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateSource {
    /// A file.
    File,
    /// The authority of `ingress.acme`.
    Acme,
}

impl CertificateSource {
    /// As it stands in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Acme => "acme",
        }
    }
}

/// Why an order failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateError {
    /// Stable; listed in `docs/error-codes.md`.
    pub code: String,
    /// What the authority said.
    pub message: String,
}
