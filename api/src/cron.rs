//! Cron schedules as CronJobs write them: five fields, or `@daily` and its like, or `@every 1h`. Parsing only; when a
//! schedule is due is for its controller to say.

/// Bits of a field: bit `n` is set when value `n` matches.
pub type Bits = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At the minutes that match all fields; see [`Fields`].
    At(Fields),
    /// At a fixed distance.
    Every { seconds: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    pub minute: Bits,
    pub hour: Bits,
    pub day_of_month: Bits,
    pub month: Bits,
    pub day_of_week: Bits,
    /// A day matches when both day fields match if one of them is `*` or `?`, else when one of them does.
    pub any_day_of_month: bool,
    pub any_day_of_week: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("empty spec string")]
    Empty,
    #[error("expected exactly 5 fields, found {found}: [{fields}]")]
    FieldCount { found: usize, fields: String },
    #[error("failed to parse int from {0}")]
    Number(String),
    #[error("{what} ({value}) {relation} ({limit}): {text}")]
    Range { what: &'static str, value: u64, relation: &'static str, limit: u64, text: String },
    #[error("step of range should be a positive number: {0}")]
    Step(String),
    #[error("too many {separator}: {text}")]
    TooMany { separator: &'static str, text: String },
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    #[error("failed to parse duration {0}")]
    Duration(String),
}

/// The limits of a field and the names its values have.
struct Domain {
    min: u64,
    max: u64,
    names: &'static [&'static str],
    first_name: u64,
}

const MINUTE: Domain = Domain { min: 0, max: 59, names: &[], first_name: 0 };
const HOUR: Domain = Domain { min: 0, max: 23, names: &[], first_name: 0 };
const DAY_OF_MONTH: Domain = Domain { min: 1, max: 31, names: &[], first_name: 0 };
const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const MONTH: Domain = Domain { min: 1, max: 12, names: MONTHS, first_name: 1 };
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const DAY_OF_WEEK: Domain = Domain { min: 0, max: 6, names: DAYS, first_name: 0 };

const DESCRIPTORS: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
/// Duration units, longest name first where one starts another.
const UNITS: &[(&str, f64)] =
    &[("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];

impl Schedule {
    /// A leading `TZ=zone` or `CRON_TZ=zone` is skipped.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut text = text;
        if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            text = text.split_once(' ').map_or("", |(_, rest)| rest.trim());
        }
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if let Some(duration) = text.strip_prefix("@every ") {
            let seconds = parse_duration(duration).ok_or_else(|| Error::Duration(text.to_owned()))?;
            return Ok(Self::Every { seconds: (seconds as u64).max(1) });
        }
        if text.starts_with('@') {
            let row = DESCRIPTORS.iter().find(|(name, _)| *name == text);
            let (_, fields) = row.ok_or_else(|| Error::Descriptor(text.to_owned()))?;
            return Self::parse(fields);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day_of_month, month, day_of_week] = fields.as_slice() else {
            return Err(Error::FieldCount { found: fields.len(), fields: fields.join(" ") });
        };
        // `*/2` restricts a field, so it is not "any".
        let any = |field: &str| field.split(',').any(|part| matches!(part, "*" | "?" | "*/1" | "?/1"));
        Ok(Self::At(Fields {
            minute: field(minute, &MINUTE)?,
            hour: field(hour, &HOUR)?,
            day_of_month: field(day_of_month, &DAY_OF_MONTH)?,
            month: field(month, &MONTH)?,
            day_of_week: field(day_of_week, &DAY_OF_WEEK)?,
            any_day_of_month: any(day_of_month),
            any_day_of_week: any(day_of_week),
        }))
    }
}

fn field(text: &str, domain: &Domain) -> Result<Bits, Error> {
    text.split(',').filter(|part| !part.is_empty()).try_fold(0, |bits, part| Ok(bits | range(part, domain)?))
}

/// `*`, `n`, `n-m`, each with an optional `/step`.
fn range(text: &str, domain: &Domain) -> Result<Bits, Error> {
    let mut parts = text.split('/');
    let span = parts.next().unwrap_or_default();
    let step_text = parts.next();
    if parts.next().is_some() {
        return Err(Error::TooMany { separator: "slashes", text: text.to_owned() });
    }
    let limits: Vec<&str> = span.split('-').collect();
    let (start, mut end) = match limits.as_slice() {
        ["*" | "?"] => (domain.min, domain.max),
        [one] => (value(one, domain)?, value(one, domain)?),
        [start, end] => (value(start, domain)?, value(end, domain)?),
        _ => return Err(Error::TooMany { separator: "hyphens", text: text.to_owned() }),
    };
    let step = step_text.map_or(Ok(1), number)?;
    if step_text.is_some() && limits.len() == 1 {
        end = domain.max;
    }
    let outside = |what, value, relation, limit| Error::Range { what, value, relation, limit, text: text.to_owned() };
    if start < domain.min {
        return Err(outside("beginning of range", start, "below minimum", domain.min));
    }
    if end > domain.max {
        return Err(outside("end of range", end, "above maximum", domain.max));
    }
    if start > end {
        return Err(outside("beginning of range", start, "beyond end of range", end));
    }
    if step == 0 {
        return Err(Error::Step(text.to_owned()));
    }
    Ok((start..=end).step_by(usize::try_from(step).unwrap_or(usize::MAX)).fold(0, |bits, n| bits | 1 << n))
}

fn value(text: &str, domain: &Domain) -> Result<u64, Error> {
    let lower = text.to_lowercase();
    match domain.names.iter().position(|name| *name == lower) {
        Some(index) => Ok(domain.first_name + index as u64),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u64, Error> {
    text.parse().map_err(|_| Error::Number(text.to_owned()))
}

/// Go's `time.ParseDuration`, in seconds.
fn parse_duration(text: &str) -> Option<f64> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let amount: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, factor) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        seconds += amount * factor;
        rest = &rest[unit.len()..];
    }
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for fine in
            ["* * * * *", "*/5 0-6/2 1,15 jan-mar MON", "@daily", "@every 1h30m", "0 0 ? * 1", "TZ=UTC 0 0 * * *"]
        {
            assert!(Schedule::parse(fine).is_ok(), "{fine}");
        }
        for wrong in
            ["", "often", "*/0 * * * *", "5-1 * * * *", "60 * * * *", "* * 0 * *", "@every x", "@never", "* * * *"]
        {
            assert!(Schedule::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bits() {
        let Ok(Schedule::At(fields)) = Schedule::parse("*/20 1-3 5 * sun") else { panic!("a plain schedule") };
        assert_eq!(fields.minute, 1 | 1 << 20 | 1 << 40);
        assert_eq!(fields.hour, 0b1110);
        assert_eq!((fields.day_of_month, fields.day_of_week), (1 << 5, 1));
        assert!(!fields.any_day_of_month && !fields.any_day_of_week);
        assert_eq!(Schedule::parse("@every 90s"), Ok(Schedule::Every { seconds: 90 }));
    }
}
