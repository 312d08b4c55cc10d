//! `nowconnect config`: look at a configuration without starting anything.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::Exit;
use crate::config::{self, Env, ProcessEnv};
use crate::preflight;

/// Checks and shows configuration.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Check a file and what it names here: print every problem with its line, or what would be in
    /// effect
    ///
    /// Keys, certificates, lists, policies and plugins are read as a hub reads them at its start;
    /// nothing is bound or fetched.
    Check {
        /// The file; without it `NC_CONFIG`, then `$SERVICE_CONFIG_DIR/cloud.yaml`, then the
        /// built-in defaults
        file: Option<PathBuf>,
        /// Print nothing when all is right
        #[arg(short, long)]
        quiet: bool,
        /// Look at the file alone, such as on a machine that has none of what it names
        #[arg(long)]
        syntax_only: bool,
    },
    /// Print the JSON Schema of the file, for editors
    Schema,
    /// Print the built-in defaults as a file
    Defaults,
}

impl Command {
    /// Runs it with this process' environment, output to stdout and problems to stderr.
    #[must_use]
    pub fn run(self) -> Exit {
        self.run_with(
            &ProcessEnv,
            &mut io::stdout().lock(),
            &mut io::stderr().lock(),
        )
    }

    /// Runs it. Trouble with writing ends it with [`Exit::Failure`]: nobody is reading.
    pub fn run_with(self, env: &dyn Env, out: &mut dyn Write, problems: &mut dyn Write) -> Exit {
        let done = match self {
            Self::Check {
                file,
                quiet,
                syntax_only,
            } => check(
                file.as_deref(),
                Asked { quiet, syntax_only },
                env,
                out,
                problems,
            ),
            Self::Schema => out
                .write_all(config::json_schema().as_bytes())
                .map(|()| Exit::Success),
            Self::Defaults => defaults(out),
        };
        done.unwrap_or(Exit::Failure)
    }
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    quiet: bool,
    syntax_only: bool,
}

/// What to do about what is named and cannot be used.
const WAY_OUT: &str =
    "mend it, or check the file alone with `--syntax-only` where this machine lacks it";

fn check(
    file: Option<&Path>,
    asked: Asked,
    env: &dyn Env,
    out: &mut dyn Write,
    problems: &mut dyn Write,
) -> io::Result<Exit> {
    let loaded = match config::read(file, env) {
        Ok(loaded) => loaded,
        Err(error) => {
            writeln!(problems, "{error}")?;
            return Ok(Exit::Usage);
        }
    };
    if !asked.syntax_only {
        let unusable = preflight::unusable(&loaded.config);
        if !unusable.is_empty() {
            let found = unusable
                .into_iter()
                .map(|found| (found.key, found.message, WAY_OUT.to_owned()))
                .collect();
            let error = config::placed(found, loaded.config.source.as_deref(), env);
            writeln!(problems, "{error}")?;
            return Ok(Exit::Usage);
        }
    }
    for warning in loaded.config.warnings() {
        writeln!(problems, "warning: {warning}")?;
    }
    if asked.quiet {
        return Ok(Exit::Success);
    }
    match &loaded.config.source {
        Some(source) => writeln!(out, "# in effect: {} and the environment", source.display())?,
        None => writeln!(
            out,
            "# in effect: the built-in defaults and the environment"
        )?,
    }
    writeln!(out, "{}", loaded.shown().trim_end())?;
    writeln!(out, "#\n# memory for what peers send, by the limits above:")?;
    for line in loaded.config.memory_bound().to_string().lines() {
        writeln!(out, "# {line}")?;
    }
    Ok(Exit::Success)
}

fn defaults(out: &mut dyn Write) -> io::Result<Exit> {
    let nothing = std::collections::BTreeMap::new();
    match config::read(None, &nothing) {
        Ok(loaded) => {
            writeln!(out, "{}", loaded.shown().trim_end())?;
            Ok(Exit::Success)
        }
        Err(error) => {
            writeln!(out, "{error}")?;
            Ok(Exit::Failure)
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_right_file_is_shown_with_its_memory() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cloud.yaml");
        std::fs::write(
            &file,
            "limits: {max_agents: 7}\nha: {redis_url: 'redis://:pw@h'}\n",
        )
        .unwrap();
        let (exit, out, problems) = run(check_of(&file, false));
        assert_eq!(exit, Exit::Success);
        assert!(out.contains("max_agents: 7"), "{out}");
        assert!(out.contains("in the worst case"), "{out}");
        assert!(!out.contains(":pw@"), "{out}");
        assert!(problems.contains("warning: no issuer"), "{problems}");
        assert_eq!(run(check_of(&file, true)).1, "");
    }

    #[test]
    fn a_wrong_file_exits_with_usage_and_every_problem() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cloud.yaml");
        std::fs::write(&file, "limts: {}\ntunnel: {port: x}\n").unwrap();
        let (exit, out, problems) = run(check_of(&file, false));
        assert_eq!(exit, Exit::Usage);
        assert_eq!(out, "");
        assert!(problems.contains("did you mean `limits`?"), "{problems}");
        assert!(problems.contains("cloud.yaml:2:16"), "{problems}");
        assert!(problems.contains("2 problems"), "{problems}");
        assert_eq!(
            run(check_of(&folder.path().join("none"), false)).0,
            Exit::Usage
        );
    }

    #[test]
    fn defaults_and_schema_are_printed() {
        let (exit, out, _) = run(Command::Defaults);
        assert_eq!(exit, Exit::Success);
        let config = config::parse(&out, None, &BTreeMap::new()).unwrap();
        assert_eq!(config, config::CloudConfig::default());
        let (_, schema, _) = run(Command::Schema);
        assert!(serde_json::from_str::<serde_json::Value>(&schema).is_ok());
    }

    fn check_of(file: &Path, quiet: bool) -> Command {
        Command::Check {
            file: Some(file.to_path_buf()),
            quiet,
            syntax_only: false,
        }
    }

    /// Each kind of file, and the same with the file itself alone.
    #[test]
    fn what_the_file_names_is_read_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("policies")).unwrap();
        std::fs::write(
            at("policies/wrong.cedar"),
            "permit (principal, action, resouce);",
        )
        .unwrap();
        std::fs::write(at("broken.wasm"), "no component").unwrap();
        std::fs::write(at("hub.pem"), "no certificate").unwrap();
        std::fs::write(at("revoked.jsonl"), "no entry\n").unwrap();
        for (text, line, part) in [
            (
                "tunnel:\n  tls: {cert_file: hub.pem, key_file: hub.key}\n",
                2,
                "hub.",
            ),
            (
                "security:\n  revocation_file: revoked.jsonl\n",
                2,
                "revoked.jsonl",
            ),
            (
                "security:\n  issuers:\n    - {issuer: \"https://idp\", jwks_file: absent.json}\n",
                3,
                "absent.json",
            ),
            ("policy:\n  dir: policies\n", 2, "wrong.cedar"),
            ("policy:\n  dir: absent\n", 2, "absent"),
            (
                "plugins:\n  require_signature: false\n  list:\n    - {name: guard, file: broken.wasm}\n",
                4,
                "guard",
            ),
            ("plugins:\n  ca_bundle: absent.pem\n", 2, "absent.pem"),
        ] {
            let file = at("cloud.yaml");
            std::fs::write(&file, text).unwrap();
            let (exit, out, problems) = run(check_of(&file, false));
            assert_eq!((exit, out.as_str()), (Exit::Usage, ""), "{text}{problems}");
            assert!(problems.contains(part), "{text}{problems}");
            assert!(
                problems.contains(&format!("cloud.yaml:{line}:")),
                "{problems}"
            );
            assert!(problems.contains("--syntax-only"), "{problems}");
            let alone = Command::Check {
                file: Some(file),
                quiet: true,
                syntax_only: true,
            };
            let (exit, _, problems) = run(alone);
            assert_eq!(exit, Exit::Success, "{text}{problems}");
        }
    }

    fn run(command: Command) -> (Exit, String, String) {
        let (mut out, mut problems) = (Vec::new(), Vec::new());
        let exit = command.run_with(&BTreeMap::new(), &mut out, &mut problems);
        (
            exit,
            String::from_utf8(out).unwrap(),
            String::from_utf8(problems).unwrap(),
        )
    }
}
