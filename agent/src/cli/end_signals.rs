//! What ends agents in the foreground: SIGTERM, Ctrl-C, and the end of their terminal.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// See the module.
pub(super) struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` leaves it as it is: ignored below `nohup`, which wants the process to stay, or
    /// deadly, where the system does not tell which.
    hang_up: Option<Signal>,
}

impl EndSignals {
    pub(super) fn take() -> io::Result<Self> {
        // Taking a signal would end its being ignored.
        let may_take = is_ignored(HANG_UP) == Some(false);
        let hang_up = may_take.then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up,
        })
    }

    /// Waits until somebody wants the end.
    pub(super) async fn next(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hang_up => {}
        }
    }
}

/// The number of SIGHUP, the same on every Unix.
const HANG_UP: u32 = 1;

/// Whether this process was started with the signal ignored, where the system tells.
fn is_ignored(number: u32) -> Option<bool> {
    ignored_in(&std::fs::read_to_string("/proc/self/status").ok()?, number)
}

/// The same by the text of `/proc/self/status` (proc_pid_status(5)).
fn ignored_in(status: &str, number: u32) -> Option<bool> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask >> number.checked_sub(1)? & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_told_from_others() {
        let status = |mask: &str| format!("Name:\tagent\nSigBlk:\t0000\nSigIgn:\t{mask}\n");
        assert_eq!(ignored_in(&status("0000000000001001"), HANG_UP), Some(true));
        assert_eq!(
            ignored_in(&status("0000000000001000"), HANG_UP),
            Some(false)
        );
        assert_eq!(ignored_in("Name:\tagent\n", HANG_UP), None);
        assert_eq!(ignored_in(&status("x"), HANG_UP), None);
    }
}
