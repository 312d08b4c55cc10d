#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::codes::CertificateCode;

const DAY_MS: u64 = 24 * HOUR_MS;
const NOW: u64 = 1_700_000_000_000;
const ALL: Bounds = Bounds {
    at_once: 10,
    per_hour: 100,
};

fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn book(wanted: &[&str]) -> Book {
    let mut book = Book::default();
    book.want(&names(wanted), NOW, 0.0, |_| None);
    book
}

fn life(days: u64) -> Life {
    Life {
        from_ms: NOW,
        until_ms: NOW + days * DAY_MS,
    }
}

fn trouble(retry_after: Option<Duration>) -> Trouble {
    Trouble {
        retry_after,
        ..Trouble::new(CertificateCode::AcmeRefused, "no")
    }
}

fn begun(book: &mut Book, now: u64, bounds: Bounds) -> Vec<String> {
    let begun = book.begin(now, bounds);
    begun.iter().map(ToString::to_string).collect()
}

#[test]
fn a_name_is_ordered_once_until_its_order_ends() {
    let mut book = book(&["a", "b"]);
    assert_eq!(begun(&mut book, NOW, ALL), ["a", "b"]);
    assert!(begun(&mut book, NOW, ALL).is_empty(), "single flight");
    book.ended("a");
    book.issued("a", life(90), None, NOW, 0.0);
    assert!(begun(&mut book, NOW, ALL).is_empty());
    assert_eq!(book.line("a").unwrap().due_ms, NOW + 60 * DAY_MS);
    assert_eq!(begun(&mut book, NOW + 60 * DAY_MS, ALL), ["a"]);
}

#[test]
fn a_name_with_a_certificate_of_earlier_asks_for_nothing() {
    let mut book = Book::default();
    let kept = |name: &str| (name == "a").then(|| life(90));
    book.want(&names(&["a", "b"]), NOW, 0.5, kept);
    assert_eq!(begun(&mut book, NOW, ALL), ["b"]);
    assert_eq!(
        book.line("a").unwrap().due_ms,
        NOW + 60 * DAY_MS - 36 * HOUR_MS,
        "spread over three days"
    );
}

#[test]
fn at_once_and_within_an_hour_only_so_many_are_begun() {
    let bounds = Bounds {
        at_once: 2,
        per_hour: 3,
    };
    let mut book = book(&["a", "b", "c", "d"]);
    assert_eq!(begun(&mut book, NOW, bounds), ["a", "b"]);
    assert_eq!(book.next_ms(bounds), None, "an end will tell");
    for name in ["a", "b"] {
        book.ended(name);
        book.issued(name, life(90), None, NOW, 0.0);
        while book.look(NOW).is_some() {}
    }
    assert_eq!(begun(&mut book, NOW + 5, bounds), ["c"]);
    assert!(begun(&mut book, NOW + 5, bounds).is_empty());
    assert_eq!(book.next_ms(bounds), Some(NOW + HOUR_MS));
    assert_eq!(begun(&mut book, NOW + HOUR_MS, bounds), ["d"]);
}

#[test]
fn those_without_come_before_those_that_end_later() {
    let mut book = Book::default();
    let kept = |name: &str| match name {
        "a" => Some(life(4)),
        "b" => Some(life(3)),
        _ => None,
    };
    let late = NOW + 4 * DAY_MS;
    book.want(&names(&["a", "b", "c"]), late, 0.0, kept);
    assert_eq!(begun(&mut book, late, ALL), ["c", "b", "a"]);
}

#[test]
fn pauses_grow_and_heed_what_the_authority_asks() {
    let mut book = book(&["a"]);
    let mut now = NOW;
    let mut pauses = Vec::new();
    for _ in 0..7 {
        assert_eq!(begun(&mut book, now, ALL), ["a"]);
        book.ended("a");
        book.failed("a", trouble(None), now, 0.0);
        let due = book.line("a").unwrap().due_ms;
        assert!(begun(&mut book, due - 1, ALL).is_empty());
        pauses.push((due - now) / MINUTE_MS);
        now = due;
    }
    assert_eq!(pauses, [1, 4, 16, 64, 256, 360, 360]);
    let day = Duration::from_secs(86_400);
    book.failed("a", trouble(Some(day)), now, 1.0);
    assert_eq!(book.line("a").unwrap().due_ms, now + DAY_MS);
    book.failed("a", trouble(None), now, 1.0);
    assert_eq!(book.line("a").unwrap().due_ms, now + 450 * MINUTE_MS);
    assert!(book.hasten("a", now) && !book.hasten("b", now));
    assert_eq!(begun(&mut book, now, ALL), ["a"]);
}

#[test]
fn a_renewal_that_fails_is_tried_often_enough_before_the_end() {
    let mut book = Book::default();
    let short = Life {
        from_ms: NOW,
        until_ms: NOW + 90 * MINUTE_MS,
    };
    book.want(&names(&["a"]), NOW, 0.0, |_| Some(short));
    let mut tries = 0;
    let mut now = book.line("a").unwrap().due_ms;
    while now < short.until_ms {
        tries += 1;
        book.failed("a", trouble(None), now, 1.0);
        now = book.line("a").unwrap().due_ms;
    }
    assert!(tries > 8, "{tries}");
}

#[test]
fn a_name_that_is_not_wanted_any_more_is_forgotten_even_under_way() {
    let bounds = Bounds {
        at_once: 1,
        per_hour: 9,
    };
    let mut book = book(&["a", "b"]);
    assert_eq!(begun(&mut book, NOW, bounds), ["a"]);
    book.want(&names(&["b"]), NOW, 0.0, |_| None);
    assert!(begun(&mut book, NOW, bounds).is_empty(), "it still runs");
    book.ended("a");
    book.issued("a", life(90), None, NOW, 0.0);
    assert!(book.line("a").is_none());
    assert_eq!(begun(&mut book, NOW, bounds), ["b"]);
}

#[test]
fn a_name_that_comes_back_waits_for_the_order_that_still_runs() {
    let mut book = book(&["a"]);
    assert_eq!(begun(&mut book, NOW, ALL), ["a"]);
    book.want(&names(&[]), NOW, 0.0, |_| None);
    book.want(&names(&["a"]), NOW, 0.0, |_| None);
    assert!(begun(&mut book, NOW, ALL).is_empty());
    book.ended("a");
    assert_eq!(begun(&mut book, NOW, ALL), ["a"]);
}

#[test]
fn the_authoritys_window_decides_when_it_is_renewed() {
    let mut book = Book::default();
    book.want(&names(&["a"]), NOW, 0.0, |_| Some(life(90)));
    assert_eq!(book.look(NOW).as_deref(), Some("a"));
    assert_eq!(book.look(NOW), None, "asked once");
    let window = Some((NOW + DAY_MS, NOW + 3 * DAY_MS));
    book.looked("a", window, Some(NOW + HOUR_MS), 0.5);
    assert_eq!(book.line("a").unwrap().due_ms, NOW + 2 * DAY_MS);
    assert_eq!(book.next_ms(ALL), Some(NOW + HOUR_MS));
    book.looked("a", Some((0, 0)), None, 0.5);
    assert_eq!(begun(&mut book, NOW, ALL), ["a"], "revoked: at once");
}

proptest! {
    /// Whatever happens, the bounds hold and no name is ordered twice at once.
    #[test]
    fn the_bounds_hold(steps in prop::collection::vec((0_u8..5, 0_u8..6, 0_u64..HOUR_MS), 1..200)) {
        let bounds = Bounds { at_once: 2, per_hour: 4 };
        let (mut book, mut now) = (Book::default(), NOW);
        let mut running: Vec<Arc<str>> = Vec::new();
        let mut starts: Vec<u64> = Vec::new();
        for (what, name, pause) in steps {
            let name = format!("n{name}");
            now += pause / 4;
            match what {
                0 => book.want(&names(&["n0", "n1", &name]), now, 0.3, |_| None),
                1 => { book.hasten(&name, now); }
                _ if running.is_empty() => {}
                2 => {
                    let name = running.remove(0);
                    book.ended(&name);
                    book.issued(&name, life(90), None, now, 0.3);
                }
                3 => {
                    let name = running.remove(0);
                    book.ended(&name);
                    book.failed(&name, trouble(None), now, 0.3);
                }
                _ => {}
            }
            let begun = book.begin(now, bounds);
            starts.extend(begun.iter().map(|_| now));
            running.extend(begun);
            prop_assert!(running.len() <= bounds.at_once);
            let hour = starts.iter().filter(|at| **at + HOUR_MS > now).count();
            prop_assert!(hour <= bounds.per_hour);
        }
    }
}
