//! How long names are kept: while an agent holds them, and for a time after.

use super::tables::Tables;
use super::{Endpoint, EndpointFilter};
use crate::schema::{ENDPOINT_ENDS, ENDPOINTS, end_after};
use crate::{Store, StoreError};

/// What is looked at when names whose time comes to its end are looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// What is over by now is over.
    pub now_ms: u64,
    /// What is over by then is kept for longer while its agent is here.
    pub due_ms: u64,
    /// Until then.
    pub until_ms: u64,
    /// Endpoints that are looked at in one step.
    pub limit: usize,
}

/// What came of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lapsed {
    /// Whose time was over, and whose agents were not here.
    pub gone: Vec<Endpoint>,
    /// Where the next step begins; `None` where all that is due was looked at.
    pub next: Option<String>,
}

impl Store {
    /// Lets the agent of an endpoint in with a token that counts once: true for the last one that
    /// was given out, the first time. The name is kept until then. `None` where the token does not
    /// count.
    ///
    /// # Errors
    /// The store failed.
    pub fn admit_endpoint(
        &self,
        id: &str,
        token_id: &str,
        until_ms: u64,
    ) -> Result<Option<Endpoint>, StoreError> {
        self.write(|transaction| {
            let mut tables = Tables::open(transaction)?;
            let Some(mut endpoint) = tables
                .by_id(id)?
                .filter(|endpoint| endpoint.token_id.as_deref() == Some(token_id))
            else {
                return Ok(None);
            };
            endpoint.token_id = None;
            endpoint.was_held = true;
            let until_ms = endpoint.kept_until_ms.max(until_ms);
            tables.keep_until(&mut endpoint, until_ms)?;
            Ok(Some(endpoint))
        })
    }

    /// One step of looking after the endpoints whose time comes to its end, the earliest first and
    /// after `after`: those whose agents are here are kept for longer, and of the others those go
    /// whose time is over. What is kept for long is not looked at, however many there are.
    ///
    /// # Errors
    /// The store failed; then none was changed.
    pub fn tidy_endpoints(
        &self,
        round: Round,
        after: Option<&str>,
        is_here: impl Fn(&Endpoint) -> bool,
    ) -> Result<Lapsed, StoreError> {
        let mut due: Vec<(String, String)> = Vec::new();
        let mut changing: Vec<(Endpoint, bool)> = Vec::new();
        self.read(|transaction| {
            let past = end_after(round.due_ms);
            ENDPOINT_ENDS.each(transaction, after, |at, name: String| {
                let is_due = at < past.as_str();
                if is_due {
                    due.push((at.to_owned(), name));
                }
                is_due && due.len() < round.limit
            })?;
            for (_, name) in &due {
                if let Some(endpoint) = ENDPOINTS.get::<Endpoint>(transaction, name)? {
                    let here = is_here(&endpoint);
                    if here || endpoint.kept_until_ms <= round.now_ms {
                        changing.push((endpoint, here));
                    }
                }
            }
            Ok(())
        })?;
        let mut step = Lapsed::default();
        if due.len() == round.limit {
            step.next = due.last().map(|(at, _)| at.clone());
        }
        if changing.is_empty() {
            return Ok(step);
        }
        self.write(|transaction| {
            let mut tables = Tables::open(transaction)?;
            for (seen, here) in changing {
                // Since the look it may have been kept for longer, or another one has the name.
                let now: Option<Endpoint> = tables.endpoints.get(&seen.name)?;
                let Some(mut endpoint) = now.filter(|now| *now == seen) else {
                    continue;
                };
                if here {
                    endpoint.was_held = true;
                    let until_ms = endpoint.kept_until_ms.max(round.until_ms);
                    tables.keep_until(&mut endpoint, until_ms)?;
                } else {
                    tables.take_away(&endpoint)?;
                    step.gone.push(endpoint);
                }
            }
            Ok(step)
        })
    }

    /// After time went by that this process has not seen, or the clock jumped: names that were
    /// held are kept until `until_ms` at least, and none for longer than `latest_ms`. Looks at
    /// every endpoint.
    ///
    /// # Errors
    /// The store failed.
    pub fn renew_endpoints(&self, until_ms: u64, latest_ms: u64) -> Result<(), StoreError> {
        /// Changed in one go, so that others get their turn.
        const PAGE: usize = 1000;
        let kept = |endpoint: &Endpoint| {
            let least = if endpoint.was_held { until_ms } else { 0 };
            endpoint.kept_until_ms.max(least).min(latest_ms)
        };
        let mut filter = EndpointFilter::default();
        loop {
            let page = self.endpoints(&filter, PAGE)?;
            if page.iter().any(|seen| kept(seen) != seen.kept_until_ms) {
                self.write(|transaction| {
                    let mut tables = Tables::open(transaction)?;
                    for seen in &page {
                        let now: Option<Endpoint> = tables.endpoints.get(&seen.name)?;
                        if let Some(mut endpoint) = now
                            && kept(&endpoint) != endpoint.kept_until_ms
                        {
                            let until_ms = kept(&endpoint);
                            tables.keep_until(&mut endpoint, until_ms)?;
                        }
                    }
                    Ok::<_, StoreError>(())
                })?;
            }
            match page.last() {
                Some(last) if page.len() == PAGE => filter.after = Some(last.name.clone()),
                _ => return Ok(()),
            }
        }
    }
}
