//! Covering values in log records.
//!
//! Plugins only name what to cover; the host covers it. So a masker cannot write into the log,
//! and where it fails the host knows what to do without it: everything that it might have wanted
//! covered goes.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::answer::Masked;
use crate::call::{Failure, call};
use crate::facts::{CallInfo, LogEntry};
use crate::hook::CallOutcome;
use crate::plugin::Plugin;
use crate::spec::Mode;
use crate::wire;

/// Records in one call.
const BATCH_ENTRIES_MAX: usize = 256;
/// Bytes of text in one call, so that a batch of large records fits a guest's memory.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// What stands in place of an erased value.
const ERASED: &str = "***";

pub(crate) async fn mask(chain: &[Arc<Plugin>], entries: &mut [LogEntry]) -> Masked {
    let mut total = Masked::default();
    if chain.is_empty() {
        return total;
    }
    let mut rest = entries;
    while !rest.is_empty() {
        let (batch, later) = rest.split_at_mut(batch_length(rest));
        for plugin in chain {
            match mask_batch(plugin, batch).await {
                Ok(covered) => total.covered += covered,
                Err(_) if plugin.spec.mode == Mode::Shadow => {}
                Err(_) => {
                    total.erased_by_failure = true;
                    batch.iter_mut().for_each(erase_values);
                    break;
                }
            }
        }
        rest = later;
    }
    total
}

fn batch_length(entries: &[LogEntry]) -> usize {
    let mut bytes = 0;
    let fitting = entries
        .iter()
        .take(BATCH_ENTRIES_MAX)
        .take_while(|entry| {
            bytes += entry_bytes(entry);
            bytes <= BATCH_BYTES_MAX
        })
        .count();
    // A single record over the bound goes alone, and fails alone.
    fitting.max(1)
}

fn entry_bytes(entry: &LogEntry) -> usize {
    let fields: usize = entry
        .fields
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    entry.target.len() + entry.message.len() + fields
}

async fn mask_batch(plugin: &Arc<Plugin>, batch: &mut [LogEntry]) -> Result<usize, Failure> {
    let info = CallInfo::default();
    let entries = batch.len();
    let question = wire::AskMask(&info, batch);
    let masks = call(plugin, question, |masks: Vec<wire::Mask>| {
        let outside = masks.iter().any(|mask| mask.entry as usize >= entries);
        if outside {
            return Err(Failure::bad_output("it masks an entry outside the batch"));
        }
        Ok((masks, CallOutcome::Ok))
    })
    .await?;
    if plugin.spec.mode == Mode::Shadow {
        return Ok(0);
    }
    let key = &plugin.engine.hash_key;
    Ok(masks
        .iter()
        .map(|mask| apply(key, &mut batch[mask.entry as usize], mask))
        .sum())
}

/// Covers what one mask names; several fields may have that name.
fn apply(key: &[u8; 32], entry: &mut LogEntry, mask: &wire::Mask) -> usize {
    let Some(wanted) = &mask.field else {
        cover(key, &mut entry.message, mask.cover);
        return 1;
    };
    let mut covered = 0;
    for (name, value) in &mut entry.fields {
        if name == wanted {
            cover(key, value, mask.cover);
            covered += 1;
        }
    }
    covered
}

fn cover(key: &[u8; 32], value: &mut String, cover: wire::Cover) {
    *value = match cover {
        wire::Cover::Erase => ERASED.to_owned(),
        wire::Cover::Hash => hashed(key, value),
        wire::Cover::KeepLast(kept) => keep_last(value, usize::from(kept)),
    };
}

/// Without the key, an address could be found by hashing all of them.
fn hashed(key: &[u8; 32], value: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(key);
    hash.update(value);
    let digest: [u8; 32] = hash.finalize().into();
    let short = digest
        .iter()
        .take(8)
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    format!("hash:{short}")
}

/// At least half of the value goes: the last four of a four-digit number are all of it.
fn keep_last(value: &str, kept: usize) -> String {
    let length = value.chars().count();
    let kept = kept.min(length / 2);
    value
        .chars()
        .skip(length - kept)
        .fold(ERASED.to_owned(), |mut text, c| {
            text.push(c);
            text
        })
}

fn erase_values(entry: &mut LogEntry) {
    ERASED.clone_into(&mut entry.message);
    for (_, value) in &mut entry.fields {
        ERASED.clone_into(value);
    }
}

#[cfg(test)]
mod tests {
    use super::{BATCH_ENTRIES_MAX, batch_length, cover, hashed, keep_last};
    use crate::facts::{Level, LogEntry};
    use crate::wire::Cover;

    #[test]
    fn covers_take_away() {
        let mut value = "secret".to_owned();
        cover(&[0; 32], &mut value, Cover::Erase);
        assert_eq!(value, "***");
        assert_eq!(keep_last("1234567890", 4), "***7890");
        assert_eq!(
            keep_last("1234", 4),
            "***34",
            "never more than half is kept"
        );
        assert_eq!(keep_last("", 4), "***");
    }

    #[test]
    fn hashes_are_equal_for_equal_values_under_one_key() {
        assert_eq!(hashed(&[1; 32], "a"), hashed(&[1; 32], "a"));
        assert_ne!(hashed(&[1; 32], "a"), hashed(&[1; 32], "b"));
        assert_ne!(hashed(&[1; 32], "a"), hashed(&[2; 32], "a"));
    }

    #[test]
    fn batches_are_bounded_in_number_and_bytes() {
        let small = vec![entry(10); 1_000];
        assert_eq!(batch_length(&small), BATCH_ENTRIES_MAX);
        let large = vec![entry(600 * 1024); 3];
        assert_eq!(batch_length(&large), 1);
        let huge = vec![entry(5 * 1024 * 1024)];
        assert_eq!(batch_length(&huge), 1);
    }

    fn entry(bytes: usize) -> LogEntry {
        LogEntry {
            level: Level::Info,
            target: String::new(),
            message: "x".repeat(bytes),
            fields: Vec::new(),
        }
    }
}
