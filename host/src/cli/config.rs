//! `nowconnect config`: look at a configuration without starting anything.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::Exit;
use crate::config::{self, Env, ProcessEnv};

/// Checks and shows configuration.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Check a file: print every problem with its line, or what would be in effect
    Check {
        /// The file; without it `NC_CONFIG`, then `$SERVICE_CONFIG_DIR/cloud.yaml`, then the
        /// built-in defaults
        file: Option<PathBuf>,
        /// Print nothing when the file is right
        #[arg(short, long)]
        quiet: bool,
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
            Self::Check { file, quiet } => check(file.as_deref(), quiet, env, out, problems),
            Self::Schema => out
                .write_all(config::json_schema().as_bytes())
                .map(|()| Exit::Success),
            Self::Defaults => defaults(out),
        };
        done.unwrap_or(Exit::Failure)
    }
}

fn check(
    file: Option<&Path>,
    quiet: bool,
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
    for warning in loaded.config.warnings() {
        writeln!(problems, "warning: {warning}")?;
    }
    if quiet {
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
