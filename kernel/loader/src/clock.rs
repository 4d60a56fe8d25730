//! The firmware's clock as a number whose differences mean something.

/// Days from 1970-01-01 to 0000-03-01, the other way.
const DAYS_TO_EPOCH: u64 = 719_468;
const DAYS_PER_ERA: u64 = 146_097;

/// Seconds since 1970 of a date and time as a clock shows them, without time zone.
///
/// Nothing is decided by it; os-init compares it with another reading of the same clock. `None`
/// for a date that is none.
pub fn seconds(date: (u16, u8, u8), time: (u8, u8, u8)) -> Option<u64> {
    let (year, month, day) = (u64::from(date.0), u64::from(date.1), u64::from(date.2));
    let (hour, minute, second) = (u64::from(time.0), u64::from(time.1), u64::from(time.2));
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // The year begins in March, so that the odd day of a leap year is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * DAYS_PER_ERA + day_of_era - DAYS_TO_EPOCH;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        assert_eq!(seconds((1970, 1, 1), (0, 0, 0)), Some(0));
        assert_eq!(seconds((2000, 2, 29), (12, 0, 1)), Some(951_825_601));
        assert_eq!(seconds((2000, 3, 1), (0, 0, 0)), Some(951_868_800));
        assert_eq!(seconds((2026, 11, 25), (6, 30, 0)), Some(1_795_588_200));
        assert_eq!(seconds((2100, 3, 1), (0, 0, 0)), Some(4_107_542_400));
    }

    #[test]
    fn a_clock_that_shows_nonsense_shows_nothing() {
        for (date, time) in [
            ((0, 0, 0), (0, 0, 0)),
            ((1969, 12, 31), (0, 0, 0)),
            ((2026, 13, 1), (0, 0, 0)),
            ((2026, 1, 32), (0, 0, 0)),
            ((2026, 1, 1), (24, 0, 0)),
            ((2026, 1, 1), (255, 255, 255)),
        ] {
            assert_eq!(seconds(date, time), None, "{date:?} {time:?}");
        }
    }
}
