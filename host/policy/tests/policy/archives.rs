//! Archives: what is taken, what is refused and by which code, and that no bytes do harm.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use nowconnect_policy::{
    Admission, BundleArchive, CoreVersion, Folder, HighWater, ManifestFacts, PublicKey, Refusal,
    RefusalCode, SecretKey, SourceFile, TrustedKeys, admit, shipped,
};
use proptest::prelude::*;

const HUB: &str = "0.1.0";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_248_000)
}

fn key(letter: char) -> SecretKey {
    let seed = format!("{}A=", letter.to_string().repeat(42));
    SecretKey::parse(&format!("nowconnect-secret-ed25519:{seed}")).unwrap()
}

fn trusted() -> TrustedKeys {
    TrustedKeys::new(vec![key('A').public()])
}

fn facts(revision: u64) -> ManifestFacts {
    ManifestFacts {
        revision,
        created: now(),
        not_after: None,
        min_hub: None,
    }
}

const CASES: &str = r#"[{"name": "nobody reloads",
    "request": {"principal": "NowConnect::Node::\"hub\"",
        "action": "NowConnect::Action::\"mesh-join\"", "resource": "NowConnect::Node::\"hub\"",
        "context": {
            "net": {"srcIp": {"fn": "ip", "arg": "10.0.0.1"}, "srcPort": 1,
                "listener": {"type": "NowConnect::Listener", "id": "mesh"}},
            "meta": {"now": {"fn": "datetime", "arg": "2026-11-21"}, "requestId": "r",
                "hub": {"type": "NowConnect::Node", "id": "hub"}}}},
    "entities": [], "decision": "deny", "reason": [], "num_errors": 0}]"#;

fn folder() -> Folder {
    let mut sources = shipped();
    sources.entities = Some(SourceFile::new(
        "entities.json",
        r#"[{"uid": {"type": "NowConnect::Connector", "id": "ldap"},
             "parents": [{"type": "NowConnect::Group", "id": "directory"}]}]"#,
    ));
    Folder {
        sources,
        tests: vec![SourceFile::new("any/where/cases.json", CASES)],
        assertions: Vec::new(),
    }
}

fn signed(revision: u64) -> BundleArchive {
    let mut archive = folder().build(facts(revision)).unwrap();
    archive.sign(&key('A'));
    archive
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> RefusalCode {
    result.unwrap_err().code
}

#[test]
fn what_was_built_and_signed_is_taken_and_compiles() {
    let tar = signed(7).to_tar().unwrap();
    let archive = BundleArchive::from_tar(&tar).unwrap();
    assert_eq!(archive.to_tar().unwrap(), tar, "an archive has one form");
    let verified = archive.verify(&trusted(), now(), HUB).unwrap();
    assert_eq!(verified.signers(), [key('A').public().id()]);
    assert_eq!(verified.archive().revision(), 7);
    let bundle = verified.compile(3).unwrap();
    assert_eq!(bundle.generation(), 3);
    assert_eq!(verified.archive().run_tests(&bundle).results.len(), 1);
}

#[test]
fn a_folder_and_a_tar_are_the_same_archive() {
    let dir = tempfile::tempdir().unwrap();
    let archive = signed(7);
    archive.write_to(dir.path()).unwrap();
    assert!(BundleArchive::is_in(dir.path()));
    assert_eq!(BundleArchive::read(dir.path()).unwrap(), archive);
    let tar = dir.path().join("bundle.tar");
    std::fs::write(&tar, archive.to_tar().unwrap()).unwrap();
    assert_eq!(BundleArchive::read(&tar).unwrap(), archive);
    assert_eq!(
        code(BundleArchive::read(dir.path())),
        RefusalCode::Malformed,
        "a file that has no place in a bundle"
    );
}

#[test]
fn signatures_count_only_from_trusted_keys_over_these_bytes() {
    let unsigned = folder().build(facts(1)).unwrap();
    let verify =
        |archive: &BundleArchive, keys: &TrustedKeys| archive.clone().verify(keys, now(), HUB);
    assert_eq!(code(verify(&unsigned, &trusted())), RefusalCode::Unsigned);
    let mut other = unsigned;
    other.sign(&key('B'));
    assert_eq!(code(verify(&other, &trusted())), RefusalCode::UntrustedKey);
    assert_eq!(
        code(verify(&signed(1), &TrustedKeys::new(Vec::new()))),
        RefusalCode::UntrustedKey,
        "no keys trust nobody"
    );
    let both = TrustedKeys::new(vec![key('A').public(), key('B').public()]).require(2);
    assert_eq!(code(verify(&other, &both)), RefusalCode::UntrustedKey);
    other.sign(&key('A'));
    other.sign(&key('A'));
    assert_eq!(verify(&other, &both).unwrap().signers().len(), 2);
    // The signature of another manifest under the same key.
    let of_one = member(&signed(1), "manifest.sig");
    let moved = with(&signed(2), "manifest.sig", Some(&of_one)).unwrap();
    assert_eq!(code(verify(&moved, &trusted())), RefusalCode::BadSignature);
}

#[test]
fn times_and_versions_are_held_against_this_hub() {
    let verify = |facts: ManifestFacts, at: SystemTime| {
        let mut archive = folder().build(facts).unwrap();
        archive.sign(&key('A'));
        archive.verify(&trusted(), at, HUB)
    };
    let minute = Duration::from_secs(60);
    let mut until = facts(1);
    until.not_after = Some(now() + minute);
    verify(until.clone(), now() + minute).unwrap();
    assert_eq!(
        code(verify(until, now() + 2 * minute)),
        RefusalCode::Expired
    );
    verify(facts(1), now() - 4 * minute).unwrap();
    assert_eq!(
        code(verify(facts(1), now() - 6 * minute)),
        RefusalCode::FromFuture
    );
    let mut newer = facts(1);
    newer.min_hub = Some("0.2.0".parse().unwrap());
    assert_eq!(code(verify(newer, now())), RefusalCode::NewerHub);
}

#[test]
fn times_and_revision_are_no_part_of_the_payload_and_are_signed_all_the_same() {
    let build = |change: fn(&mut ManifestFacts)| {
        let mut facts = facts(1);
        change(&mut facts);
        let mut archive = folder().build(facts).unwrap();
        archive.sign(&key('A'));
        archive
    };
    let until = |facts: &mut ManifestFacts| {
        facts.not_after = Some(now() + Duration::from_secs(60));
    };
    let plain = build(|_| {});
    for other in [
        build(|facts| facts.revision = 9),
        build(|facts| facts.created -= Duration::from_secs(60)),
        build(until),
        build(|facts| facts.min_hub = Some("0.0.1".parse().unwrap())),
    ] {
        assert_eq!(other.payload_digest(), plain.payload_digest());
        // Its manifest under the signature of the other: each word of it is vouched for.
        let moved = with(
            &plain,
            "manifest.json",
            Some(&member(&other, "manifest.json")),
        );
        let refused = moved.unwrap().verify(&trusted(), now(), HUB);
        assert_eq!(code(refused), RefusalCode::BadSignature);
    }
}

#[test]
fn a_schema_that_is_not_served_is_refused_by_name() {
    let manifest = member(&signed(1), "manifest.json");
    let ours = format!("\"core_schema\": {}", CoreVersion::CURRENT.number());
    assert!(manifest.contains(&ours));
    let other = manifest.replace(&ours, "\"core_schema\": 99");
    let mut archive = with(&signed(1), "manifest.json", Some(&other)).unwrap();
    archive.sign(&key('A'));
    let refusal = archive.verify(&trusted(), now(), HUB).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::UnknownSchema);
    assert!(refusal.message.contains("99"), "{refusal}");
}

#[test]
fn every_file_is_the_one_that_was_signed() {
    let verify = |archive: Result<BundleArchive, Refusal>| {
        code(archive.and_then(|archive| archive.verify(&trusted(), now(), HUB)))
    };
    let path = "policies/open.cedar";
    let other = member(&signed(1), path) + " ";
    assert_eq!(
        verify(with(&signed(1), path, Some(&other))),
        RefusalCode::Digest
    );
    assert_eq!(
        verify(with(&signed(1), path, None)),
        RefusalCode::FileMissing
    );
    let extra = with(&signed(1), "policies/extra.cedar", Some("permit"));
    assert_eq!(verify(extra), RefusalCode::FileExtra);
    assert_eq!(
        verify(with(&signed(1), "manifest.json", None)),
        RefusalCode::Malformed
    );
}

#[test]
fn what_does_not_compile_or_pass_is_not_built() {
    let mut broken = folder();
    broken
        .sources
        .policies
        .push(SourceFile::new("x.cedar", "permit (principal"));
    assert_eq!(code(broken.build(facts(1))), RefusalCode::Invalid);
    let mut failing = folder();
    failing.tests[0].text = CASES.replace("\"deny\"", "\"allow\"");
    let refusal = failing.build(facts(1)).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::TestsFailed);
    assert!(refusal.message.contains("nobody reloads"), "{refusal}");
    let mut twice = folder();
    twice
        .sources
        .policies
        .push(SourceFile::new("deep/open.cedar", ""));
    assert_eq!(code(twice.build(facts(1))), RefusalCode::Malformed);
    let mut odd = folder();
    odd.sources.policies.push(SourceFile::new("a b.cedar", ""));
    assert_eq!(code(odd.build(facts(1))), RefusalCode::Malformed);
}

#[test]
fn revisions_only_grow() {
    let seen = HighWater::from(&signed(7));
    assert_eq!(admit(None, &signed(1)), Ok(Admission::Newer));
    assert_eq!(admit(Some(&seen), &signed(8)), Ok(Admission::Newer));
    let mut again = folder()
        .build(ManifestFacts {
            created: now() + Duration::from_secs(9),
            ..facts(7)
        })
        .unwrap();
    again.sign(&key('B'));
    assert_eq!(admit(Some(&seen), &again), Ok(Admission::Same));
    assert_eq!(code(admit(Some(&seen), &signed(6))), RefusalCode::Rollback);
    let mut other = folder();
    other.sources.policies.pop();
    let other = other.build(facts(7)).unwrap();
    assert_eq!(
        code(admit(Some(&seen), &other)),
        RefusalCode::RevisionConflict
    );
}

#[test]
fn keys_show_only_their_public_half() {
    let secret = SecretKey::generate().unwrap();
    let text = secret.to_text();
    assert_eq!(SecretKey::parse(&text).unwrap().public(), secret.public());
    let letters = text.trim().rsplit(':').next().unwrap();
    assert!(!format!("{secret:?}").contains(letters));
    let public = secret.public();
    assert_eq!(PublicKey::parse(&public.to_string()).unwrap(), public);
    // The neutral element: anything at all is signed by it.
    let weak = "ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(PublicKey::parse(weak).is_err());
    let error = SecretKey::parse(&letters.replace(':', "")).unwrap_err();
    assert!(!error.to_string().contains(letters));
}

#[test]
fn hostile_paths_and_kinds_are_no_members() {
    for path in [
        "/etc/passwd",
        "../manifest.json",
        "policies/../../x.cedar",
        "policies/.hidden.cedar",
        "policies/sub/x.cedar",
        "policies/.cedar",
        "other.txt",
    ] {
        assert_eq!(
            code(tar_with(path, tar::EntryType::Regular)),
            RefusalCode::Malformed
        );
    }
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Char,
        tar::EntryType::Fifo,
        tar::EntryType::GNUSparse,
        tar::EntryType::GNULongName,
        tar::EntryType::XHeader,
    ] {
        let refused = tar_with("policies/x.cedar", kind);
        assert_eq!(code(refused), RefusalCode::Malformed, "{kind:?}");
    }
    let mut twice = tar::Builder::new(Vec::new());
    for _ in 0..2 {
        append(&mut twice, "policies/x.cedar", tar::EntryType::Regular);
    }
    let twice = twice.into_inner().unwrap();
    let refusal = BundleArchive::from_tar(&twice).unwrap_err();
    assert!(refusal.message.contains("twice"), "{refusal}");
}

#[test]
fn sizes_are_bounded_before_anything_is_believed() {
    let huge = vec![0_u8; 33 * 1024 * 1024];
    assert_eq!(code(BundleArchive::from_tar(&huge)), RefusalCode::TooLarge);
    let mut many = tar::Builder::new(Vec::new());
    for number in 0..1100 {
        append(
            &mut many,
            &format!("policies/{number}.cedar"),
            tar::EntryType::Regular,
        );
    }
    let many = many.into_inner().unwrap();
    assert_eq!(code(BundleArchive::from_tar(&many)), RefusalCode::TooLarge);
    let mut big = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(5 * 1024 * 1024);
    header.set_path("policies/x.cedar").unwrap();
    header.set_cksum();
    big.append(&header, &*vec![b' '; 5 * 1024 * 1024]).unwrap();
    let big = big.into_inner().unwrap();
    assert_eq!(code(BundleArchive::from_tar(&big)), RefusalCode::TooLarge);
}

#[cfg(unix)]
#[test]
fn a_folder_with_a_link_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    signed(1).write_to(dir.path()).unwrap();
    let link = dir.path().join("policies/link.cedar");
    std::os::unix::fs::symlink("open.cedar", link).unwrap();
    assert_eq!(
        code(BundleArchive::read(dir.path())),
        RefusalCode::Malformed
    );
}

#[test]
fn codes_are_documented_and_differ() {
    let doc = include_str!("../../../../docs/error-codes.md");
    let codes: BTreeMap<&str, RefusalCode> = RefusalCode::ALL
        .into_iter()
        .map(|code| (code.as_str(), code))
        .collect();
    assert_eq!(codes.len(), RefusalCode::ALL.len());
    for code in codes.keys() {
        let row = format!("| [`{code}`](errors/{code}.md) |");
        assert!(doc.contains(&row), "{code}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A changed byte is refused, or it was one of a tar's paddings and means nothing: what
    /// comes out is then exactly what was signed.
    #[test]
    fn a_changed_byte_never_changes_what_is_taken(at in any::<prop::sample::Index>(), by in 1_u8..) {
        let archive = signed(7);
        let mut tar = archive.to_tar().unwrap();
        let at = at.index(tar.len());
        tar[at] ^= by;
        let taken = BundleArchive::from_tar(&tar)
            .and_then(|archive| archive.verify(&trusted(), now(), HUB));
        if let Ok(verified) = taken {
            prop_assert_eq!(verified.archive(), &archive, "byte {}", at);
        }
    }

    #[test]
    fn a_changed_byte_of_a_file_is_refused(
        file in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        by in 1_u8..,
    ) {
        let archive = signed(7);
        let members = members(&archive);
        let (path, content) = members.iter().nth(file.index(members.len())).unwrap();
        let mut content = content.clone().into_bytes();
        let at = at.index(content.len());
        content[at] ^= by;
        let mut changed = tar::Builder::new(Vec::new());
        for (other, text) in &members {
            let bytes = if other == path { &content[..] } else { text.as_bytes() };
            put(&mut changed, other, bytes);
        }
        let taken = BundleArchive::from_tar(&changed.into_inner().unwrap())
            .and_then(|archive| archive.verify(&trusted(), now(), HUB));
        prop_assert!(taken.is_err(), "{path} byte {at}");
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let _ = BundleArchive::from_tar(&bytes);
    }

    #[test]
    fn no_headers_panic(
        parts in prop::collection::vec((any::<u8>(), any::<u64>(), "[./a-z]{0,30}", 0_usize..700), 0..6),
    ) {
        let mut bytes = Vec::new();
        for (kind, size, path, follow) in parts {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_size(size);
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend(std::iter::repeat_n(b'x', follow));
        }
        let _ = BundleArchive::from_tar(&bytes);
    }

    #[test]
    fn no_manifest_panics(text in "\\PC{0,200}", at in any::<prop::sample::Index>()) {
        let whole = member(&signed(1), "manifest.json");
        let letters: Vec<char> = whole.chars().collect();
        let cut: String = letters[..at.index(letters.len())].iter().collect();
        let _ = with(&signed(1), "manifest.json", Some(&(cut + &text)));
        let _ = with(&signed(1), "manifest.sig", Some(&text));
    }
}

fn members(archive: &BundleArchive) -> BTreeMap<String, String> {
    let tar = archive.to_tar().unwrap();
    let mut tar = tar::Archive::new(&*tar);
    tar.entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
            (path, text)
        })
        .collect()
}

fn member(archive: &BundleArchive, path: &str) -> String {
    members(archive).remove(path).unwrap()
}

/// The archive with one file put in, replaced or taken out, under the same signature.
fn with(archive: &BundleArchive, path: &str, text: Option<&str>) -> Result<BundleArchive, Refusal> {
    let mut members = members(archive);
    match text {
        Some(text) => drop(members.insert(path.to_owned(), text.to_owned())),
        None => drop(members.remove(path)),
    }
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in &members {
        put(&mut tar, path, text.as_bytes());
    }
    let bytes = finished(tar);
    BundleArchive::from_tar(&bytes)
}

fn put(tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_path(path).unwrap();
    header.set_cksum();
    tar.append(&header, bytes).unwrap();
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType) {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(0);
    header.set_entry_type(kind);
    header.set_cksum();
    tar.append(&header, &[][..]).unwrap();
}

fn finished(tar: tar::Builder<Vec<u8>>) -> Vec<u8> {
    tar.into_inner().unwrap()
}

fn tar_with(path: &str, kind: tar::EntryType) -> Result<BundleArchive, Refusal> {
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, path, kind);
    let bytes = finished(tar);
    BundleArchive::from_tar(&bytes)
}

/// For a bundle whose signatures were verified and cannot be read any more.
#[test]
fn signers_that_were_verified_vouch_by_the_keys_and_the_number_of_now() {
    let ids = ['A', 'B', 'C'].map(|name| key(name).public().id().to_string());
    let [a, b, c] = ids.each_ref().map(String::as_str);
    let both = TrustedKeys::new(vec![key('A').public(), key('B').public()]);
    assert!(both.vouch([a]));
    assert!(!both.vouch([c]) && !both.vouch([]));
    let both = both.require(2);
    assert!(both.vouch([a, b, c]));
    assert!(!both.vouch([a, a]) && !both.vouch([a, c]));
    assert!(!TrustedKeys::default().vouch([a]), "nobody is trusted");
}
