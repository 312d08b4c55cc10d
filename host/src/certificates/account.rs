//! The account at an authority: opened once, kept in the store.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use nowconnect_store::{AuthorityAccount, Store};
use tracing::info;

use super::client::{AuthorityClient, heeding_waits};
use super::trouble::Trouble;
use crate::codes::CertificateCode;
use crate::config::{AcmeConfig, ExternalAccount};
use crate::hub::now_ms;
use crate::telemetry::events;

/// The longest file with the key of an external account, in bytes.
const MAX_KEY_FILE_BYTES: u64 = 4096;

/// The account of this hub at the authority of `config`, made there if there is none.
///
/// # Errors
/// The authority cannot be reached or refuses, or the store fails.
pub(super) async fn open(config: &AcmeConfig, store: &Arc<Store>) -> Result<Account, Trouble> {
    heeding_waits(open_now(config, store)).await
}

/// Forgets an account that the authority does not know.
pub(super) async fn forget(config: &AcmeConfig, store: &Arc<Store>) -> Result<(), Trouble> {
    let directory = config.directory_url.to_string();
    in_store(store, move |store| store.remove_account(&directory))
        .await
        .map(drop)
}

async fn open_now(config: &AcmeConfig, store: &Arc<Store>) -> Result<Account, Trouble> {
    let client = AuthorityClient::new(config)?;
    let directory = config.directory_url.to_string();
    let kept = in_store(store, move |store| store.account(&directory)).await?;
    let builder = Account::builder_with_http(Box::new(client));
    let contact: Vec<&str> = config.contact.iter().map(String::as_str).collect();
    let Some(mut kept) = kept else {
        let external = match &config.external_account {
            Some(external) => Some(external_key(external)?),
            None => None,
        };
        let wanted = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = config.directory_url.to_string();
        let (account, credentials) = builder
            .create(&wanted, directory, external.as_ref())
            .await
            .map_err(Trouble::of)?;
        keep(config, store, &credentials).await?;
        info!(
            event = events::ACME_ACCOUNT_OPENED,
            directory = %config.directory_url,
            account = account.id(),
            "an account was opened at a certificate authority"
        );
        return Ok(account);
    };
    let credentials: AccountCredentials = serde_json::from_str(&kept.credentials)
        .map_err(|_| state_failed("the account in the state file cannot be read"))?;
    let account = builder
        .from_credentials(credentials)
        .await
        .map_err(Trouble::of)?;
    if kept.contact != config.contact {
        account
            .update_contacts(&contact)
            .await
            .map_err(Trouble::of)?;
        kept.contact.clone_from(&config.contact);
        in_store(store, move |store| store.put_account(&kept)).await?;
    }
    Ok(account)
}

async fn keep(
    config: &AcmeConfig,
    store: &Arc<Store>,
    credentials: &AccountCredentials,
) -> Result<(), Trouble> {
    let credentials = serde_json::to_string(credentials)
        .map_err(|_| state_failed("the account cannot be written down"))?;
    let account = AuthorityAccount {
        directory: config.directory_url.to_string(),
        contact: config.contact.clone(),
        credentials,
        made_ms: now_ms(),
    };
    in_store(store, move |store| store.put_account(&account)).await
}

fn external_key(external: &ExternalAccount) -> Result<ExternalAccountKey, Trouble> {
    let shown = external.hmac_key_file.display();
    let failed = |why: &str| {
        Trouble::new(
            CertificateCode::AcmeAccountRefused,
            format!("`ingress.acme.external_account.hmac_key_file` `{shown}`: {why}"),
        )
    };
    let read = || {
        let length = std::fs::metadata(&external.hmac_key_file)?.len();
        if length > MAX_KEY_FILE_BYTES {
            return Err(std::io::Error::other("it is too large"));
        }
        std::fs::read_to_string(&external.hmac_key_file)
    };
    let text = read().map_err(|error| failed(&error.to_string()))?;
    // Authorities print it with and without padding.
    let key = URL_SAFE_NO_PAD
        .decode(text.trim())
        .or_else(|_| URL_SAFE.decode(text.trim()))
        .map_err(|_| failed("it holds no base64url"))?;
    Ok(ExternalAccountKey::new(external.key_id.clone(), &key))
}

/// Runs what blocks on the disk.
pub(super) async fn in_store<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> Result<T, nowconnect_store::StoreError> + Send + 'static,
) -> Result<T, Trouble> {
    let store = Arc::clone(store);
    // One that failed before is opened anew first.
    let work = move || store.heal().and_then(|_| work(&store));
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(state_failed),
        Err(_) => Err(state_failed("the state file's thread panicked")),
    }
}

pub(super) fn state_failed(error: impl ToString) -> Trouble {
    Trouble::new(CertificateCode::AcmeStateFailed, error)
}
