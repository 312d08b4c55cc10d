//! Time for open-loop load: a ticker that counts what it missed.
//!
//! An epoll timeout is rounded to milliseconds and a sleeping thread wakes 50 µs late; a
//! timerfd does neither, and after a stall it says how many ticks went by, so that the load
//! due in that time is still sent and no latency is left out of the histogram.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A periodic timer that an event loop can wait for.
#[derive(Debug)]
pub(crate) struct Ticker(OwnedFd);

impl Ticker {
    /// Ticks every `interval`, first after one interval.
    pub(crate) fn every(interval: Duration) -> io::Result<Self> {
        let fd = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let spec = Timespec {
            tv_sec: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(interval.subsec_nanos()),
        };
        let timer = Itimerspec {
            it_interval: spec,
            it_value: spec,
        };
        timerfd_settime(&fd, TimerfdTimerFlags::empty(), &timer)?;
        Ok(Self(fd))
    }

    /// How many ticks passed since the last call.
    pub(crate) fn expirations(&self) -> u64 {
        let mut count = [0u8; 8];
        match rustix::io::read(&self.0, &mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            Ok(_) | Err(_) => 0,
        }
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// `2026-01-31T23:59:59Z` for a moment of UTC.
pub(crate) fn iso_utc(moment: SystemTime) -> String {
    let seconds = moment
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a count of days since 1970, Gregorian.
fn civil_date(days: u64) -> (u64, u64, u64) {
    // Counted from 1 March of year 0, so that the leap day ends a year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_gregorian() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_795_244_924, "2026-11-21T07:08:44Z"),
        ] {
            assert_eq!(iso_utc(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_late_reader_learns_of_every_tick() {
        let ticker = Ticker::every(Duration::from_millis(1)).expect("timerfd");
        let mut ticks = 0;
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(3));
            ticks += ticker.expirations();
            if ticks >= 20 {
                return;
            }
        }
        panic!("only {ticks} ticks in 150 ms of a 1 ms ticker");
    }
}
