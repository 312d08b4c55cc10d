#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::super::status::tests::{agent_status, snapshot};
use super::*;
use crate::admin::view::FlowStatus;

#[test]
fn the_busiest_agent_stands_on_top() {
    let mut frame = Frame::new(View::Agents, Order::Bytes);
    let start = Instant::now();
    let look = |quiet: u64, busy: u64| {
        let mut seen = snapshot("quiet");
        let mut other = agent_status("busy");
        seen.agents[0].bytes_c2a = quiet;
        seen.agents[0].flows = 9;
        other.bytes_c2a = busy;
        seen.agents.push(other);
        seen
    };
    frame.update(look(5_000_000, 0), Vec::new(), start);
    frame.update(
        look(5_000_000, 4_000_000),
        Vec::new(),
        start + Duration::from_secs(2),
    );
    let text = frame.render(Size::UNBOUNDED);
    assert!(text.contains("2.0 MB/s"), "{text}");
    assert!(text.find("busy") < text.find("quiet"), "{text}");
    frame.order = Order::Flows;
    let text = frame.render(Size::UNBOUNDED);
    assert!(text.find("quiet") < text.find("busy"), "{text}");
    frame.order = Order::Name;
    let text = frame.render(Size::UNBOUNDED);
    assert!(text.find("busy") < text.find("quiet"), "{text}");
}

#[test]
fn a_session_that_began_anew_has_no_rate_of_the_old_one() {
    let mut frame = Frame::new(View::Agents, Order::Bytes);
    let start = Instant::now();
    frame.update(snapshot("dc1"), Vec::new(), start);
    let mut anew = snapshot("dc1");
    anew.agents[0].session += 1;
    anew.agents[0].bytes_c2a = 900_000_000;
    frame.update(anew, Vec::new(), start + Duration::from_secs(1));
    let text = frame.render(Size::UNBOUNDED);
    assert!(!text.contains("900 MB/s"), "{text}");
}

#[test]
fn the_screen_is_never_larger_than_the_terminal() {
    let mut frame = Frame::new(View::Flows, Order::Bytes);
    let flows: Vec<FlowStatus> = (0..100).map(flow).collect();
    frame.update(snapshot("dc1"), flows, Instant::now());
    let size = Size {
        lines: 12,
        columns: 40,
    };
    let text = frame.render(size);
    assert_eq!(text.lines().count(), 12);
    assert!(text.lines().all(|line| line.chars().count() <= 40));
    assert!(text.ends_with("b by by\n") || text.contains("q quit"));
}

#[test]
fn a_hub_that_is_away_is_said_above_the_last_news() {
    let mut frame = Frame::new(View::Listeners, Order::Bytes);
    assert!(frame.render(Size::UNBOUNDED).contains("looking"));
    frame.update(snapshot("dc1"), Vec::new(), Instant::now());
    frame.problem = Some(String::from("no hub answers\u{7}"));
    let text = frame.render(Size::UNBOUNDED);
    assert!(text.starts_with("no hub answers\\u0007\n"), "{text}");
    assert!(text.contains("ldaps_dc1"));
    frame.update(snapshot("dc1"), Vec::new(), Instant::now());
    assert!(frame.render(Size::UNBOUNDED).starts_with("hub "));
}

#[test]
fn keys_mean_what_the_last_line_says() {
    assert_eq!(Key::of(b'q'), Key::Quit);
    assert_eq!(Key::of(3), Key::Quit);
    assert_eq!(Key::of(b'\t'), Key::NextView);
    assert_eq!(Key::of(b'f'), Key::Order(Order::Flows));
    assert_eq!(Key::of(b'x'), Key::Other);
    let all = [
        View::Agents,
        View::Agents.next(),
        View::Agents.next().next(),
    ];
    assert_eq!(all, [View::Agents, View::Listeners, View::Flows]);
    assert_eq!(View::Flows.next(), View::Agents);
}

#[tokio::test]
async fn without_a_hub_it_ends_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let args = Args {
        socket: Some(folder.path().join("none.sock")),
        interval_ms: MIN_INTERVAL_MS,
        view: View::Agents,
        sort: Order::Bytes,
        once: true,
    };
    let (mut out, mut problems) = (Vec::new(), Vec::new());
    let exit = args.print_once(&mut out, &mut problems).await;
    assert_eq!(exit, Exit::Failure);
    assert!(
        String::from_utf8(problems)
            .unwrap()
            .contains("is it running?")
    );
}

fn flow(number: u64) -> FlowStatus {
    FlowStatus {
        flow: format!("hub-1.5.{number}"),
        connector: String::from("ldap"),
        agent: String::from("dc1"),
        listener: String::from("ldap"),
        client: "192.0.2.7:4000".parse().ok(),
        age_seconds: number,
        bytes_c2a: number,
        bytes_a2c: 0,
        generation: 1,
        decision: String::from("b-1"),
    }
}
