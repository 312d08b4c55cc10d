//! Keeps what the HTTP ports read in step with the store.

use std::sync::Arc;

use nowconnect_control::Control;
use nowconnect_store::{EndpointFilter, StoreError};

use super::ground::Ground;
use super::published::{Published, PublishedNames};

/// Entries that are read in one go.
const PAGE: usize = 1000;

/// See the module.
pub(super) struct Names {
    published: Arc<PublishedNames>,
    ground: Arc<dyn Ground>,
}

impl Names {
    pub(super) fn new(published: Arc<PublishedNames>, ground: Arc<dyn Ground>) -> Self {
        Self { published, ground }
    }

    /// To be called after each change of a name in the store. Blocks on the disk.
    ///
    /// # Errors
    /// The store failed: then what was known stays until it is read again.
    pub(super) fn refresh(&self, control: &Control, name: &str) -> Result<(), StoreError> {
        let host = control.host(name);
        let read = || {
            let store = control.store();
            let Some(endpoint) = store.endpoint(name)? else {
                return Ok(None);
            };
            let reserved = store
                .reservation(name)?
                .is_some_and(|reserved| reserved.tenant == endpoint.tenant);
            Ok(Published::of(&endpoint, &host, reserved))
        };
        self.published
            .refresh(&host, read, |changed| self.ground.changed(changed))
    }

    /// Reads every name, and what is known of names that are gone. Blocks on the disk.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub(super) fn refresh_all(&self, control: &Control) -> Result<(), StoreError> {
        let mut filter = EndpointFilter::default();
        loop {
            let page = control.list(&filter, PAGE)?;
            for endpoint in &page {
                self.refresh(control, &endpoint.name)?;
            }
            match page.last() {
                Some(last) if page.len() == PAGE => filter.after = Some(last.name.clone()),
                _ => break,
            }
        }
        for published in self.published.all() {
            self.refresh(control, &published.name)?;
        }
        Ok(())
    }
}
