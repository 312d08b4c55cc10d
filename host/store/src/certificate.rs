//! Accounts at certificate authorities, and the certificates that they issued, with their keys.

use serde::{Deserialize, Serialize};

use crate::schema::{ACCOUNTS, CERTIFICATES};
use crate::{Store, StoreError};

/// An account at an authority.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityAccount {
    /// The URL of the authority's directory.
    pub directory: String,
    /// Whom the authority may write to.
    pub contact: Vec<String>,
    /// Its key and name, in the form that the caller chose.
    pub credentials: String,
    /// When it was opened.
    pub made_ms: u64,
}

impl std::fmt::Debug for AuthorityAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorityAccount")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCertificate {
    /// The name that it is for.
    pub name: String,
    /// Who issued it.
    pub directory: String,
    /// The chain as PEM, leaf first.
    pub chain: String,
    /// The leaf's key as PEM.
    pub key: String,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
    /// When it was issued.
    pub issued_ms: u64,
}

impl std::fmt::Debug for IssuedCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedCertificate")
            .field("name", &self.name)
            .field("directory", &self.directory)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// The account at an authority.
    ///
    /// # Errors
    /// The store failed.
    pub fn account(&self, directory: &str) -> Result<Option<AuthorityAccount>, StoreError> {
        self.read(|transaction| ACCOUNTS.get(transaction, directory))
    }

    /// Keeps an account, in the place of an earlier one at the same authority.
    ///
    /// # Errors
    /// The store failed.
    pub fn put_account(&self, account: &AuthorityAccount) -> Result<(), StoreError> {
        self.write(|transaction| ACCOUNTS.open(transaction)?.put(&account.directory, account))
    }

    /// Forgets an account; `false` if there was none.
    ///
    /// # Errors
    /// The store failed.
    pub fn remove_account(&self, directory: &str) -> Result<bool, StoreError> {
        self.write(|transaction| ACCOUNTS.open(transaction)?.remove(directory))
    }

    /// Every certificate, by name.
    ///
    /// # Errors
    /// The store failed.
    pub fn certificates(&self) -> Result<Vec<IssuedCertificate>, StoreError> {
        let mut all = Vec::new();
        self.read(|transaction| {
            CERTIFICATES.each(transaction, None, |_, certificate: IssuedCertificate| {
                all.push(certificate);
                true
            })
        })?;
        Ok(all)
    }

    /// Keeps a certificate, in the place of an earlier one for the same name. Forgets those that
    /// have ended, and of more than `limit` those that end first.
    ///
    /// # Errors
    /// The store failed; then nothing has changed.
    pub fn put_certificate(
        &self,
        certificate: &IssuedCertificate,
        limit: usize,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = CERTIFICATES.open(transaction)?;
            table.put(&certificate.name, certificate)?;
            let mut others = Vec::new();
            table.each_of("", |name, other: IssuedCertificate| {
                if name != certificate.name {
                    others.push((other.not_after, name.to_owned()));
                }
                true
            })?;
            others.sort_unstable();
            let now = i64::try_from(certificate.issued_ms / 1000).unwrap_or(i64::MAX);
            let ended = others.partition_point(|(not_after, _)| *not_after <= now);
            let over = (others.len() + 1).saturating_sub(limit).min(others.len());
            for (_, name) in &others[..ended.max(over)] {
                table.remove(name)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::schema;

    fn account() -> AuthorityAccount {
        AuthorityAccount {
            directory: "https://authority.example/directory".to_owned(),
            contact: vec!["mailto:ops@example.com".to_owned()],
            credentials: "secret-of-the-account".to_owned(),
            made_ms: 5,
        }
    }

    fn certificate(name: &str, not_after: i64) -> IssuedCertificate {
        IssuedCertificate {
            name: name.to_owned(),
            directory: account().directory,
            chain: format!("chain of {name}"),
            key: "secret-of-the-key".to_owned(),
            not_after,
            issued_ms: 10_000,
        }
    }

    fn names(store: &Store) -> Vec<String> {
        let all = store.certificates().unwrap();
        all.into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn accounts_and_certificates_survive_in_a_backup() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("a"), folder.path().join("b"));
        let store = Store::open(&path).unwrap();
        store.put_account(&account()).unwrap();
        store.put_certificate(&certificate("shop", 90), 10).unwrap();
        store.backup(&copy).unwrap();
        assert!(store.remove_account(&account().directory).unwrap());
        assert!(!store.remove_account(&account().directory).unwrap());
        drop(store);
        Store::restore(&copy, &path).unwrap();
        let back = Store::open(&path).unwrap();
        assert_eq!(back.account(&account().directory).unwrap(), Some(account()));
        assert_eq!(back.account("https://other.example/").unwrap(), None);
        assert_eq!(back.certificates().unwrap(), [certificate("shop", 90)]);
    }

    #[test]
    fn what_has_ended_goes_and_then_what_ends_first() {
        let store = Store::in_memory().unwrap();
        for (name, not_after) in [("ended", 9), ("soon", 20), ("later", 30), ("latest", 40)] {
            store
                .put_certificate(&certificate(name, not_after), 3)
                .unwrap();
        }
        assert_eq!(names(&store), ["later", "latest", "soon"]);
        store.put_certificate(&certificate("new", 11), 3).unwrap();
        assert_eq!(names(&store), ["later", "latest", "new"]);
        store.put_certificate(&certificate("new", 50), 3).unwrap();
        assert_eq!(names(&store), ["later", "latest", "new"]);
    }

    #[test]
    fn a_file_of_an_earlier_release_gets_room_for_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let store = Store::open(&path).unwrap();
        store
            .write(|transaction| schema::set_version(transaction, 1))
            .unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(names(&store), [""; 0]);
        store.put_certificate(&certificate("shop", 90), 10).unwrap();
        assert_eq!(names(&store), ["shop"]);
    }

    #[test]
    fn keys_are_not_shown() {
        let shown = format!("{:?} {:?}", account(), certificate("shop", 90));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
