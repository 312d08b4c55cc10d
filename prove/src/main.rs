//! `nowconnect-prove`: answers one task about policies with an SMT solver.
//!
//! It reads a [task](task::Task) in JSON from stdin and writes one line of JSON for each query
//! as it is answered, so that what was found before a limit ended it is not lost; the last line
//! is `{"done":true}`. It decides nothing and trusts nothing: which queries make up a proof, and
//! whether a counterexample holds, is for the hub's own engine to say.

mod answer;
mod solve;
mod task;

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use answer::Line;
use task::Task;

/// Bytes of a task: the largest bundle twice, with its quoting.
const TASK_BYTES: u64 = 128 * 1024 * 1024;

/// The task is not understood.
const BAD_TASK: u8 = 64;

/// There is no solver.
const NO_SOLVER: u8 = 69;

fn main() -> ExitCode {
    // A solver must not go on when nobody waits for it any more.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let mut text = String::new();
    let read = std::io::stdin()
        .lock()
        .take(TASK_BYTES)
        .read_to_string(&mut text);
    let task: Task = match read
        .map_err(|error| error.to_string())
        .and_then(|_| serde_json::from_str(&text).map_err(|error| error.to_string()))
    {
        Ok(task) => task,
        Err(error) => return refuse(BAD_TASK, &error),
    };
    if task.format != task::FORMAT {
        let message = format!("task format {}, this is {}", task.format, task::FORMAT);
        return refuse(BAD_TASK, &message);
    }
    lower(Resource::As, task.limits.memory_bytes);
    lower(Resource::Cpu, task.limits.cpu_seconds);
    lower(Resource::Core, 0);
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return refuse(1, &error.to_string()),
    };
    match runtime.block_on(solve::run(&task, &mut write)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(solve::Trouble::NoSolver(message)) => refuse(NO_SOLVER, &message),
        Err(solve::Trouble::Task(message)) => refuse(BAD_TASK, &message),
        // Nobody reads any more.
        Err(solve::Trouble::Gone) => ExitCode::FAILURE,
    }
}

/// Children inherit the limit.
fn lower(resource: Resource, to: u64) {
    let Rlimit { current, maximum } = getrlimit(resource);
    let lower = |was: Option<u64>| Some(was.map_or(to, |was| was.min(to)));
    let _ = setrlimit(
        resource,
        Rlimit {
            current: lower(current),
            maximum: lower(maximum),
        },
    );
}

fn write(line: &Line) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn refuse(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "nowconnect-prove: {message}");
    ExitCode::from(code)
}
