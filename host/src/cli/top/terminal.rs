//! A terminal that sends each key at once and shows screens in place of its text.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::sync::mpsc;

use super::screen::{Order, Size};

/// Keys that wait; whoever types faster than the screen is drawn loses the rest.
const MAX_WAITING_KEYS: usize = 16;

/// Where the terminal does not tell its size.
const USUAL_SIZE: Size = Size {
    lines: 24,
    columns: 80,
};

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    NextView,
    Order(Order),
    Other,
}

impl Key {
    pub(super) const fn of(byte: u8) -> Self {
        /// Ctrl-C, which comes as a key while signals from the keyboard are off.
        const INTERRUPT: u8 = 3;
        match byte {
            b'q' | b'Q' | INTERRUPT => Self::Quit,
            b'\t' => Self::NextView,
            b'b' | b'B' => Self::Order(Order::Bytes),
            b'f' | b'F' => Self::Order(Order::Flows),
            b'n' | b'N' => Self::Order(Order::Name),
            _ => Self::Other,
        }
    }
}

/// Dropping it brings the terminal back to what it was.
pub(super) struct Terminal {
    before: Termios,
    keys: mpsc::Receiver<Key>,
    ended: Arc<AtomicBool>,
}

impl Terminal {
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut wanted = before.clone();
        wanted
            .local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        // A read returns after a tenth of a second without a key, so that its thread can end.
        wanted.special_codes[SpecialCodeIndex::VMIN] = 0;
        wanted.special_codes[SpecialCodeIndex::VTIME] = 1;
        let (sender, keys) = mpsc::channel(MAX_WAITING_KEYS);
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        tcsetattr(io::stdin(), OptionalActions::Now, &wanted)?;
        let terminal = Self {
            before,
            keys,
            ended,
        };
        std::thread::Builder::new()
            .name(String::from("keys"))
            .spawn(move || read_keys(&sender, &seen))?;
        // The other screen, no cursor.
        write_all("\x1b[?1049h\x1b[?25l")?;
        Ok(terminal)
    }

    /// The next key; `None` when there are no more.
    pub(super) async fn key(&mut self) -> Option<Key> {
        self.keys.recv().await
    }

    pub(super) fn size(&self) -> Size {
        tcgetwinsize(io::stdout())
            .ok()
            .filter(|size| size.ws_row > 1 && size.ws_col > 1)
            .map_or(USUAL_SIZE, |size| Size {
                lines: usize::from(size.ws_row),
                columns: usize::from(size.ws_col),
            })
    }

    /// Shows these lines and nothing else.
    pub(super) fn draw(&self, lines: &str) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (number, line) in lines.lines().enumerate() {
            if number > 0 {
                text.push_str("\r\n");
            }
            // Cleared first: behind a full line the cursor still stands on its last character.
            text.push_str("\x1b[K");
            text.push_str(line);
        }
        text.push_str("\x1b[J");
        write_all(&text)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Where the terminal is gone there is nothing to bring back.
        let _ = write_all("\x1b[?25h\x1b[?1049l");
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn write_all(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn read_keys(sender: &mpsc::Sender<Key>, ended: &AtomicBool) {
    let mut buffer = [0; 32];
    while !ended.load(Ordering::Relaxed) {
        match io::stdin().lock().read(&mut buffer) {
            // An escape sequence, as of an arrow key, comes as several bytes at once.
            Ok(1) => {
                // A full channel drops the key.
                let _ = sender.try_send(Key::of(buffer[0]));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
