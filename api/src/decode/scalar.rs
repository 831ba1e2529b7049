//! Texts with a form of their own: times and base64. They come out in the form upstream writes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A time as upstream writes it: UTC, whole seconds, or microseconds for `MicroTime`. Refusals are Go's `time.Parse`'s.
pub(super) fn time(text: &str, micro: bool) -> Result<String, String> {
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let refuse = |rest: &str, element: &str| {
        format!("parsing time \"{text}\" as \"{layout}\": cannot parse \"{rest}\" as \"{element}\"")
    };
    let range = |what: &str| format!("parsing time \"{text}\": {what} out of range");
    let mut rest = text;
    let mut parts = [0_i64; 6];
    let elements = [("2006", 4, "-"), ("01", 2, "-"), ("02", 2, "T"), ("15", 2, ":"), ("04", 2, ":"), ("05", 2, "")];
    for (part, (element, digits, after)) in parts.iter_mut().zip(elements) {
        let number = rest.get(..digits).filter(|d| d.bytes().all(|c| c.is_ascii_digit()));
        *part = number.and_then(|d| d.parse().ok()).ok_or_else(|| refuse(rest, element))?;
        rest = &rest[digits..];
        rest = rest.strip_prefix(after).ok_or_else(|| refuse(rest, after))?;
    }
    let micros = fraction(&mut rest, micro).ok_or_else(|| refuse(rest, ".000000"))?;
    let offset_seconds = offset(rest).ok_or_else(|| refuse(rest, "Z07:00"))?;
    let [year, month, day, hour, minute, second] = parts;
    for (value, limits, what) in
        [(month, 1..=12, "month"), (hour, 0..=23, "hour"), (minute, 0..=59, "minute"), (second, 0..=59, "second")]
    {
        if !limits.contains(&value) {
            return Err(range(what));
        }
    }
    let days = days_in_month(year, month);
    if !(1..=days).contains(&day) {
        return Err(range("day"));
    }
    let civil = jiff::civil::DateTime::new(
        year as i16,
        month as i8,
        day as i8,
        hour as i8,
        minute as i8,
        second as i8,
        (micros * 1000) as i32,
    );
    let shifted = civil.ok().and_then(|c| c.checked_sub(jiff::SignedDuration::from_secs(offset_seconds)).ok());
    let at = shifted.ok_or_else(|| range("year"))?;
    let seconds = at.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    Ok(if micro { format!("{seconds}.{micros:06}Z") } else { format!("{seconds}Z") })
}

/// Microseconds of a fraction of a second, which `MicroTime` demands with six digits and others may have.
fn fraction(rest: &mut &str, micro: bool) -> Option<i64> {
    let Some(digits) = rest.strip_prefix(['.', ',']) else { return if micro { None } else { Some(0) } };
    let len = digits.len() - digits.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if len == 0 || (micro && len != 6) {
        return None;
    }
    *rest = &digits[len..];
    let padded = format!("{:0<6}", &digits[..len.min(6)]);
    padded.parse().ok()
}

/// Seconds east of UTC.
fn offset(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let number =
        |t: &str| Some(t).filter(|t| t.len() == 2 && t.bytes().all(|c| c.is_ascii_digit()))?.parse::<i64>().ok();
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Base64 in canonical form; line breaks inside are left out, as Go's decoder does.
pub(super) fn base64(text: &str) -> Result<String, String> {
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&compact) {
        Ok(bytes) => Ok(STANDARD.encode(bytes)),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                _ => compact.len(),
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}
