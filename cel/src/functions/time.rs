//! Parts of timestamps, in UTC or a named zone, and of durations.

use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};

use crate::error::Error;
use crate::evaluate::Outcome;
use crate::value::Value;

pub fn call(function: &str, args: &[Value]) -> Option<Outcome> {
    match args {
        [Value::Duration(nanos)] => duration(function, *nanos).map(|part| Ok(Value::Int(part))),
        [Value::Timestamp(time)] => part(function, &time.to_zoned(TimeZone::UTC)).map(|part| Ok(Value::Int(part))),
        [Value::Timestamp(time), Value::String(zone)] if function.starts_with("get") => {
            Some(in_zone(function, *time, zone))
        }
        _ => None,
    }
}

fn duration(function: &str, nanos: i64) -> Option<i64> {
    Some(match function {
        "getHours" => nanos / 3_600_000_000_000,
        "getMinutes" => nanos / 60_000_000_000,
        "getSeconds" => nanos / 1_000_000_000,
        "getMilliseconds" => nanos / 1_000_000,
        _ => return None,
    })
}

fn in_zone(function: &str, time: Timestamp, name: &str) -> Outcome {
    let zone = zone(name).ok_or_else(|| Error::other(format!("unknown time zone {name}")))?;
    part(function, &time.to_zoned(zone)).map(Value::Int).ok_or(Error::NoSuchOverload)
}

/// A zone by name, or `[+-]HH:MM`.
fn zone(name: &str) -> Option<TimeZone> {
    let Some((hours, minutes)) = name.split_once(':') else { return TimeZone::get(name).ok() };
    let negative = hours.starts_with('-');
    let hours: i32 = hours.trim_start_matches(['+', '-']).parse().ok()?;
    let minutes: i32 = minutes.parse().ok()?;
    let seconds = (hours.checked_mul(60)? + minutes) * 60;
    Offset::from_seconds(if negative { -seconds } else { seconds }).ok().map(TimeZone::fixed)
}

fn part(function: &str, time: &Zoned) -> Option<i64> {
    Some(match function {
        "getFullYear" => i64::from(time.year()),
        "getMonth" => i64::from(time.month()) - 1,
        "getDayOfYear" => i64::from(time.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(time.day()) - 1,
        "getDate" => i64::from(time.day()),
        "getDayOfWeek" => i64::from(time.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(time.hour()),
        "getMinutes" => i64::from(time.minute()),
        "getSeconds" => i64::from(time.second()),
        "getMilliseconds" => i64::from(time.millisecond()),
        _ => return None,
    })
}
