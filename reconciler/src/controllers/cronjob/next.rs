//! When a schedule is due: the next time after one, in a time zone, and the times missed since. Pure. Days and hours
//! follow the zone's clock: an hour that a change of clocks skips does not come, one that it repeats comes twice.

use api::cron::{Fields, Schedule};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, Zoned};

/// A schedule that matches no time within so many years matches none (such as the 31st of February).
const YEARS_MAX: i16 = 5;

/// The first time after `after`.
pub fn next(schedule: &Schedule, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    match schedule {
        Schedule::Every { seconds } => {
            let second = Timestamp::from_second(after.as_second()).ok()?;
            second.checked_add(SignedDuration::from_secs(i64::try_from(*seconds).ok()?)).ok()
        }
        Schedule::At(fields) => {
            let minute = Timestamp::from_second((after.as_second().div_euclid(60) + 1) * 60).ok()?;
            at(fields, minute.to_zoned(zone.clone()))
        }
    }
}

/// The first match from `time` (a full minute) on: the largest unit that does not match is moved on.
fn at(fields: &Fields, mut time: Zoned) -> Option<Timestamp> {
    let has = |bits: u64, value: i8| bits & (1 << value) != 0;
    let last_year = time.year().checked_add(YEARS_MAX)?;
    while time.year() <= last_year {
        if !has(fields.month, time.month()) {
            let first = time.date().first_of_month().checked_add(Span::new().months(1)).ok()?;
            time = first.to_zoned(time.time_zone().clone()).ok()?;
        } else if !is_day(fields, &time) {
            time = time.date().tomorrow().ok()?.to_zoned(time.time_zone().clone()).ok()?;
        } else if !has(fields.hour, time.hour()) {
            // In minutes that pass, so that a repeated hour is one more hour.
            time = time.checked_add(SignedDuration::from_mins(60 - i64::from(time.minute()))).ok()?;
        } else if !has(fields.minute, time.minute()) {
            time = time.checked_add(SignedDuration::from_mins(1)).ok()?;
        } else {
            return Some(time.timestamp());
        }
    }
    None
}

fn is_day(fields: &Fields, time: &Zoned) -> bool {
    let of_month = fields.day_of_month & (1 << time.day()) != 0;
    let of_week = fields.day_of_week & (1 << time.weekday().to_sunday_zero_offset()) != 0;
    if fields.any_day_of_month || fields.any_day_of_week { of_month && of_week } else { of_month || of_week }
}

/// What was due since the last run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The last of the missed times.
    pub latest: Timestamp,
    /// How many there were, estimated from the first two.
    pub missed: i64,
}

/// The times after `since` up to `now` (`mostRecentScheduleTime`). `Err` for a schedule that is never due.
pub fn due(schedule: &Schedule, zone: &TimeZone, since: Timestamp, now: Timestamp) -> Result<Option<Due>, Never> {
    let first = next(schedule, zone, since).ok_or(Never)?;
    let second = next(schedule, zone, first).ok_or(Never)?;
    if first > now {
        return Ok(None);
    }
    if second > now {
        return Ok(Some(Due { latest: first, missed: 1 }));
    }
    let gap = second.duration_since(first).as_secs().max(1);
    let missed = now.duration_since(first).as_secs() / gap + 1;
    // Times at fixed distances are counted from the first one on; others are looked for further and further back.
    let mut back = 2;
    let latest = loop {
        let from = SignedDuration::from_secs(gap.saturating_mul(missed.saturating_sub(back).max(0)));
        let from = first.checked_add(from).unwrap_or(now).max(first);
        let times = std::iter::successors(next(schedule, zone, from), |time| next(schedule, zone, *time));
        match times.take_while(|time| *time <= now).last() {
            Some(latest) => break latest,
            None if from == first => break first,
            None => back *= 2,
        }
    };
    Ok(Some(Due { latest, missed }))
}

/// No time matches the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time difference between two schedules is less than 1 second")]
pub struct Never;

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Schedule {
        Schedule::parse(text).unwrap()
    }

    fn check(text: &str, zone: &str, after: &str, expected: &[&str]) {
        let zone = TimeZone::get(zone).unwrap();
        let after: Timestamp = after.parse().unwrap();
        let schedule = schedule(text);
        let times = std::iter::successors(next(&schedule, &zone, after), |time| next(&schedule, &zone, *time));
        let times: Vec<String> = times.take(expected.len()).map(|time| time.to_string()).collect();
        assert_eq!(times, expected, "{text}");
    }

    #[test]
    fn fields_and_steps() {
        let after = "2026-01-30T12:34:56Z";
        check("* * * * *", "UTC", after, &["2026-01-30T12:35:00Z", "2026-01-30T12:36:00Z"]);
        check("*/20 14 * * *", "UTC", after, &["2026-01-30T14:00:00Z", "2026-01-30T14:20:00Z", "2026-01-30T14:40:00Z"]);
        check("@monthly", "UTC", after, &["2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"]);
        check("0 0 31 * *", "UTC", after, &["2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z"]);
        check("0 0 29 2 *", "UTC", after, &["2028-02-29T00:00:00Z"]);
        check("@every 90s", "UTC", after, &["2026-01-30T12:36:26Z", "2026-01-30T12:37:56Z"]);
        // Exactly at a time, the next one follows.
        check("35 12 * * *", "UTC", "2026-01-30T12:35:00Z", &["2026-01-31T12:35:00Z"]);
        assert_eq!(next(&schedule("0 0 31 2 *"), &TimeZone::UTC, after.parse().unwrap()), None);
    }

    #[test]
    fn days_of_month_and_week() {
        let after = "2026-01-01T00:00:00Z";
        // Either, when both are given ...
        check("0 0 13 * fri", "UTC", after, &["2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z", "2026-01-13T00:00:00Z"]);
        // ... and both, when one of them is any.
        check("0 0 * * fri", "UTC", after, &["2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z"]);
        check("0 0 */2 * fri", "UTC", after, &["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]);
    }

    #[test]
    fn zones_and_changes_of_clocks() {
        check("0 9 * * *", "Asia/Tokyo", "2026-01-01T00:00:00Z", &["2026-01-02T00:00:00Z"]);
        let spring = "2026-03-07T12:00:00Z";
        // Half past two does not come on 8 March in New York.
        check("30 2 * * *", "America/New_York", spring, &["2026-03-09T06:30:00Z"]);
        check(
            "30 * * * *",
            "America/New_York",
            "2026-03-08T06:00:00Z",
            &["2026-03-08T06:30:00Z", "2026-03-08T07:30:00Z"],
        );
        // Half past one comes twice on 1 November.
        let autumn = "2026-11-01T04:30:00Z";
        check("30 1 * * *", "America/New_York", autumn, &["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z"]);
        // Midnight does not come in Santiago on 6 September.
        check("0 0 6 9 *", "America/Santiago", "2026-01-01T00:00:00Z", &["2027-09-06T03:00:00Z"]);
    }

    fn check_due(text: &str, since: &str, now: &str, expected: Option<(&str, i64)>) {
        let found = due(&schedule(text), &TimeZone::UTC, since.parse().unwrap(), now.parse().unwrap()).unwrap();
        let found = found.map(|due| (due.latest.to_string(), due.missed));
        assert_eq!(found, expected.map(|(time, missed)| (time.to_owned(), missed)), "{text}");
    }

    #[test]
    fn missed_times() {
        check_due("@hourly", "2026-01-01T10:00:00Z", "2026-01-01T10:59:59Z", None);
        check_due("@hourly", "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z", Some(("2026-01-01T11:00:00Z", 1)));
        check_due("@hourly", "2026-01-01T10:00:00Z", "2026-01-01T15:30:00Z", Some(("2026-01-01T15:00:00Z", 5)));
        check_due("* * * * *", "2026-01-01T10:00:00Z", "2026-01-01T15:30:30Z", Some(("2026-01-01T15:30:00Z", 330)));
        check_due("@every 1h", "2026-01-01T10:07:00Z", "2026-01-01T15:30:00Z", Some(("2026-01-01T15:07:00Z", 5)));
        // Irregular: every minute of one hour a day, looked at long after.
        check_due("* 6 * * *", "2026-01-01T10:00:00Z", "2026-01-03T23:00:00Z", Some(("2026-01-03T06:59:00Z", 2461)));
        check_due("30 6-16/4 * * 1-5", "2026-01-02T15:00:00Z", "2026-01-04T20:00:00Z", None);
        assert_eq!(
            due(&schedule("0 0 31 2 *"), &TimeZone::UTC, Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH),
            Err(Never)
        );
    }
}
