//! What a person sees of agents in the foreground.
//!
//! On a terminal: the addresses, what happens line by line, and below it one line with the state of
//! now, which is drawn anew. Elsewhere, such as in a file or a pipe: plain lines, the address when
//! it works.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::plain::plain;
use crate::state::{AgentState, Phase};
use crate::tap::{Counts, Seen, is_fault};

/// Nothing from the start of the line to the end of the screen: a terminal that was made narrower
/// may have wrapped the last line onto several.
const CLEAR_LINE: &str = "\r\x1b[J";
/// The last line must not wrap: others would move for it.
const WRAP_OFF: &str = "\x1b[?7l";
/// The cursor waits at the start, from where the line is cleared however it was wrapped since.
const WRAP_ON: &str = "\x1b[?7h\r";
/// Longest text of others on one line, in characters.
const SHOWN_CHARS_MAX: usize = 600;
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// How things are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// A terminal, with or without colours.
    Terminal { colours: bool },
    /// A file or a pipe.
    Plain,
}

impl Style {
    /// As standard output and the environment want it.
    pub(super) fn of_stdout() -> Self {
        // A terminal that cannot go back on its line says that it is dumb; see also no-color.org.
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if is_dumb || !std::io::stdout().is_terminal() {
            return Self::Plain;
        }
        Self::Terminal {
            colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }
}

/// One agent on the screen.
#[derive(Debug, Default)]
struct Row {
    /// Its address, or who it is.
    shown: String,
    /// What it reaches.
    target: String,
    state: AgentState,
    was_ready: bool,
    counts: Arc<Counts>,
}

/// See the module. What belongs together is written at once, and flushed after it. A reader that
/// went away ends nothing.
pub(super) struct Screen<W: Write> {
    out: W,
    style: Style,
    rows: Vec<Row>,
    /// Whether the last line is on the terminal now.
    has_last_line: bool,
    ending: bool,
}

impl<W: Write> Screen<W> {
    pub(super) fn new(out: W, style: Style) -> Self {
        Self {
            out,
            style,
            rows: Vec::new(),
            has_last_line: false,
            ending: false,
        }
    }

    /// A further agent, for this target; its place is the number that the other calls take.
    pub(super) fn add(&mut self, target: &str) -> usize {
        self.rows.push(Row {
            target: clean(target),
            ..Row::default()
        });
        self.rows.len() - 1
    }

    /// What counts its use.
    pub(super) fn counts(&self, place: usize) -> Arc<Counts> {
        Arc::clone(&self.rows[place].counts)
    }

    /// Its address, or another one than before; on a terminal at once, else when it works.
    pub(super) fn address_is(&mut self, place: usize, shown: &str) {
        let row = &mut self.rows[place];
        row.shown = clean(shown);
        row.was_ready = false;
        if self.style != Style::Plain {
            self.address(place);
        }
        self.done();
    }

    /// The hub gave another address in place of the earlier one.
    pub(super) fn moved(&mut self, place: usize, shown: &str) {
        let told = "the hub has forgotten the earlier address; this is the new one:";
        self.line(&self.paint(YELLOW, told));
        self.address_is(place, shown);
    }

    /// It has no address, or none that can be dialled.
    pub(super) fn fails(&mut self, place: usize, problem: &str) {
        let state = AgentState {
            problem: Some(problem.to_owned()),
            ..AgentState::default()
        };
        self.state(place, &state);
    }

    /// What the agent says of itself.
    pub(super) fn state(&mut self, place: usize, state: &AgentState) {
        let row = &mut self.rows[place];
        let before = std::mem::replace(&mut row.state, state.clone());
        let first = state.is_ready() && !row.was_ready;
        row.was_ready |= state.is_ready();
        let advice = state.advice.filter(|_| before.advice != state.advice);
        if self.style != Style::Plain {
            self.last_line();
            self.advise(place, advice);
            return self.done();
        }
        if first {
            self.address(place);
        }
        if state.is_ready() && (!before.is_ready() || before.hub != state.hub) {
            let hub = state.hub.as_ref().map(ToString::to_string);
            let text = format!("online through {}", hub.unwrap_or_default());
            self.told_of(place, &text);
        } else if !state.is_ready()
            && !self.ending
            && (before.is_ready() || before.problem != state.problem)
            && let Some(problem) = &state.problem
        {
            self.told_of(place, &format!("offline: {}", clean(problem)));
            self.advise(place, advice);
        }
        self.done();
    }

    /// What to do about what the last line says, or about what was said before this.
    fn advise(&mut self, place: usize, advice: Option<&str>) {
        if let Some(advice) = advice.filter(|_| !self.ending) {
            self.told_of(place, &self.paint(DIM, &format!("  {advice}")));
        }
    }

    /// Something passed.
    pub(super) fn seen(&mut self, place: usize, seen: &Seen) {
        let row = &self.rows[place];
        let not_shown = row.counts.take_not_shown();
        let (text, colour) = match seen {
            Seen::Request {
                method,
                path,
                status,
                took,
            } => {
                let colour = match status {
                    Some(400..500) => YELLOW,
                    _ if is_fault(*status) => RED,
                    _ => GREEN,
                };
                let status = status.map_or_else(|| "---".to_owned(), |code| code.to_string());
                let took = span(*took);
                let text = match self.style {
                    Style::Plain => format!("{method} {path} {status} {took}"),
                    Style::Terminal { .. } => format!("{method:<7} {path:<48} {status} {took:>8}"),
                };
                (text, colour)
            }
            Seen::Connection {
                bytes_in,
                bytes_out,
                lasted,
            } => {
                let lasted = span(*lasted);
                let text = format!("connection in {bytes_in} B out {bytes_out} B {lasted}");
                (text, GREEN)
            }
            Seen::Unreachable { reason } => {
                let reason = clean(reason);
                (format!("{} is not reached: {reason}", row.target), RED)
            }
        };
        let text = self.paint(colour, &text);
        self.told_of(place, &text);
        if not_shown > 0 {
            let text = format!("({not_shown} more passed faster than they can be shown)");
            self.told_of(place, &self.paint(DIM, &text));
        }
        self.done();
    }

    /// A line for a person.
    pub(super) fn say(&mut self, text: &str) {
        self.line(&clean(text));
        self.done();
    }

    /// From here on no problem is told: it ends.
    pub(super) fn ending(&mut self) {
        self.ending = true;
        self.last_line();
        self.done();
    }

    /// Leaves the terminal as it was, and gives back what it was written to.
    pub(super) fn end(mut self) -> W {
        self.clear_last_line();
        self.done();
        self.out
    }

    /// Lets go what was written since the last time.
    fn done(&mut self) {
        let _ = self.out.flush();
    }

    fn address(&mut self, place: usize) {
        let row = &self.rows[place];
        let shown = self.paint(BOLD, &row.shown);
        self.line(&format!("{shown} -> {}", row.target));
    }

    /// With more than one agent, each line says whose it is.
    fn told_of(&mut self, place: usize, text: &str) {
        if self.rows.len() > 1 {
            let whose = format!("{}: ", self.rows[place].target);
            self.line(&format!("{}{text}", self.paint(DIM, &whose)));
        } else {
            self.line(text);
        }
    }

    fn line(&mut self, text: &str) {
        self.clear_last_line();
        let _ = writeln!(self.out, "{text}");
        self.last_line();
    }

    fn clear_last_line(&mut self) {
        if std::mem::take(&mut self.has_last_line) {
            let _ = write!(self.out, "{CLEAR_LINE}");
        }
    }

    fn last_line(&mut self) {
        if self.style == Style::Plain || self.rows.is_empty() {
            return;
        }
        let text = self.summary();
        let _ = write!(self.out, "{CLEAR_LINE}{WRAP_OFF}{text}{WRAP_ON}");
        self.has_last_line = true;
    }

    fn summary(&self) -> String {
        if self.ending {
            return self.paint(DIM, "ending; Ctrl-C ends it at once");
        }
        let ready: Vec<&Row> = self
            .rows
            .iter()
            .filter(|row| row.state.is_ready())
            .collect();
        let mut text = if ready.len() == self.rows.len() {
            self.paint(GREEN, "online")
        } else if ready.is_empty() {
            self.paint(YELLOW, "connecting")
        } else {
            let part = format!("online {} of {}", ready.len(), self.rows.len());
            self.paint(YELLOW, &part)
        };
        let waiting = self.rows.iter().find(|row| !row.state.is_ready());
        if let Some(row) = waiting
            && row.state.phase != Phase::Stopped
            && let Some(problem) = &row.state.problem
        {
            text += &format!("  {}", clean(problem));
        }
        if let Some(row) = ready.first() {
            if let Some(hub) = &row.state.hub {
                text += &format!("  {hub}");
            }
            if let Some(round_trip) = row.state.round_trip {
                text += &format!("  round trip {}", span(round_trip));
            }
        }
        let passed: u64 = self.rows.iter().map(|row| row.counts.passed()).sum();
        let failed: u64 = self.rows.iter().map(|row| row.counts.failed()).sum();
        text += &format!("  {passed} seen, {failed} failed");
        text + &self.paint(DIM, "  Ctrl-C ends it")
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        match self.style {
            Style::Terminal { colours: true } => format!("\x1b[{colour}m{text}\x1b[0m"),
            Style::Terminal { colours: false } | Style::Plain => text.to_owned(),
        }
    }
}

/// A time as short as a person reads it.
fn span(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    if millis < 10.0 {
        format!("{millis:.1} ms")
    } else if millis < 1000.0 {
        format!("{millis:.0} ms")
    } else {
        format!("{:.1} s", millis / 1e3)
    }
}

/// What a hub or a service wrote, fit for a terminal.
fn clean(text: &str) -> String {
    plain(text, SHOWN_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::config::HubUrl;

    const URL: &str = "http://shop.localhost:8080";
    const TARGET: &str = "127.0.0.1:3000";

    #[test]
    fn a_pipe_gets_the_address_once_it_works_and_then_plain_lines() {
        let text = shown(Style::Plain, |screen| {
            let place = screen.add(TARGET);
            screen.address_is(place, URL);
            screen.state(place, &offline("no way to the hub"));
            screen.state(place, &online());
            screen.state(place, &online());
            screen.seen(place, &request(Some(200)));
            screen.seen(place, &request(None));
            screen.state(place, &offline("the tunnel broke"));
            screen.state(place, &online());
        });
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "offline: no way to the hub",
                "http://shop.localhost:8080 -> 127.0.0.1:3000",
                "online through ws://127.0.0.1:8765/tunnel",
                "GET /buy 200 3.2 ms",
                "GET /buy --- 3.2 ms",
                "offline: the tunnel broke",
                "online through ws://127.0.0.1:8765/tunnel",
            ]
        );
    }

    #[test]
    fn a_terminal_has_the_state_of_now_on_its_last_line() {
        let style = Style::Terminal { colours: false };
        let text = shown(style, |screen| {
            let place = screen.add(TARGET);
            screen.address_is(place, URL);
            screen.state(place, &offline("no way to the hub"));
            screen.state(place, &online());
            let failed = request(Some(502));
            screen.counts(place).count(&failed);
            screen.seen(place, &failed);
        });
        let last = text.rsplit(CLEAR_LINE).next().unwrap();
        assert!(
            last.contains("online  ws://127.0.0.1:8765/tunnel"),
            "{last}"
        );
        assert!(
            last.contains("round trip 0.4 ms  1 seen, 1 failed"),
            "{last}"
        );
        assert!(!last.contains('\n'), "{last}");
        // From there it is cleared, also where the terminal has wrapped it meanwhile.
        assert!(last.ends_with('\r'), "{last:?}");
        let whole_lines: Vec<&str> = text.split('\n').collect();
        assert!(whole_lines[0].ends_with("http://shop.localhost:8080 -> 127.0.0.1:3000"));
        assert!(text.contains("connecting  no way to the hub"));
    }

    #[test]
    fn what_to_do_about_a_problem_is_told_once() {
        for style in [Style::Plain, Style::Terminal { colours: false }] {
            let text = shown(style, |screen| {
                let place = screen.add(TARGET);
                for problem in ["401", "401 again"] {
                    let state = AgentState {
                        advice: Some("look at the token"),
                        ..offline(problem)
                    };
                    screen.state(place, &state);
                }
                screen.state(place, &online());
            });
            assert_eq!(text.matches("look at the token").count(), 1, "{text:?}");
        }
    }

    #[test]
    fn several_services_are_told_apart() {
        let text = shown(Style::Plain, |screen| {
            let shop = screen.add(TARGET);
            let blog = screen.add("127.0.0.1:4000");
            screen.address_is(shop, URL);
            screen.address_is(blog, "http://blog.localhost:8080");
            screen.state(shop, &online());
            screen.seen(shop, &request(Some(200)));
            screen.moved(blog, "http://t-1.localhost:8080");
            screen.state(blog, &online());
        });
        assert!(text.contains("127.0.0.1:3000: GET /buy 200"), "{text}");
        assert!(
            text.contains("http://t-1.localhost:8080 -> 127.0.0.1:4000"),
            "{text}"
        );
    }

    #[test]
    fn nothing_that_others_wrote_steers_the_terminal() {
        for style in [Style::Plain, Style::Terminal { colours: false }] {
            let text = shown(style, |screen| {
                let place = screen.add("b\x07");
                screen.address_is(place, "http://a\x1b[31m");
                screen.state(place, &offline("x\x1b]0;title\x07\ny"));
                let reason = "\x1b[2J".to_owned();
                screen.seen(place, &Seen::Unreachable { reason });
            });
            for hostile in ["\x1b[31m", "\x07", "\x1b]0", "\x1b[2J", "\ny"] {
                assert!(!text.contains(hostile), "{text:?}");
            }
        }
    }

    #[test]
    fn times_are_short() {
        for (micros, text) in [
            (400, "0.4 ms"),
            (9_960, "10.0 ms"),
            (12_400, "12 ms"),
            (1_250_000, "1.2 s"),
        ] {
            assert_eq!(span(Duration::from_micros(micros)), text);
        }
    }

    fn shown(style: Style, act: impl FnOnce(&mut Screen<&mut Vec<u8>>)) -> String {
        let mut out = Vec::new();
        act(&mut Screen::new(&mut out, style));
        String::from_utf8(out).unwrap()
    }

    fn online() -> AgentState {
        AgentState {
            phase: Phase::Ready,
            hub: Some(HubUrl::parse("ws://127.0.0.1:8765/tunnel", false).unwrap()),
            round_trip: Some(Duration::from_micros(400)),
            ..AgentState::default()
        }
    }

    fn offline(problem: &str) -> AgentState {
        AgentState {
            problem: Some(problem.to_owned()),
            ..AgentState::default()
        }
    }

    fn request(status: Option<u16>) -> Seen {
        Seen::Request {
            method: "GET".to_owned(),
            path: "/buy".to_owned(),
            status,
            took: Duration::from_micros(3_200),
        }
    }
}
