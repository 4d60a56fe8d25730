//! When the daemon looks and when it may reboot. Pure: time and randomness are arguments.

use std::time::Duration;

/// Longest pause between two looks after failures, whatever the interval: a day.
const BACK_OFF_MAX: Duration = Duration::from_secs(86_400);
const DAY_S: u64 = 86_400;

/// A daily time span in UTC in which the machine may reboot by itself; may pass midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    from_s: u64,
    until_s: u64,
}

impl Window {
    /// Reads `02:00-04:00`. Equal ends are no window.
    #[must_use]
    pub fn parse(text: &str) -> Option<Window> {
        let (from, until) = text.trim().split_once('-')?;
        let (from_s, until_s) = (clock(from)?, clock(until)?);
        (from_s != until_s).then_some(Window { from_s, until_s })
    }

    /// Whether `now_s`, in seconds since 1970, lies in it.
    #[must_use]
    pub fn contains(&self, now_s: u64) -> bool {
        let of_day = now_s % DAY_S;
        if self.from_s < self.until_s {
            (self.from_s..self.until_s).contains(&of_day)
        } else {
            of_day >= self.from_s || of_day < self.until_s
        }
    }
}

fn clock(text: &str) -> Option<u64> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |text: &str| {
        let two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        if two { text.parse::<u64>().ok() } else { None }
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)
}

/// Whether the machine may reboot now by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It may.
    Now,
    /// The window is not open.
    OutsideWindow,
    /// A window is set, but the clock says a time before this release was built: it is not set.
    ClockNotSet,
}

/// Whether `now_s` (seconds since 1970) lets the machine reboot; `built_s` is when the running
/// release was built, the lower bound of any true time.
#[must_use]
pub fn may_reboot(window: Option<&Window>, now_s: u64, built_s: u64) -> Leave {
    match window {
        None => Leave::Now,
        Some(_) if now_s < built_s => Leave::ClockNotSet,
        Some(window) if window.contains(now_s) => Leave::Now,
        Some(_) => Leave::OutsideWindow,
    }
}

/// The pause until the next look: the interval, doubled for each failure in a row, never before
/// the server's `Retry-After`, and spread by `random` (any number) over half to one and a half, so
/// that a fleet does not come in step.
#[must_use]
pub fn next_look(
    interval: Duration,
    failures: u32,
    retry_after: Option<Duration>,
    random: u64,
) -> Duration {
    // After a failure it is worth looking sooner than the interval, then ever later.
    let first = interval.min(Duration::from_secs(60));
    let pause = match failures {
        0 => interval,
        n => first.saturating_mul(1 << (n - 1).min(16)).min(BACK_OFF_MAX.max(interval)),
    };
    let permille = u32::try_from(500 + random % 1000).unwrap_or(1000);
    let spread = pause.saturating_mul(permille) / 1000;
    spread.max(retry_after.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_may_pass_midnight() {
        let check = |text: &str, at: &str, inside| {
            let window = Window::parse(text).unwrap();
            assert_eq!(
                window.contains(86_400 * 20_000 + clock(at).unwrap()),
                inside,
                "{text} {at}"
            );
        };
        check("02:00-04:00", "01:59", false);
        check("02:00-04:00", "02:00", true);
        check("02:00-04:00", "04:00", false);
        check("22:00-02:00", "23:59", true);
        check("22:00-02:00", "00:00", true);
        check("22:00-02:00", "02:00", false);
        for bad in
            ["", "2:00-4:00", "24:00-25:00", "02:00", "02:00-02:00", "02:60-03:00", "+1:00-02:00"]
        {
            assert_eq!(Window::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_unset_clock_opens_no_window_but_needs_none() {
        let window = Window::parse("00:00-23:59").unwrap();
        let built = 1_700_000_000;
        assert_eq!(may_reboot(Some(&window), 5, built), Leave::ClockNotSet);
        assert_eq!(may_reboot(None, 5, built), Leave::Now);
        assert_eq!(may_reboot(Some(&window), built, built), Leave::Now);
    }

    #[test]
    fn failures_wait_longer_and_never_before_they_are_told() {
        let hour = Duration::from_secs(3600);
        let mut last = Duration::ZERO;
        for failures in 1..40 {
            let pause = next_look(hour, failures, None, 500);
            assert!(pause >= last && pause <= BACK_OFF_MAX, "{failures}: {pause:?}");
            last = pause;
        }
        assert_eq!(next_look(hour, 0, None, 500), hour);
        let told = Duration::from_secs(100_000);
        assert_eq!(next_look(hour, 1, Some(told), 0), told);
        for random in [0, 999, u64::MAX] {
            let pause = next_look(hour, 0, None, random);
            assert!(pause >= hour / 2 && pause < hour * 3 / 2, "{pause:?}");
        }
    }
}
