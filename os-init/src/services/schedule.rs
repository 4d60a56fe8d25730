//! When a scheduled service is due: a cron expression of five fields, by the machine's clock, in UTC.
//!
//! | | |
//! |---|---|
//! | the clock goes on | every minute that has begun since the last look counts, so a busy machine misses none |
//! | the clock jumps ahead by more than an hour | the minutes in between have not taken place |
//! | the clock goes back | nothing is due a second time in the minute that it is set to |
//! | the machine was off, or the services manager was just being started again | what was due then is not made up for |

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// A longer step of the clock is a jump, in minutes.
const JUMP_MIN: u64 = 60;

/// A cron expression: minute, hour, day of the month, month, day of the week.
#[derive(Debug, Clone)]
pub struct Schedule(Cron);

impl Schedule {
    /// Reads an expression such as `30 3 * * sun`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| error.to_string())?;
        // The thirtieth of February is well formed.
        match cron.find_next_occurrence(&DateTime::<Utc>::UNIX_EPOCH, true) {
            Ok(_) => Ok(Self(cron)),
            Err(_) => Err("there is no such time".into()),
        }
    }

    /// Whether it is due between two looks, each in minutes since 1970: after `before`, until `now`.
    #[must_use]
    pub fn is_due(&self, before: u64, now: u64) -> bool {
        let Some(step) = now.checked_sub(before) else { return false };
        let first = if step > JUMP_MIN { now } else { before.saturating_add(1) };
        (first..=now).any(|minute| {
            let matches = time(minute.saturating_mul(60))
                .map(|time| self.0.is_time_matching(&time).unwrap_or(false));
            matches.unwrap_or(false)
        })
    }

    /// When it is due next, both in seconds since 1970.
    #[must_use]
    pub fn next(&self, now_s: u64) -> Option<u64> {
        let next = self.0.find_next_occurrence(&time(now_s)?, false).ok()?;
        u64::try_from(next.timestamp()).ok()
    }
}

fn time(seconds: u64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0)
}

/// The machine's clock, in seconds since 1970.
#[must_use]
pub fn now_s() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minutes since 1970 of 4 January 2026, a Sunday.
    fn at(hour: u64, minute: u64) -> u64 {
        20_457 * 24 * 60 + hour * 60 + minute
    }

    #[test]
    fn it_is_due_once_in_its_minute() {
        let daily = Schedule::parse("30 3 * * *").unwrap();
        assert!(!daily.is_due(at(3, 28), at(3, 29)));
        assert!(daily.is_due(at(3, 29), at(3, 30)));
        assert!(!daily.is_due(at(3, 30), at(3, 30)), "once");
        assert!(!daily.is_due(at(3, 30), at(3, 31)));
        assert!(daily.is_due(at(3, 20), at(3, 40)), "a busy machine");
        assert!(!daily.is_due(at(1, 0), at(12, 0)), "the clock was set");
        assert!(daily.is_due(at(1, 0), at(3, 30)), "to the very minute");
        assert!(!daily.is_due(at(3, 40), at(3, 30)), "the clock was set back");
        assert_eq!(daily.next(at(3, 30) * 60), Some(at(27, 30) * 60));
        let weekly = Schedule::parse("0 0 * * sun").unwrap();
        assert!(weekly.is_due(at(0, 0) - 1, at(0, 0)));
        assert!(!weekly.is_due(at(24, 0) - 1, at(24, 0)));
        let hours = Schedule::parse("*/15 8-17 * * 1-5").unwrap();
        assert!(hours.is_due(at(24 + 8, 14), at(24 + 8, 15)));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for bad in ["", "* * * *", "* * * * * *", "60 * * * *", "0 0 30 2 *", "never", "@reboot"] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
        for good in ["* * * * *", "@daily", "0 0 29 2 *", "0 12 1 jan,jul *"] {
            assert!(Schedule::parse(good).is_ok(), "{good}");
        }
    }
}
