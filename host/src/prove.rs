//! The way to `nowconnect-prove`, the program that proves what policies do.
//!
//! It is a program of its own, with limits on memory and time that hold for its solver too, and
//! it may be missing. What it does not answer, whatever happens to it, counts as not proved. The
//! hub never waits for it on the way of a request.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nowconnect_policy::{Diagnostics, Proof, ProofLimits, ProofReport, SourceFile, Sources};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

/// The program's name, beside this one or on `PATH`.
const PROGRAM: &str = "nowconnect-prove";

/// Names the program where it is elsewhere.
const VARIABLE: &str = "NOWCONNECT_PROVE";

/// Bytes of its answers: a counterexample has a few KiB, and most queries have none.
const OUTPUT_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of what it complains about.
const COMPLAINT_BYTES: u64 = 16 * 1024;

/// It was given a task that it does not understand; it says so with this exit code.
const BAD_TASK: i32 = 64;

/// It has no solver; it says so with this exit code.
const NO_SOLVER: i32 = 69;

/// Nothing could be proved, because nothing could be asked.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The policies themselves are wrong.
    #[error("{0}")]
    Policies(Diagnostics),
    /// The program is missing.
    #[error(
        "`{}` is not installed: `make prover` builds it; put it beside `nowconnect`, or name it \
         in {}",
        PROGRAM,
        VARIABLE
    )]
    NoProgram,
    /// The program has no solver.
    #[error("{0}")]
    NoSolver(String),
    /// The program is of another version, or broken.
    #[error("`{program}` failed: {complaint}")]
    Failed {
        /// The program.
        program: String,
        /// What it said.
        complaint: String,
    },
}

impl ProveError {
    /// Whether something has to be installed.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::NoProgram | Self::NoSolver(_) => true,
            Self::Policies(_) | Self::Failed { .. } => false,
        }
    }
}

/// Proves what the step from one set of policies to another lets in and denies.
///
/// # Errors
/// Where nothing could be asked. Whatever is merely not proved is in the report.
pub async fn compare(
    active: &Sources,
    staged: &Sources,
    limits: ProofLimits,
) -> Result<ProofReport, ProveError> {
    let (active, staged) = (active.clone(), staged.clone());
    prove(limits, move || Proof::of_change(&active, &staged)).await
}

/// Proves what must hold of one set: its policies never fail, its assertions hold.
///
/// # Errors
/// As [`compare`].
pub async fn check(
    sources: &Sources,
    assertions: &[SourceFile],
    limits: ProofLimits,
) -> Result<ProofReport, ProveError> {
    let (sources, assertions) = (sources.clone(), assertions.to_vec());
    prove(limits, move || Proof::of_set(&sources, &assertions)).await
}

async fn prove(
    limits: ProofLimits,
    make: impl FnOnce() -> Result<Proof, Diagnostics> + Send + 'static,
) -> Result<ProofReport, ProveError> {
    let made = tokio::task::spawn_blocking(move || {
        let proof = make()?;
        let task = proof.task(limits);
        Ok::<_, Diagnostics>((proof, task))
    });
    let (proof, task) = made
        .await
        .map_err(|_| failed("the policy compiler", "it panicked; please report this"))?
        .map_err(ProveError::Policies)?;
    let (output, missing) = match task {
        None => (String::new(), String::new()),
        Some(task) => ask(&find()?, task, limits).await?,
    };
    tokio::task::spawn_blocking(move || proof.report(&output, &missing))
        .await
        .map_err(|_| failed("the policy engine", "it panicked; please report this"))
}

fn failed(program: &str, complaint: &str) -> ProveError {
    ProveError::Failed {
        program: program.to_owned(),
        complaint: complaint.to_owned(),
    }
}

fn find() -> Result<PathBuf, ProveError> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        return Ok(PathBuf::from(named));
    }
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(PROGRAM))
        .find(|program| program.is_file())
        .ok_or(ProveError::NoProgram)
}

/// The answers, and why there are no more of them.
async fn ask(
    program: &Path,
    task: String,
    limits: ProofLimits,
) -> Result<(String, String), ProveError> {
    let name = program.display().to_string();
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // With its solver it is one group, which ends as one.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                ProveError::NoProgram
            } else {
                failed(&name, &error.to_string())
            }
        })?;
    let mut group = Group::of(&child);
    let (mut output, mut complaint) = (Vec::new(), Vec::new());
    let wait = talk(&mut child, task, &mut output, &mut complaint);
    let limit = Duration::from_millis(limits.total_ms);
    let ended = tokio::time::timeout(limit, wait).await;
    let output = String::from_utf8_lossy(&output).into_owned();
    let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
    let status = match ended {
        Ok(Ok(status)) => {
            group.ended();
            status
        }
        Ok(Err(error)) => return Err(failed(&name, &error.to_string())),
        Err(_) => {
            let missing = format!("no answer within {} s", limit.as_secs());
            return Ok((output, missing));
        }
    };
    match status.code() {
        Some(0) => Ok((output, "the prover gave no answer".to_owned())),
        Some(NO_SOLVER) => Err(ProveError::NoSolver(
            complaint
                .trim_start_matches("nowconnect-prove: ")
                .to_owned(),
        )),
        Some(BAD_TASK) => Err(failed(&name, &complaint)),
        Some(_) | None => Ok((
            output,
            format!("the prover broke off ({status}) {complaint}"),
        )),
    }
}

async fn talk(
    child: &mut Child,
    task: String,
    output: &mut Vec<u8>,
    complaint: &mut Vec<u8>,
) -> std::io::Result<ExitStatus> {
    let (input, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut input) = input {
            // Who breaks off before it has read all, says why by its exit code.
            let _ = input.write_all(task.as_bytes()).await;
        }
    };
    let (_, out, err) = tokio::join!(
        write,
        read(out, OUTPUT_BYTES, output),
        read(err, COMPLAINT_BYTES, complaint)
    );
    out.and(err)?;
    child.wait().await
}

async fn read(
    from: Option<impl AsyncRead + Unpin>,
    bytes: u64,
    to: &mut Vec<u8>,
) -> std::io::Result<()> {
    match from {
        Some(from) => from.take(bytes).read_to_end(to).await.map(drop),
        None => Ok(()),
    }
}

/// Kills the program with its solver, unless it has ended.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    /// It was waited for: its id may be somebody else's from now on.
    fn ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // It may have ended in this moment, which is just as well.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests;
