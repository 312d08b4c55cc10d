//! The arrows between the parts, read from `cargo metadata`, and rules on the tree that no
//! compiler enforces.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

use crate::repository::{files, root, text};

/// Crates that do input and output, read a clock, or bring an executor.
const IO_CRATES: [&str; 14] = [
    "async-io",
    "async-std",
    "axum",
    "chrono",
    "hyper",
    "mio",
    "reqwest",
    "rustls",
    "smol",
    "socket2",
    "time",
    "tokio",
    "tokio-rustls",
    "tokio-tungstenite",
];

#[test]
fn protocol_has_no_io_clock_or_executor() {
    let found: Vec<_> = reachable("nowconnect-protocol")
        .intersection(&names(&IO_CRATES))
        .cloned()
        .collect();
    assert!(found.is_empty(), "protocol reaches {found:?}");
    let ours: Vec<_> = reachable("nowconnect-protocol")
        .into_iter()
        .filter(|name| is_ours(name))
        .collect();
    assert_eq!(ours, ["nowconnect-protocol"], "protocol stands alone");
}

#[test]
fn protocol_forbids_the_clock_by_lint() {
    let lints = text(Path::new("protocol/clippy.toml")).unwrap();
    for method in ["std::time::Instant::now", "std::time::SystemTime::now"] {
        assert!(
            lints.contains(method),
            "protocol/clippy.toml does not disallow {method}"
        );
    }
}

#[test]
fn policy_and_plugins_do_not_know_each_other_or_us() {
    for (crate_name, other) in [
        ("nowconnect-policy", "nowconnect-plugins"),
        ("nowconnect-plugins", "nowconnect-policy"),
    ] {
        let reached = reachable(crate_name);
        assert!(!reached.contains(other), "{crate_name} reaches {other}");
        let ours: Vec<_> = reached.into_iter().filter(|name| is_ours(name)).collect();
        assert_eq!(
            ours,
            [crate_name, "nowconnect-signing"],
            "{crate_name} stands on the signatures alone"
        );
    }
}

#[test]
fn signing_stands_alone_and_is_the_only_one_to_sign() {
    let ours: Vec<_> = reachable("nowconnect-signing")
        .into_iter()
        .filter(|name| is_ours(name))
        .collect();
    assert_eq!(ours, ["nowconnect-signing"]);
    assert_eq!(importers("ed25519-dalek"), ["nowconnect-signing"]);
}

#[test]
fn the_control_plane_stands_on_the_store_and_neither_knows_the_hub() {
    for (crate_name, stands_on) in [
        ("nowconnect-store", &["nowconnect-store"][..]),
        (
            "nowconnect-control",
            &["nowconnect-control", "nowconnect-store"][..],
        ),
    ] {
        let reached = reachable(crate_name);
        let ours: Vec<_> = reached.iter().filter(|name| is_ours(name)).collect();
        assert_eq!(ours, stands_on);
        // They are given the time, and wait for nothing but the disk.
        for executor in ["tokio", "hyper", "axum"] {
            assert!(
                !reached.contains(executor),
                "{crate_name} reaches {executor}"
            );
        }
    }
    assert_eq!(importers("redb"), ["nowconnect-store"]);
}

#[test]
fn the_registry_knows_neither_the_hub_nor_http_and_alone_speaks_redis() {
    let reached = reachable("nowconnect-registry");
    let ours: Vec<_> = reached.iter().filter(|name| is_ours(name)).collect();
    assert_eq!(ours, ["nowconnect-protocol", "nowconnect-registry"]);
    for http in ["axum", "hyper", "reqwest", "tokio-tungstenite"] {
        assert!(!reached.contains(http), "the registry reaches {http}");
    }
    assert_eq!(importers("redis"), ["nowconnect-registry"]);
}

#[test]
fn the_mesh_stands_on_protocol_and_registry_and_builds_without_policy_or_plugins() {
    let reached = reachable("nowconnect-mesh");
    let ours: Vec<_> = reached.iter().filter(|name| is_ours(name)).collect();
    assert_eq!(
        ours,
        [
            "nowconnect-mesh",
            "nowconnect-protocol",
            "nowconnect-registry"
        ]
    );
    for heavy in ["axum", "cedar-policy", "hyper", "reqwest", "wasmtime"] {
        assert!(!reached.contains(heavy), "the mesh reaches {heavy}");
    }
}

#[test]
fn cedar_has_one_importing_crate() {
    assert_eq!(importers("cedar-policy"), ["nowconnect-policy"]);
}

#[test]
fn wasmtime_has_one_importing_crate() {
    assert_eq!(importers("wasmtime"), ["nowconnect-plugins"]);
}

#[test]
fn agent_is_small_and_does_not_know_the_hub() {
    let reached = reachable("nowconnect-agent");
    for heavy in [
        "axum",
        "cedar-policy",
        "cedar-policy-core",
        "nowconnect",
        "redis",
        "wasmtime",
    ] {
        assert!(!reached.contains(heavy), "the agent reaches {heavy}");
    }
}

#[test]
fn tunnel_knows_only_the_protocol() {
    let ours: Vec<_> = reachable("nowconnect-tunnel")
        .into_iter()
        .filter(|name| is_ours(name))
        .collect();
    assert_eq!(ours, ["nowconnect-protocol", "nowconnect-tunnel"]);
}

#[test]
fn one_websocket_and_one_tls_implementation() {
    for name in ["tokio-tungstenite", "tungstenite", "rustls"] {
        let versions: BTreeSet<_> = metadata()
            .packages
            .iter()
            .filter(|p| p.name.as_str() == name)
            .map(|p| p.version.to_string())
            .collect();
        assert_eq!(versions.len(), 1, "{name}: {versions:?}");
    }
    for name in ["native-tls", "openssl", "openssl-sys"] {
        assert!(
            !metadata().packages.iter().any(|p| p.name.as_str() == name),
            "{name} is in the tree"
        );
    }
}

#[test]
fn lock_file_has_no_release_candidates() {
    let candidates: Vec<_> = metadata()
        .packages
        .iter()
        .filter(|package| !package.version.pre.is_empty())
        .map(|package| format!("{} {}", package.name, package.version))
        .collect();
    assert!(candidates.is_empty(), "{candidates:?}");
}

#[test]
fn tracked_files_name_no_folder_of_a_build_machine() {
    let tops = [
        "/home/",
        "/Users/",
        "/root/",
        concat!("/wo", "rk/"),
        concat!("/tm", "p/spec"),
    ];
    let mut found = Vec::new();
    for path in files() {
        let Some(content) = text(&path) else { continue };
        for (index, line) in content.lines().enumerate() {
            if tops.iter().any(|top| names_a_folder_under(line, top))
                && !path.ends_with("architecture.rs")
            {
                found.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Where the tests ask for a feature that the programs do not, a build with tests and one without
/// compile the crate, and all that stand on it, once each: minutes of everybody's first day.
#[test]
fn tests_ask_for_no_features_that_the_programs_lack() {
    let programs = features("normal,build");
    let with_tests = features("normal,build,dev");
    let differing: Vec<_> = programs
        .iter()
        .filter(|(package, features)| !with_tests[*package].is_superset(features))
        .map(|(package, features)| format!("{package}: {features:?}, {:?}", with_tests[package]))
        .collect();
    assert!(
        differing.is_empty(),
        "name the missing features in `[workspace.dependencies]`, or give the tests another version: {differing:#?}"
    );
}

#[test]
fn guests_are_a_workspace_of_their_own() {
    let top = text(Path::new("Cargo.toml")).unwrap();
    assert!(
        top.contains(r#"exclude = ["plugins""#),
        "plugins/ must be outside the workspace"
    );
    let toolchain = text(Path::new("rust-toolchain.toml")).unwrap();
    // A target here makes rustup try to download it at every call, also where it cannot.
    assert!(
        !toolchain
            .lines()
            .any(|line| line.trim_start().starts_with("targets")),
        "rust-toolchain.toml names targets"
    );
}

/// Whether `line` has `top` as the start of an absolute path: with something below it, and not
/// as the middle of a longer path or of an address.
fn names_a_folder_under(line: &str, top: &str) -> bool {
    line.match_indices(top).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + top.len()..].chars().next();
        let starts = before.is_none_or(|c| !c.is_alphanumeric() && !"._-/}~*$".contains(c));
        starts && after.is_some_and(char::is_alphanumeric)
    })
}

fn metadata() -> &'static Metadata {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    METADATA.get_or_init(|| {
        MetadataCommand::new()
            .current_dir(root())
            .other_options(["--locked".to_owned()])
            .exec()
            .unwrap()
    })
}

/// The features that each package is built with over such edges. A package is there more than
/// once where build scripts and macros want others than the programs.
fn features(edges: &str) -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--workspace", "--prefix", "none"])
        .args(["--edges", edges, "--format", "{p}\t{f}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        if let Some((package, features)) = line.trim_end_matches(" (*)").split_once('\t') {
            let features = features.to_owned();
            found
                .entry(package.to_owned())
                .or_default()
                .insert(features);
        }
    }
    found
}

fn is_ours(name: &str) -> bool {
    name == "nowconnect" || name.starts_with("nowconnect-")
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(ToString::to_string).collect()
}

fn package(name: &str) -> &'static Package {
    let found = metadata()
        .workspace_packages()
        .into_iter()
        .find(|package| package.name.as_str() == name);
    found.unwrap_or_else(|| panic!("no package `{name}` in the workspace"))
}

/// The names of all packages that `name` is built from, itself among them: normal and build
/// dependencies with the features this workspace turns on, not those of tests.
fn reachable(name: &str) -> BTreeSet<String> {
    let graph: BTreeMap<&PackageId, Vec<&PackageId>> = metadata()
        .resolve
        .as_ref()
        .expect("cargo metadata resolves unless told not to")
        .nodes
        .iter()
        .map(|node| {
            let shipped = |dep: &&cargo_metadata::NodeDep| {
                dep.dep_kinds
                    .iter()
                    .any(|kind| kind.kind != DependencyKind::Development)
            };
            (
                &node.id,
                node.deps
                    .iter()
                    .filter(shipped)
                    .map(|dep| &dep.pkg)
                    .collect(),
            )
        })
        .collect();
    let mut seen = BTreeSet::new();
    let mut open = vec![&package(name).id];
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            open.extend(&graph[id]);
        }
    }
    seen.into_iter()
        .map(|id| metadata()[id].name.to_string())
        .collect()
}

/// Which packages of the workspace name `dependency` in their `Cargo.toml`.
fn importers(dependency: &str) -> Vec<&'static str> {
    let mut found: Vec<_> = metadata()
        .workspace_packages()
        .into_iter()
        .filter(|package| package.dependencies.iter().any(|d| d.name == dependency))
        .map(|package| package.name.as_str())
        .collect();
    found.sort_unstable();
    found
}
