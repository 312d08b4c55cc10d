//! Keeps what the HTTP ports read in step with the store.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use nowconnect_control::Control;
use nowconnect_store::{Endpoint, EndpointFilter, StoreError};
use parking_lot::Mutex;

use super::ground::Ground;
use super::published::{Published, PublishedNames};

/// Entries that are read in one go.
const PAGE: usize = 1000;

/// See the module.
pub(super) struct Names {
    published: Arc<PublishedNames>,
    ground: Arc<dyn Ground>,
    /// Names that could not be read when they changed; at most those that there are.
    unread: Mutex<BTreeSet<String>>,
}

impl Names {
    pub(super) fn new(published: Arc<PublishedNames>, ground: Arc<dyn Ground>) -> Self {
        Self {
            published,
            ground,
            unread: Mutex::default(),
        }
    }

    /// How many names are published.
    pub(super) fn count(&self) -> usize {
        self.published.count()
    }

    /// To be called after each change of a name in the store. Blocks on the disk.
    ///
    /// # Errors
    /// The store failed: then what was known stays until it is [read again](Self::retry).
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
        let done = self
            .published
            .refresh(&host, read, |changed| self.ground.changed(changed));
        let mut unread = self.unread.lock();
        match &done {
            Ok(()) => unread.remove(name),
            Err(_) => unread.insert(name.to_owned()),
        };
        done
    }

    /// Takes the name of a deleted endpoint out, whatever becomes of the disk.
    pub(super) fn forget(&self, control: &Control, endpoint: &Endpoint) {
        let host = control.host(&endpoint.name);
        // Another one may have the name by now.
        let others = || {
            let current = self.published.find(&host);
            let other = current.filter(|current| *current.id != *endpoint.id);
            Ok::<_, Infallible>(other.map(|other| Published::clone(&other)))
        };
        let done = self
            .published
            .refresh(&host, others, |changed| self.ground.changed(changed));
        match done {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    /// Reads again what could not be read. Blocks on the disk.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub(super) fn retry(&self, control: &Control) -> Result<(), StoreError> {
        let unread: Vec<String> = self.unread.lock().iter().cloned().collect();
        unread
            .iter()
            .try_for_each(|name| self.refresh(control, name))
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
