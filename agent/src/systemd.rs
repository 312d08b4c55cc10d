//! The service manager: told when the agent runs, how it fares and when it stops. Without
//! `NOTIFY_SOCKET` all of this does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::state::{AgentState, Phase};

/// The agent's config holds and its ports are bound. A hub that is away is no reason to keep a
/// machine's boot waiting, so this does not wait for the tunnel; the status line tells of it.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The agent is on its way out.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
pub(crate) fn status(state: &AgentState) {
    notify(&[NotifyState::Status(&status_line(state))]);
}

/// How often the watchdog must hear from us: half of what it waits. `None` without a watchdog.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| (limit / 2).max(Duration::from_millis(100)))
}

/// Tells the watchdog that the agent's loop turns.
pub(crate) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not reached");
    }
}

fn status_line(state: &AgentState) -> String {
    match state.phase {
        Phase::Connecting => match &state.problem {
            Some(problem) => format!("connecting; last problem: {problem}"),
            None => "connecting".to_owned(),
        },
        Phase::Ready => format!(
            "ready; {} connectors accepted, {} refused",
            state.accepted.len(),
            state.refused.len()
        ),
        Phase::Stopping => "stopping".to_owned(),
        Phase::Stopped => "stopped".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_names_the_problem() {
        let mut state = AgentState {
            problem: Some("hub refused the upgrade: 401".to_owned()),
            ..AgentState::default()
        };
        assert_eq!(
            status_line(&state),
            "connecting; last problem: hub refused the upgrade: 401"
        );
        state.phase = Phase::Ready;
        assert_eq!(
            status_line(&state),
            "ready; 0 connectors accepted, 0 refused"
        );
    }
}
