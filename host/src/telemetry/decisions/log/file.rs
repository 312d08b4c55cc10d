//! Lines to a file or a stream.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::DecisionLogError;
use super::lane::{Lost, Output};
use super::line::Line;

/// Memory that the buffer keeps between batches.
const MAX_KEPT_BYTES: usize = 256 * 1024;

/// A stream that is there from the start, such as standard output.
pub(super) struct Stream<W> {
    to: W,
    text: Text,
}

impl<W: Write> Stream<W> {
    pub(super) fn new(to: W) -> Self {
        Self {
            to,
            text: Text::default(),
        }
    }
}

impl<W: Write + Send> Output for Stream<W> {
    fn write(&mut self, lines: &[Line]) -> Result<(), Lost> {
        self.text.write(&mut self.to, lines)
    }
}

/// A file that is appended to, and opened again where it was moved away or fails.
pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    text: Text,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> Result<Self, DecisionLogError> {
        let file = append(path).map_err(|error| DecisionLogError::File {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            text: Text::default(),
        })
    }
}

impl Output for LogFile {
    fn write(&mut self, lines: &[Line]) -> Result<(), Lost> {
        let file = match &mut self.file {
            Some(file) => file,
            None => match append(&self.path) {
                Ok(file) => self.file.insert(file),
                Err(error) => {
                    return Err(Lost {
                        written: 0,
                        problem: error.to_string(),
                    });
                }
            },
        };
        let result = self.text.write(file, lines);
        if result.is_err() {
            // Its disk may be another one next time.
            self.file = None;
        }
        result
    }

    fn reopen(&mut self) {
        // Where the new one cannot be opened, the next write says so.
        self.file = append(&self.path).ok();
        self.text.begin_anew();
    }
}

/// Other users must not read who did what.
fn append(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
        return Err(io::Error::other(
            "it is a pipe, whose reader could hold the hub up; name a regular file, or `-` for \
             standard output",
        ));
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// Writes whole lines and knows how many went out.
#[derive(Default)]
struct Text {
    buffer: String,
    ends: Vec<usize>,
    /// The last line that went out is not whole.
    cut: bool,
}

impl Text {
    fn begin_anew(&mut self) {
        self.cut = false;
    }

    fn write(&mut self, to: &mut impl Write, lines: &[Line]) -> Result<(), Lost> {
        self.buffer.clear();
        self.ends.clear();
        if self.cut {
            // What was cut must not swallow the next line.
            self.buffer.push('\n');
        }
        for line in lines {
            line.push_json(&mut self.buffer);
            self.ends.push(self.buffer.len());
        }
        let (sent, result) = write_counted(to, self.buffer.as_bytes());
        let written = self.ends.iter().filter(|end| **end <= sent).count();
        // Only a line's end has this byte.
        if let Some(last) = sent
            .checked_sub(1)
            .and_then(|at| self.buffer.as_bytes().get(at))
        {
            self.cut = *last != b'\n';
        }
        self.buffer.shrink_to(MAX_KEPT_BYTES);
        result.map_err(|error| Lost {
            written,
            problem: error.to_string(),
        })
    }
}

fn write_counted(to: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match to.write(rest) {
            Ok(0) => return (sent, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (sent, Err(error)),
        }
    }
    (sent, to.flush())
}
