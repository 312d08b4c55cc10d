//! Codes about bundles of policies: why one was refused, and why something asked about them was.

use nowconnect_policy::RefusalCode;

use super::{Entry, Group, Line, Text, text};
use crate::bundle::refused::codes;
use crate::telemetry::events;

static REFUSED: Group = Group {
    heading: "Why a bundle of policies was refused",
    place: "As the refusal of a bundle",
    intro: "What is in force stays in force. `nowconnect policy verify` says the same without a hub.",
    seen_by: "whoever pushes or activates it, `nowconnect policy status`, and the hub's operator",
    property: None,
    metrics: &["nowconnect_policy_bundle_rejected_total{code=\"CODE\"}"],
    lines: &[Line(events::BUNDLE_REJECTED, "code")],
};

static ASKED: Group = Group {
    heading: "Why something asked about bundles was refused",
    place: "As the answer to something asked about bundles",
    intro: "Answers of the [admin API](admin-api.md) and of `nowconnect policy push`, `activate` and their sisters;\n\
            `waits for` and `problem` of `nowconnect policy status`.",
    seen_by: "whoever asked, and where it concerns the source, the state or the time also `/readyz` and `nowconnect policy status`",
    property: None,
    metrics: &[
        "nowconnect_policy_bundle_rejected_total{code=\"CODE\"}",
        "nowconnect_policy_bundle_problems",
    ],
    lines: &[
        Line(events::BUNDLE_REJECTED, "code"),
        Line(events::BUNDLE_TROUBLE, "code"),
    ],
};

pub(super) fn entries() -> Vec<Entry> {
    let refused = RefusalCode::ALL
        .into_iter()
        .map(|code| Entry::new(&REFUSED, code.as_str(), refusal(code)));
    let asked = ASKS
        .iter()
        .map(|(code, text)| Entry::new(&ASKED, code, *text));
    refused.chain(asked).collect()
}

fn refusal(code: RefusalCode) -> Text {
    match code {
        RefusalCode::Unsigned => text(
            "the archive carries no signature",
            "It was built and not signed, and this hub trusts keys, so it takes only what they signed.",
            "`nowconnect policy sign`",
        ),
        RefusalCode::BadSignature => text(
            "a trusted key's signature does not fit the manifest",
            "The manifest was changed after it was signed, on the way or by somebody.",
            "get it again from its source; if that does not help, somebody changed it",
        ),
        RefusalCode::UntrustedKey => text(
            "too few of the keys that signed it are trusted here",
            "`policy.bundle.required_signatures` of `policy.bundle.trusted_keys` must have signed.",
            "trust the key, or have it signed by one that is",
        ),
        RefusalCode::Digest => text(
            "a file is not the one that was signed",
            "Its digest is not the one in the signed manifest.",
            "get it again from its source",
        ),
        RefusalCode::FileMissing => text(
            "a file that was signed is not there",
            "It was lost after the bundle was signed.",
            "get it again from its source",
        ),
        RefusalCode::FileExtra => text(
            "a file is there that was not signed",
            "It was put in after the bundle was signed.",
            "build it again",
        ),
        RefusalCode::Expired => text(
            "its `not_after` is past",
            "It is old, or this machine's clock is ahead.",
            "build and sign it anew; compare the clocks",
        ),
        RefusalCode::FromFuture => text(
            "it was made more than five minutes after now",
            "This machine's clock is behind, or the one's that built it is ahead.",
            "set the clock of this machine, or of the one that built it",
        ),
        RefusalCode::NewerHub => text(
            "its `min_hub` is above this hub's version",
            "It uses something that this hub does not have.",
            "upgrade the hub",
        ),
        RefusalCode::UnknownSchema => text(
            "it was written for a version of the core schema that this hub does not serve",
            "A hub serves the current version and the one before.",
            "check it against a version that is served and build it anew",
        ),
        RefusalCode::Rollback => text(
            "a higher revision was accepted before",
            "An older bundle was brought again, by mistake or by somebody who wants an old gap back.",
            "to go back, sign the earlier content under a new revision: `nowconnect policy rollback`",
        ),
        RefusalCode::RevisionConflict => text(
            "the same revision was accepted before with other content",
            "Two bundles were built with one number.",
            "build it with a revision of its own",
        ),
        RefusalCode::Invalid => text(
            "its policies do not compile",
            "They do not fit the schema or the grammar, or `policy check` finds something else in them.",
            "the message lists every problem with its place",
        ),
        RefusalCode::TestsFailed => text(
            "its own test cases fail",
            "A case in it expects another decision than its policies give.",
            "the message lists them; `nowconnect policy test` runs them without a hub",
        ),
        RefusalCode::TooLarge => text(
            "more files or bytes than a bundle may have",
            "`policy.bundle.max_bytes`, or a bound on the number of files.",
            "make it smaller",
        ),
        RefusalCode::Malformed => text(
            "it is no bundle, or holds something that has no place in one",
            "It is no tar, lacks the manifest, or has links or paths that lead out of it.",
            "`nowconnect policy build` makes one",
        ),
        RefusalCode::Unreadable => text(
            "the file or folder cannot be read",
            "It is not there, or not for this user.",
            "look at path and permissions",
        ),
    }
}

const ASKS: [(&str, Text); 16] = [
    (
        codes::OFF,
        text(
            "no key is trusted, so no bundle is taken",
            "The hub reads its policies from a folder, or has the built-in ones.",
            "name the keys in `policy.bundle.trusted_keys`",
        ),
    ),
    (
        codes::NONE_STAGED,
        text(
            "nothing is staged",
            "There is no bundle to activate, compare or take back.",
            "`nowconnect policy push`",
        ),
    ),
    (
        codes::OTHER_STAGED,
        text(
            "another revision is staged than the one asked for",
            "Somebody pushed another one meanwhile.",
            "look at `nowconnect policy status`",
        ),
    ),
    (
        codes::REPLACED,
        text(
            "a newer bundle was staged in its place",
            "Only the newest waits.",
            "nothing",
        ),
    ),
    (
        codes::DISCARDED,
        text(
            "an operator took it back",
            "`nowconnect policy discard`, or the admin API.",
            "push it again, where that was a mistake",
        )
        .logged(&[Line(events::ADMIN_ACTION, "")]),
    ),
    (
        codes::NOT_KEPT,
        text(
            "it could not be written down; what is not written down does not come into force",
            "The disk is full, or `policy.bundle.state_dir` cannot be written.",
            "make room in `policy.bundle.state_dir`; the source is asked again",
        ),
    ),
    (
        codes::LOST,
        text(
            "what was kept of it cannot be read, or is not what it was",
            "A file in `policy.bundle.state_dir` was changed or damaged.",
            "push it again; until then the message says what serves",
        ),
    ),
    (
        codes::STATE_BROKEN,
        text(
            "the state file could not be read; it was put aside, and revisions were taken from the kept bundles",
            "`state.json` in `policy.bundle.state_dir` was changed or damaged.",
            "look at `state.json.broken`; the next activation ends the report",
        ),
    ),
    (
        codes::SOURCE,
        text(
            "the source does not answer, or not with a bundle",
            "The server of `policy.bundle.source` is away, or serves something else.",
            "look at the source; what is in force stays",
        )
        .counted(&["nowconnect_policy_bundle_looks_total{result=\"failed\"}"]),
    ),
    (
        codes::LITTLE_TRAFFIC,
        text(
            "the shadow has compared fewer decisions than required",
            "`min_shadow_requests` asks for more traffic than came since it was staged.",
            "wait, or activate without the requirement",
        )
        .counted(&["nowconnect_policy_shadow_total"]),
    ),
    (
        codes::NEW_ALLOW,
        text(
            "it would newly allow what the shadow saw",
            "`require_no_new_allow` is asked for, and live traffic shows a difference.",
            "`nowconnect policy shadow` shows what",
        )
        .counted(&["nowconnect_policy_shadow_total{outcome=\"newly_allowed\"}"]),
    ),
    (
        codes::NEW_DENY,
        text(
            "it would newly deny what the shadow saw, or cannot be evaluated",
            "`require_no_new_deny` is asked for, and live traffic shows a difference.",
            "`nowconnect policy shadow` shows what",
        )
        .counted(&["nowconnect_policy_shadow_total{outcome=\"newly_denied\"}"]),
    ),
    (
        codes::UNPROVED,
        text(
            "a proof was required, and there is none",
            "The prover found a request that would newly be let in, did not come to an end, or is not installed.",
            "the message says why",
        ),
    ),
    (
        codes::NO_ROLLBACK,
        text(
            "what is called a rollback has a payload that was never in force here",
            "A rollback may skip what a new bundle must show, so it must be one.",
            "push it as a new bundle",
        ),
    ),
    (
        codes::BUSY,
        text(
            "too much is asked at once",
            "Several bundles or activations are under way.",
            "try again",
        ),
    ),
    (
        codes::INTERNAL,
        text(
            "the hub failed at it",
            "Something failed there that should not.",
            "look into its log, and report it",
        ),
    ),
];
