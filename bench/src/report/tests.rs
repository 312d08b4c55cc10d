#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;

#[test]
fn medians_leave_out_what_is_not_a_number() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![f64::NAN]), None);
    assert_eq!(median(vec![3.0, f64::NAN, 1.0]), Some(2.0));
    assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
}

#[test]
fn ratios_are_taken_within_a_round() {
    // Twice as fast in each round, though the second round was ten times slower for both.
    let rounds = [
        round(&[("haproxy2", 100.0), ("nowconnect", 200.0)]),
        round(&[("haproxy2", 10.0), ("nowconnect", 20.0)]),
        round(&[("nowconnect", 999.0)]),
    ];
    let values = values(&rounds);
    let value = values["nowconnect"]["down1.mb_s"];
    assert_eq!(value.to_haproxy2, Some(2.0));
    assert_eq!(value.median, 200.0);
    assert_eq!((value.min, value.max), (20.0, 999.0));
    assert_eq!(value.to_direct, None);
}

#[test]
fn targets_are_met_missed_or_not_measured() {
    let rounds = [round(&[("haproxy2", 100.0), ("nowconnect", 99.0)])];
    let product = Figures::from([("swap.errors".to_owned(), 0.0)]);
    let report = Report::new(
        MachineCard::read(),
        "quick",
        &rounds,
        product,
        BTreeMap::new(),
        BTreeSet::new(),
    );
    let met = |title: &str| {
        let target = report.targets.iter().find(|target| target.figure == title);
        target.unwrap().met
    };
    assert_eq!(met("bulk, 1 flow down"), Some(false));
    assert_eq!(met("bulk, 1 flow up"), None);
    assert_eq!(met("errors while generations swap under load"), Some(true));

    let text = report.markdown();
    assert!(text.contains("| bulk, 1 flow down | ≥ 1 × two HAProxies | 0.99 | **missed** |"));
    assert!(text.contains("| haproxy2 | 100 (1.00) |"));
}

#[test]
fn a_missed_target_says_where_the_time_goes() {
    let product = |call: f64| {
        let report = Report::new(
            MachineCard::read(),
            "quick",
            &[],
            Figures::from([
                ("plugin_call.rust_1_p50_us".to_owned(), call),
                ("plugin_call.rust_1_instance_p50_us".to_owned(), 7.0),
            ]),
            BTreeMap::new(),
            BTreeSet::new(),
        );
        report.markdown()
    };
    let account = "- a Rust plugin's call in a fresh instance, p50: \
                   plugin_call.rust_1_p50_us 12.0; plugin_call.rust_1_instance_p50_us 7.00\n";
    assert!(product(12.0).contains(account), "{}", product(12.0));
    assert!(!product(9.0).contains("where it goes"));
}

#[test]
fn a_target_and_its_parts_are_of_one_part_of_the_run() {
    for target in TARGETS {
        let group = target.figure.split('.').next();
        for part in target.parts {
            assert_eq!(part.split('.').next(), group, "{}", target.title);
            assert_ne!(*part, target.figure);
        }
    }
}

fn round(rates: &[(&str, f64)]) -> Round {
    let kinds = PeerKind::ALL;
    rates
        .iter()
        .map(|(name, rate)| {
            let kind = kinds.iter().find(|kind| kind.name() == *name).unwrap();
            (*kind, Figures::from([("down1.mb_s".to_owned(), *rate)]))
        })
        .collect()
}
