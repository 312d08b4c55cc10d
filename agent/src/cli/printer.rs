//! Standard output from a thread of its own: a terminal that was stopped, or a pipe that nobody
//! reads, holds up no traffic.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

/// Pieces that wait to be printed; what comes beyond is left out and counted.
const WAITING_MAX: usize = 1024;
/// How long the end waits for what is still to be printed.
const END_WITHIN: Duration = Duration::from_millis(500);

/// Gathers what is written, and hands it over at each flush.
#[derive(Debug)]
pub(super) struct Printer {
    gathered: Vec<u8>,
    left_out: u64,
    pieces: SyncSender<Vec<u8>>,
    /// Closed by the thread when it ends.
    printed: Receiver<()>,
}

impl Printer {
    /// # Errors
    /// The system has no thread.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (pieces, waiting) = mpsc::sync_channel(WAITING_MAX);
        let (ended, printed) = mpsc::sync_channel(0);
        thread::Builder::new()
            .name("printer".to_owned())
            .spawn(move || {
                print(out, &waiting);
                drop(ended);
            })?;
        Ok(Self {
            gathered: Vec::new(),
            left_out: 0,
            pieces,
            printed,
        })
    }

    /// Waits a moment for what is still to be printed.
    pub(super) fn end(self) {
        drop(self.pieces);
        // Nothing is ever sent: it is disconnected when the thread has ended.
        let _ = self.printed.recv_timeout(END_WITHIN);
    }
}

fn print(mut out: impl Write, waiting: &Receiver<Vec<u8>>) {
    while let Ok(piece) = waiting.recv() {
        // A reader that went away ends nothing.
        let _ = out.write_all(&piece).and_then(|()| out.flush());
    }
}

impl Write for Printer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut piece = std::mem::take(&mut self.gathered);
        if piece.is_empty() {
            return Ok(());
        }
        if self.left_out > 0 {
            let gap = format!("({} lines are left out)\n", self.left_out);
            piece.splice(..0, gap.into_bytes());
        }
        match self.pieces.try_send(piece) {
            Ok(()) => self.left_out = 0,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.left_out += 1,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::sync::{Arc, Mutex};

    use super::*;

    /// Takes nothing while it is locked.
    #[derive(Clone, Default)]
    struct Stopped(Arc<Mutex<Vec<u8>>>);

    impl Write for Stopped {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let poisoned = |_| io::ErrorKind::Other;
            self.0.lock().map_err(poisoned)?.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_no_time() {
        let out = Stopped::default();
        let mut printer = Printer::start(out.clone()).unwrap();
        let stopped = out.0.lock().unwrap();
        for number in 0..2 * WAITING_MAX {
            writeln!(printer, "line {number}").unwrap();
            printer.flush().unwrap();
        }
        assert!(printer.left_out > 0);
        drop(stopped);
        let text = loop {
            // Room comes as the thread prints.
            writeln!(printer, "the last").unwrap();
            printer.flush().unwrap();
            let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
            if text.contains("the last") {
                break text;
            }
            thread::yield_now();
        };
        printer.end();
        assert!(text.starts_with("line 0\nline 1\n"));
        assert!(text.contains(" lines are left out)\nthe last\n"), "{text}");
    }
}
