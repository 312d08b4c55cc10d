//! What a staged set would do to what runs, without doing it.

use std::sync::Arc;

use nowconnect_policy::PolicyBundle;

use super::sessions::{AGENTS_PER_SLICE, question};
use super::{PAUSE, ends};
use crate::bundle::view::Forecast;
use crate::hub::Hub;

/// Asks the staged set about every running flow and every connected agent. What the set in force
/// denies as well is not its doing and is not counted.
pub(crate) async fn forecast(hub: &Arc<Hub>, staged: &PolicyBundle) -> Forecast {
    let config = hub.config();
    let mut found = Forecast {
        ends: ends(config.policy.on_swap) == Some(true),
        ..Forecast::default()
    };
    let generation = hub.generations().current();
    let live = generation.policies();
    let authorizer = hub.authorizer();
    let slice = usize::try_from(config.policy.recheck_batch)
        .unwrap_or(usize::MAX)
        .max(1);
    for (index, flow) in hub.flows().collect(|_| true).iter().enumerate() {
        if index > 0 && index % slice == 0 {
            tokio::time::sleep(PAUSE).await;
        }
        found.flows += 1;
        let forbidden = !authorizer.foresee_open(staged, &flow.question)
            && authorizer.foresee_open(live, &flow.question);
        found.flows_forbidden += u64::from(forbidden);
    }
    for (index, (tunnel, _)) in hub.router().tunnels().into_iter().enumerate() {
        if index > 0 && index % AGENTS_PER_SLICE == 0 {
            tokio::time::sleep(PAUSE).await;
        }
        found.agents += 1;
        let standing = tunnel.standing();
        let ask = question(&config, &tunnel, &standing);
        let Some(now) = authorizer.foresee_hello(live, &ask) else {
            continue;
        };
        match authorizer.foresee_hello(staged, &ask) {
            Some(then) => {
                let lost = now.iter().filter(|name| !then.contains(name)).count();
                found.connectors_lost += u64::try_from(lost).unwrap_or(u64::MAX);
            }
            None => found.agents_refused += 1,
        }
    }
    found
}
