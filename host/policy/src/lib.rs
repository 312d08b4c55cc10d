//! Cedar policies as immutable bundles: the only crate that imports cedar-policy.
//!
//! [`Sources`] are texts. [`PolicyBundle::compile`] checks them strictly and makes an
//! immutable, indexed bundle of them, or says everything that is wrong with them.
//! [`PolicyBundle::decide`] answers a [`Question`] with the help of [`Facts`], in the caller's
//! thread, without IO and without waiting.
//!
//! Invariant: whatever goes wrong while deciding denies. The engine itself skips a policy that
//! cannot be evaluated, a `forbid` included, so an allow with any evaluation error is turned
//! into a denial here.

mod archive;
mod bundle;
mod cases;
mod check;
mod context;
mod core_schema;
mod decision;
mod diagnostic;
mod difference;
mod essence;
mod explain;
mod extension;
mod facts;
mod groups;
mod index;
mod name;
mod proof;
mod question;
mod replay;
mod request;
mod row;
mod scene;
mod slices;
mod source;
mod stated;
mod templates;
mod tenants;
mod time;
mod trust;
mod vocabulary;
mod who_can;

pub use archive::{
    ARCHIVE_BYTES, Admission, BundleArchive, CLOCK_SKEW, Folder, HighWater, KeyError, KeyId,
    Manifest, ManifestFacts, PublicKey, Refusal, RefusalCode, SecretKey, TrustedKeys, Verified,
    admit, parse_time, time_text,
};
pub use bundle::PolicyBundle;
pub use cases::{CaseReport, CaseResult, run_case_files, run_cases};
pub use core_schema::CoreVersion;
pub use decision::{Decision, NOT_PERMITTED, POLICY_ERROR, PolicyRef, ReasonKind};
pub use diagnostic::{Diagnostic, Diagnostics, Severity, SourceError};
pub use difference::{Difference, PolicyChange};
pub use explain::{ConditionShown, Explanation, PolicyShown, RequestShown, ScopeShown};
pub use facts::{
    AgentFacts, ConnectorFacts, EndpointFacts, Facts, ListenerFacts, OperatorFacts, ViewerFacts,
};
pub use name::{DEFAULT_TENANT, Name};
pub use proof::{
    Assertion, Claim, ClaimResult, Counterexample, Environment, Proof, ProofLimits, ProofReport,
    Verdict, read_assertions,
};
pub use question::{
    Admin, AdminDeed, AdminTarget, Announce, EndpointCreate, Hello, Http, HttpRequest, MeshForward,
    MeshJoin, Meta, Net, Open, Question, Signals, Tls, UpstreamOpen, Viewer,
};
pub use replay::{Replay, ReplaySample, replay};
pub use source::{FILE_BYTES, FILES, SourceFile, Sources, schema_text, shipped, shipped_cases};
pub use stated::{Stated, StatedRequest, StatedUid};
pub use who_can::WhoCan;
