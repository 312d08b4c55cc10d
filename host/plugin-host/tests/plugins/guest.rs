//! Makes components of the texts in `tests/guests`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Every guest, by the module whose tests use it.
const TESTED: [(&str, &[&str]); 7] = [
    ("fetch", super::fetch::GUESTS),
    ("hooks", super::hooks::GUESTS),
    ("hostile", super::hostile::GUESTS),
    ("instances", super::instances::GUESTS),
    ("loading", super::loading::GUESTS),
    ("versions", super::versions::GUESTS),
    ("wasi", super::wasi::GUESTS),
];

const MEMORY: &str = r#"
  (memory (export "memory") 2)
  (global $heap (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param $old i32) (param i32) (param $align i32) (param $size i32)
      (result i32)
    (local $at i32)
    (local.set $at
      (i32.and
        (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (if (i32.gt_u (global.get $heap) (i32.shl (memory.size) (i32.const 16)))
      (then
        (if (i32.eq
              (memory.grow (i32.add (i32.shr_u (local.get $size) (i32.const 16)) (i32.const 1)))
              (i32.const -1))
          (then (unreachable)))))
    (local.get $at))
"#;

const LIFECYCLE: &str = r#"
  (func (export "nowconnect:plugin/lifecycle@VERSION#describe") (result i32) (i32.const 64))
  (func (export "nowconnect:plugin/lifecycle@VERSION#check-config") (param i32 i32) (result i32)
    (i32.const 64))
"#;

/// As much of WASI as the guests use.
const WASI: [&str; 5] = [
    "package wasi:io@0.2.0;
    interface error { resource error; }
    interface poll { resource pollable { block: func(); } }
    interface streams {
        use error.{error};
        variant stream-error { last-operation-failed(error), closed }
        resource output-stream {
            blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
        }
    }",
    "package wasi:cli@0.2.0;
    interface environment {
        get-environment: func() -> list<tuple<string, string>>;
        get-arguments: func() -> list<string>;
    }
    interface exit { exit: func(status: result); }
    interface stdout {
        use wasi:io/streams@0.2.0.{output-stream};
        get-stdout: func() -> output-stream;
    }",
    "package wasi:clocks@0.2.0;
    interface monotonic-clock {
        use wasi:io/poll@0.2.0.{pollable};
        subscribe-duration: func(when: u64) -> pollable;
    }",
    "package wasi:filesystem@0.2.0;
    interface types { resource descriptor; }
    interface preopens {
        use types.{descriptor};
        get-directories: func() -> list<tuple<descriptor, string>>;
    }",
    "package wasi:random@0.2.0;
    interface random { get-random-bytes: func(len: u64) -> list<u8>; }",
];

#[test]
fn every_guest_has_a_test() {
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wat"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let tested: BTreeSet<String> = TESTED
        .iter()
        .flat_map(|(_, guests)| *guests)
        .map(|guest| (*guest).to_owned())
        .collect();
    assert_eq!(files, tested);
    for (module, guests) in TESTED {
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/plugins/{module}.rs"));
        let source = fs::read_to_string(source).unwrap();
        for guest in guests {
            let uses = source.matches(&format!("\"{guest}\"")).count();
            assert!(
                uses >= 2,
                "`{guest}` is listed in {module}.rs and not used there"
            );
        }
    }
}

/// The component of that name.
pub(crate) fn component(name: &str) -> Arc<[u8]> {
    let text = fs::read_to_string(folder().join(format!("{name}.wat"))).unwrap();
    if text.starts_with(";; component:") {
        return wat::parse_str(&text).unwrap().into();
    }
    let (imports, rest): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with("(import"));
    let version = header(&text, "contract")
        .first()
        .copied()
        .unwrap_or("0.1.0");
    let lifecycle = if header(&text, "lifecycle").is_empty() {
        LIFECYCLE.replace("VERSION", version)
    } else {
        String::new()
    };
    let full = |name: &str| match name.split_once('@') {
        Some(_) if name.contains(':') => name.to_owned(),
        Some(_) => format!("nowconnect:plugin/{name}"),
        None => format!("nowconnect:plugin/{name}@{version}"),
    };
    let module = format!(
        "(module {}\n{MEMORY}{lifecycle}{}\n)",
        imports.join("\n"),
        rest.join("\n")
    );
    let mut module = wat::parse_str(&module).unwrap_or_else(|error| panic!("{name}: {error}"));

    let mut world = String::from("package test:guest;\nworld guest {\n");
    for import in header(&text, "imports") {
        world += &format!("  import {};\n", full(import));
    }
    for export in std::iter::once("lifecycle").chain(header(&text, "exports")) {
        world += &format!("  export {};\n", full(export));
    }
    world += "}\n";
    let mut resolve = Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    resolve.push_dir(wit.join("0.1")).unwrap();
    resolve.push_dir(wit.join("0.2")).unwrap();
    for wasi in WASI {
        resolve.push_str("wasi.wit", wasi).unwrap();
    }
    let package = resolve.push_str("guest.wit", &world).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| encoder.validate(true).encode())
        .unwrap_or_else(|error| panic!("{name}: {error:#}"))
        .into()
}

fn header<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let prefix = format!(";; {key}:");
    text.lines()
        .find_map(|line| line.strip_prefix(&prefix))
        .map(|names| names.split_whitespace().collect())
        .unwrap_or_default()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests")
}
