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

    let said = say(&["sign", &component, "--key", &key("ours")]);
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
    let nameless = tempfile::tempdir().unwrap();
    let alone = text(&nameless.path().join("guard.wasm"));
    std::fs::copy(&component, &alone).unwrap();
    let said = say(&["sign", &alone, "--key", &key("ours")]);
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
    assert_eq!(
        say(&["sign", &component, "--key", &key]).exit,
        Exit::Success
    );

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
    assert_eq!(
        say(&["sign", &component, "--key", &key]).exit,
        Exit::Success
    );
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
    let said = say(&["sign", &component, "--key", &key]);
    assert_eq!(said.exit, Exit::Usage);
    assert!(said.problems.contains("chmod 600"), "{}", said.problems);
}

pub(super) fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};

    let hex = Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    format!("sha256:{hex}")
}
