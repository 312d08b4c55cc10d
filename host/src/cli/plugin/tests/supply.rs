//! Signatures, and components on their way to a registry and back.

use super::*;

#[test]
fn a_signature_is_over_the_bytes_and_by_somebody() {
    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "scope-guard");
    let key = |name: &str| text(&folder.path().join(name));
    for name in ["ours", "theirs"] {
        assert_eq!(say(&["keygen", &key(name)]).exit, Exit::Success);
    }
    assert_eq!(
        say(&["keygen", &key("ours")]).exit,
        Exit::Usage,
        "never over a key"
    );
    let unsigned = say(&["verify", &component, "--key", &key("ours.pub")]);
    assert!(
        unsigned.problems.contains("no signature"),
        "{}",
        unsigned.problems
    );

    let manifest = manifest(&folder);
    let said = say(&[
        "sign",
        &component,
        "--key",
        &key("ours"),
        "--manifest",
        &manifest,
    ]);
    assert_eq!(said.exit, Exit::Success, "{}", said.problems);
    assert_eq!(
        say(&["verify", &component, "--key", &key("ours.pub")]).exit,
        Exit::Success
    );
    let said = say(&["verify", &component, "--key", &key("theirs.pub")]);
    assert_eq!(said.exit, Exit::Failure);
    assert!(
        said.problems.contains("none of the trusted keys"),
        "{}",
        said.problems
    );
    let inspected = say(&["inspect", &component]).out;
    assert!(
        inspected.contains("signature  holds, by ed25519:"),
        "{inspected}"
    );
    assert!(inspected.contains(" as scope-guard 0.1.0"), "{inspected}");
    let ours = key("ours.pub");
    let verify = ["verify", &component, "--key", &ours, "--name"];
    let named = |name: &'static str| say(&[&verify[..], &[name]].concat());
    assert_eq!(named("scope-guard").exit, Exit::Success);
    let other = named("rate-limit");
    assert!(
        other.problems.contains("signed as `scope-guard`"),
        "{}",
        other.problems
    );

    let versioned = |wanted: &'static str| {
        let version = ["--version", wanted];
        say(&[&verify[..], &["scope-guard"], &version[..]].concat())
    };
    assert_eq!(versioned(">=0.1, <1").exit, Exit::Success);
    let other = versioned("1");
    assert_eq!(other.exit, Exit::Failure);
    assert!(
        other.problems.contains("version `0.1.0`"),
        "{}",
        other.problems
    );

    // As a hub has it: two trusted keys signed it as two plugins, and either is right.
    let theirs = key("theirs");
    let as_other = ["--name", "gate", "--version", "2.0.0"];
    let signed = say(&[&["sign", &component, "--key", &theirs], &as_other[..]].concat());
    assert_eq!(signed.exit, Exit::Success, "{}", signed.problems);
    let theirs = key("theirs.pub");
    for name in ["scope-guard", "gate"] {
        let both = ["verify", &component, "--key", &ours, "--key", &theirs];
        let said = say(&[&both[..], &["--name", name]].concat());
        assert!(said.out.contains(name), "{name}: {}", said.problems);
    }

    // A signature of the earlier form is told, and gives way to a new one.
    let beside = format!("{component}.sig");
    let line = std::fs::read_to_string(&beside).unwrap();
    let earlier: Vec<&str> = line.split(' ').take(2).collect();
    std::fs::write(&beside, earlier.join(" ")).unwrap();
    let inspected = say(&["inspect", &component]).out;
    assert!(inspected.contains("earlier form"), "{inspected}");
    let again = [
        "sign",
        &component,
        "--key",
        &key("ours"),
        "--name",
        "guard-2",
        "--version",
        "2.0.0",
    ];
    let said = say(&again);
    assert!(
        said.out.contains("signed as guard-2 2.0.0"),
        "{}",
        said.problems
    );
    // A manifest that lies beside it is the vendor's word, not the signer's.
    let ours = key("ours");
    let alone = ["plugin", "sign", &component, "--key", &ours];
    for more in [&[][..], &["--name", "guard"]] {
        let refused = Line::try_parse_from(alone.iter().chain(more)).unwrap_err();
        assert!(refused.to_string().contains("--version"), "{refused}");
    }
    let silent = file(&folder, "silent.toml", "");
    let said = say(&[&alone[1..], &["--manifest", &silent]].concat());
    assert_eq!(said.exit, Exit::Usage);
    assert!(said.problems.contains("--name"), "{}", said.problems);

    let mut bytes = std::fs::read(&component).unwrap();
    bytes.push(0);
    std::fs::write(&component, bytes).unwrap();
    let said = say(&["verify", &component, "--key", &key("ours.pub")]);
    assert!(said.problems.contains("does not hold"), "{}", said.problems);
}

#[test]
fn a_component_goes_into_a_registry_as_the_tools_lay_it_out() {
    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "scope-guard");
    let key = text(&folder.path().join("key"));
    assert_eq!(say(&["keygen", &key]).exit, Exit::Success);
    let sign = [
        "sign",
        &component,
        "--key",
        &key,
        "--manifest",
        &manifest(&folder),
    ];
    assert_eq!(say(&sign).exit, Exit::Success);

    let registry = registry::Registry::start();
    let reference = format!("oci+http://{}/team/guard:1.0", registry.address);
    let said = say(&["push", &component, &reference]);
    assert_eq!(said.exit, Exit::Success, "{}", said.problems);
    let stored = registry.stored();
    let manifest: serde_json::Value = serde_json::from_slice(&stored["manifests/1.0"]).unwrap();
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], "application/wasm");
    let blob = |described: &serde_json::Value| {
        stored[&format!("blobs/{}", described["digest"].as_str().unwrap())].clone()
    };
    assert_eq!(blob(layer), std::fs::read(&component).unwrap());
    let config: serde_json::Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
    assert_eq!(config["layerDigests"][0], layer["digest"]);
    let signatures = manifest["annotations"]["dev.nowconnect.signatures"]
        .as_str()
        .unwrap();
    assert_eq!(
        signatures,
        std::fs::read_to_string(format!("{component}.sig")).unwrap()
    );

    let again = say(&["push", &component, &reference]);
    assert_eq!(
        again.out, said.out,
        "the same component is the same artifact"
    );
    registry.refuse();
    let refused = say(&["push", &component, &reference]);
    assert_eq!(refused.exit, Exit::Failure, "{}", refused.out);
    for reference in [
        "guard:1.0",
        "oci://guard",
        "oci://team/guard:1",
        "oci://r.example/g@sha256:0",
    ] {
        assert_eq!(
            say(&["push", &component, reference]).exit,
            Exit::Usage,
            "{reference}"
        );
    }
}

#[test]
fn a_registry_that_asks_for_credentials_gets_those_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "scope-guard");
    for lock in ["Basic", "Bearer"] {
        let registry = registry::Registry::start();
        registry.lock(lock);
        let reference = format!("oci+http://{}/team/guard:1.0", registry.address);
        let refused = say(&["push", &component, &reference]);
        assert_eq!(refused.exit, Exit::Failure);
        assert!(
            refused.problems.contains("--auth-file"),
            "{}",
            refused.problems
        );
        // `pusher:s3cret`
        let auths = format!(
            r#"{{"auths": {{"{}": {{"auth": "cHVzaGVyOnMzY3JldA=="}}}}}}"#,
            registry.address
        );
        let auths = file(&folder, "config.json", &auths);
        let said = say(&["push", &component, &reference, "--auth-file", &auths]);
        assert_eq!(said.exit, Exit::Success, "{lock}: {}", said.problems);
        let password = file(&folder, "password", "s3cret\n");
        let by_hand = ["--user", "pusher", "--password-file", &password];
        let said = say(&[&["push", &component, &reference], &by_hand[..]].concat());
        assert_eq!(said.exit, Exit::Success, "{lock}: {}", said.problems);
        let wrong = file(&folder, "password", "guessed\n");
        let by_hand = ["--user", "pusher", "--password-file", &wrong];
        let said = say(&[&["push", &component, &reference], &by_hand[..]].concat());
        assert_eq!(said.exit, Exit::Failure, "{lock}");
        assert!(!said.problems.contains("guessed"), "{}", said.problems);
        let empty = file(&folder, "empty.json", "{}");
        let said = say(&["push", &component, &reference, "--auth-file", &empty]);
        assert_eq!(said.exit, Exit::Usage);
    }
}

#[test]
fn credentials_go_to_no_host_that_a_registry_names() {
    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "scope-guard");
    let elsewhere = registry::Registry::start();
    let registry = registry::Registry::start();
    registry.lock("Bearer");
    registry.send_for_tokens_to(elsewhere.address);
    let reference = format!("oci+http://{}/team/guard:1.0", registry.address);
    let password = file(&folder, "password", "s3cret");
    let by_hand = ["--user", "pusher", "--password-file", &password];
    let push = [&["push", &component, &reference], &by_hand[..]].concat();
    let said = say(&push);
    assert_eq!(said.exit, Exit::Failure);
    let host = elsewhere.address.to_string();
    let way_out = format!("--auth-host {host}");
    assert!(said.problems.contains(&way_out), "{}", said.problems);
    assert_eq!(elsewhere.asked(), 0);
    let said = say(&[&push[..], &["--auth-host", &host]].concat());
    assert_eq!(said.exit, Exit::Success, "{}", said.problems);
    assert_eq!(elsewhere.asked(), 1);
}

#[test]
fn a_registry_that_changes_its_mind_leads_nobody_to_another_host() {
    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "scope-guard");
    let elsewhere = registry::Registry::start();
    let registry = registry::Registry::start();
    registry.lock("Basic");
    registry.later_send_for_tokens_to(elsewhere.address);
    let reference = format!("oci+http://{}/team/guard:1.0", registry.address);
    let password = file(&folder, "password", "s3cret");
    let by_hand = ["--user", "pusher", "--password-file", &password];
    let push = [&["push", &component, &reference], &by_hand[..]].concat();
    let said = say(&push);
    assert_eq!(said.exit, Exit::Success, "{}", said.problems);
    assert_eq!(elsewhere.asked(), 0);

    let registry = registry::Registry::start();
    registry.lock("Basic");
    let reference = format!("oci+http://{}/team/guard:1.0", registry.address);
    let push = [&["push", &component, &reference], &by_hand[..]].concat();
    let place = format!("http://{}", elsewhere.address);
    registry.have_uploads_sent_to(&place);
    let said = say(&push);
    assert_eq!(said.exit, Exit::Failure);
    assert!(said.problems.contains(&place), "{}", said.problems);
    assert_eq!(elsewhere.asked(), 0);
    // What is said to be its own place is.
    registry.have_uploads_sent_to(&format!("http://{}", registry.address));
    assert_eq!(say(&push).exit, Exit::Success);
}

#[test]
fn nobody_shows_credentials_without_tls_but_on_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "scope-guard");
    let registry = registry::Registry::start();
    registry.lock("Basic");
    // It leads to this machine, but does not say so.
    let port = registry.address.port();
    let reference = format!("oci+http://0.0.0.0:{port}/team/guard:1.0");
    let password = file(&folder, "password", "s3cret");
    let by_hand = ["--user", "pusher", "--password-file", &password];
    let said = say(&[&["push", &component, &reference], &by_hand[..]].concat());
    assert_eq!(said.exit, Exit::Failure);
    assert!(said.problems.contains("without TLS"), "{}", said.problems);
    assert_eq!(registry.asked(), 1, "the question without credentials");
}

/// The end of an author's road and the beginning of an operator's.
#[test]
fn what_was_signed_and_pushed_is_what_a_hub_pulls() {
    use std::sync::Arc;

    use nowconnect_plugins::signature::PublicKey;
    use nowconnect_plugins::{
        EngineSettings, MemoryKv, MemoryKvSettings, NoObserver, PluginEngine, PluginSet,
        PluginSource, PluginSpec,
    };

    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "scope-guard");
    let key = text(&folder.path().join("key"));
    assert_eq!(say(&["keygen", &key]).exit, Exit::Success);
    let sign = [
        "sign",
        &component,
        "--key",
        &key,
        "--manifest",
        &manifest(&folder),
    ];
    assert_eq!(say(&sign).exit, Exit::Success);
    let registry = registry::Registry::start();
    registry.lock("Bearer");
    let auths = format!(
        r#"{{"auths": {{"{}": {{"auth": "cHVzaGVyOnMzY3JldA=="}}}}}}"#,
        registry.address
    );
    let auths = file(&folder, "config.json", &auths);
    let reference = format!("oci+http://{}/team/guard:1.0", registry.address);
    let said = say(&["push", &component, &reference, "--auth-file", &auths]);
    assert_eq!(said.exit, Exit::Success, "{}", said.problems);
    let pushed = said
        .out
        .lines()
        .find_map(|line| line.strip_prefix("pushed "));

    let public = std::fs::read_to_string(format!("{key}.pub")).unwrap();
    let mut spec = PluginSpec::new("scope-guard", PluginSource::Oci(pushed.unwrap().to_owned()));
    spec.trust = vec![PublicKey::parse(&public).unwrap()];
    spec.require_signature = true;
    spec.grants = vec!["config".to_owned()];
    spec.registry.auth_file = Some(auths.into());
    // Its policy is all that it needs, and this machine may be slow.
    spec.limits.guest_time = std::time::Duration::from_secs(5);
    spec.limits.wall_time = std::time::Duration::from_secs(20);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let loaded = runtime.block_on(async {
        let settings = EngineSettings {
            instances_max: 64,
            ..EngineSettings::default()
        };
        let kv = Arc::new(MemoryKv::new(MemoryKvSettings::default()));
        let engine = PluginEngine::new(settings, kv, Arc::new(NoObserver)).unwrap();
        PluginSet::load(&engine, vec![spec]).await
    });
    let status = loaded.unwrap().status().remove(0);
    assert_eq!(status.signed_as.as_deref(), Some("scope-guard 0.1.0"));
    let bytes = std::fs::read(&component).unwrap();
    assert_eq!(digest(&bytes), format!("sha256:{}", status.digest));
}

#[test]
fn a_secret_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let component = builtin(&folder, "scope-guard");
    let key = text(&folder.path().join("key"));
    assert_eq!(say(&["keygen", &key]).exit, Exit::Success);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let as_guard = ["--name", "guard", "--version", "1.0.0"];
    let said = say(&[&["sign", &component, "--key", &key], &as_guard[..]].concat());
    assert_eq!(said.exit, Exit::Usage);
    assert!(said.problems.contains("chmod 600"), "{}", said.problems);
}

/// The author's own, which [`builtin`] puts beside the component.
fn manifest(folder: &TempDir) -> String {
    text(&folder.path().join("plugin.toml"))
}

pub(super) fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};

    let hex = Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    format!("sha256:{hex}")
}
