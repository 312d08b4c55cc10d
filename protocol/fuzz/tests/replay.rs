//! Seeds of the simulation and the kept corpus of every fuzz target.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use nowconnect_protocol_fuzz::{ALL, Choices, Outcome, run};

#[test]
fn no_seed_breaks_a_promise() {
    let mut sum = Outcome::default();
    for seed in 0..1_500 {
        let played = std::panic::catch_unwind(|| run(&mut Choices::from_seed(seed, 600)));
        let outcome = played.unwrap_or_else(|_| panic!("seed {seed} broke a promise"));
        sum.opened += outcome.opened;
        sum.finished += outcome.finished;
        sum.reset += outcome.reset;
        sum.cuts += outcome.cuts;
        sum.bytes += outcome.bytes;
    }
    // A simulation in which nothing happens proves nothing.
    assert!(
        sum.opened > 5_000 && sum.finished > 2_000 && sum.cuts > 2_000 && sum.bytes > 100_000_000,
        "{sum:?}"
    );
}

#[test]
fn the_corpus_holds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora");
    for (name, target) in ALL {
        let mut replayed = 0;
        let folder = root.join(name);
        for entry in std::fs::read_dir(&folder).expect("every target has a folder in the corpus") {
            target(
                &std::fs::read(entry.expect("a readable entry").path()).expect("a readable input"),
            );
            replayed += 1;
        }
        assert!(replayed > 0, "{name} has no corpus");
    }
}
