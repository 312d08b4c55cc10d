//! The way of a bundle from a folder to a hub's door, as people walk it.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::super::Command;
use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// A folder with policies, their cases, and keys.
struct Shop {
    dir: tempfile::TempDir,
}

impl Shop {
    fn new() -> Self {
        let shop = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
        for folder in ["policies", "policies/tests"] {
            std::fs::create_dir(shop.at(folder)).unwrap();
        }
        for (from, to) in [("", "policies"), ("tests", "policies/tests")] {
            for entry in std::fs::read_dir(policies.join(from)).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    std::fs::copy(entry.path(), shop.at(to).join(entry.file_name())).unwrap();
                }
            }
        }
        shop
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Runs a command line; words with a `./` in front are paths in the folder.
    fn run(&self, line: &str) -> (Exit, String, String) {
        let words = line
            .split_whitespace()
            .map(|word| match word.strip_prefix("./") {
                Some(path) => self.at(path).display().to_string(),
                None => word.to_owned(),
            });
        let words = std::iter::once("policy".to_owned()).chain(words);
        let command = Line::try_parse_from(words).unwrap().command;
        let (mut out, mut problems) = (Vec::new(), Vec::new());
        let env: BTreeMap<String, String> = BTreeMap::new();
        let exit = command.run_with(&env, &mut out, &mut problems);
        (
            exit,
            String::from_utf8(out).unwrap(),
            String::from_utf8(problems).unwrap(),
        )
    }

    fn done(&self, line: &str) -> String {
        let (exit, out, problems) = self.run(line);
        assert_eq!((exit, problems.as_str()), (Exit::Success, ""), "{line}");
        out
    }

    fn refused(&self, line: &str, exit: Exit, why: &str) {
        let (found, out, problems) = self.run(line);
        assert_eq!(found, exit, "{line}: {out}{problems}");
        assert!(problems.contains(why), "{line}: {problems}");
    }
}

#[test]
fn a_folder_becomes_a_bundle_that_a_hub_would_take() {
    let shop = Shop::new();
    let keys = shop.done("keygen ./release.key");
    assert!(keys.contains("trust ed25519:"), "{keys}");
    let built = shop.done(
        "build ./policies --out ./b.tar --revision 7 --not-after 2999-01-01T00:00:00Z \
         --min-hub 0.1.0",
    );
    assert!(built.starts_with("built: revision 7, "), "{built}");
    shop.refused(
        "verify ./b.tar --trust ./release.key.pub",
        Exit::Failure,
        "bundle_unsigned",
    );
    shop.done("sign ./b.tar --key ./release.key");
    let good = shop.done("verify ./b.tar --trust ./release.key.pub");
    assert!(good.starts_with("good: revision 7, "), "{good}");
    assert!(good.contains("until 2999-01-01T00:00:00Z"), "{good}");
    shop.done("check ./b.tar");
    assert!(shop.done("test ./b.tar --quiet").ends_with(" 0 failed\n"));
    let shown = shop.done("inspect ./b.tar");
    for part in [
        "revision    7\n",
        "needs hub   0.1.0",
        "core schema 2",
        "  policies/open.cedar",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&shop.done("inspect ./b.tar --json")).unwrap();
    assert_eq!(json["manifest"]["revision"], 7);
    assert!(json["policies"].as_array().unwrap().len() > 10);
    // The same as files below a folder.
    shop.done("build ./policies --out ./b --revision 7");
    shop.done("sign ./b --key ./release.key");
    shop.done("verify ./b --trust ./release.key.pub");
    std::fs::write(shop.at("b/policies/open.cedar"), "").unwrap();
    shop.refused(
        "verify ./b --trust ./release.key.pub",
        Exit::Failure,
        "bundle_digest_mismatch",
    );
}

#[test]
fn two_people_can_be_needed() {
    let shop = Shop::new();
    shop.done("keygen ./a.key");
    shop.done("keygen ./b.key");
    shop.done("build ./policies --out ./x.tar --revision 1");
    shop.done("sign ./x.tar --key ./a.key");
    let both = "verify ./x.tar --trust ./a.key.pub --trust ./b.key.pub --signers 2";
    shop.refused(both, Exit::Failure, "bundle_untrusted_key");
    shop.refused(
        "verify ./x.tar --trust ./b.key.pub",
        Exit::Failure,
        "bundle_untrusted_key",
    );
    shop.done("sign ./x.tar --key ./b.key");
    shop.done(both);
}

#[test]
fn a_secret_key_is_for_its_owner_and_never_shown() {
    let shop = Shop::new();
    let shown = shop.done("keygen ./a.key");
    let secret = std::fs::read_to_string(shop.at("a.key")).unwrap();
    assert!(!shown.contains(secret.trim().rsplit(':').next().unwrap()));
    shop.refused("keygen ./a.key", Exit::Usage, "a.key");
    assert_eq!(std::fs::read_to_string(shop.at("a.key")).unwrap(), secret);
    shop.done("build ./policies --out ./x.tar --revision 1");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(shop.at("a.key"), permissions).unwrap();
        };
        let found = std::fs::metadata(shop.at("a.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(found & 0o777, 0o600);
        mode(0o640);
        shop.refused("sign ./x.tar --key ./a.key", Exit::Usage, "chmod 600");
        mode(0o600);
    }
    shop.refused("sign ./x.tar --key ./a.key.pub", Exit::Usage, "");
    shop.done("sign ./x.tar --key ./a.key");
}

#[test]
fn what_is_wrong_is_not_built_and_never_written_over() {
    let shop = Shop::new();
    shop.done("build ./policies --out ./x.tar --revision 1");
    shop.refused(
        "build ./policies --out ./x.tar --revision 2",
        Exit::Usage,
        "is there already",
    );
    shop.refused(
        "build ./gone --out ./y.tar --revision 2",
        Exit::Usage,
        "gone",
    );
    shop.refused(
        "build ./policies --out ./y.tar --revision 2 --min-hub next",
        Exit::Usage,
        "`--min-hub`",
    );
    std::fs::write(shop.at("policies/open.cedar"), "permit").unwrap();
    shop.refused(
        "build ./policies --out ./y.tar --revision 2",
        Exit::Failure,
        "bundle_invalid",
    );
    std::fs::remove_file(shop.at("policies/open.cedar")).unwrap();
    shop.refused(
        "build ./policies --out ./y.tar --revision 2",
        Exit::Failure,
        "bundle_tests_failed",
    );
    assert!(!shop.at("y.tar").exists());
    shop.refused("verify ./gone.tar --trust ./x", Exit::Usage, "cannot read");
    std::fs::write(shop.at("no.tar"), "no tar").unwrap();
    shop.refused("inspect ./no.tar", Exit::Failure, "bundle_malformed");
    shop.refused("inspect ./gone.tar", Exit::Usage, "bundle_unreadable");
}
