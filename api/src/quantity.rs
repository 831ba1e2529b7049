//! Resource quantities (`k8s.io/apimachinery/pkg/api/resource.Quantity`): parsing, canonical text, comparison, sums.
//!
//! A quantity is a whole number of 10^-9 units in 128 bits: everything upstream can hold exactly up to 1.7 * 10^29;
//! larger decimal numbers are refused as unparsable rather than silently changed.

use std::cmp::Ordering;
use std::fmt;

/// Units of a quantity per one.
const NANOS_PER_ONE: i128 = 1_000_000_000;
/// Decimal digits which upstream's fast path holds; longer numbers lose the text they were written with.
const FAST_DIGITS: i32 = 18;
/// Larger exponents than this can't be held, whatever the number before them.
const MAX_EXPONENT: i32 = 38;

/// A number with the kind of suffix it was written with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Which suffixes the canonical text uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `m`, ``, `k`, `M`, …
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, …
    BinarySi,
    /// `e3`, `e6`, …
    DecimalExponent,
}

/// Why text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The parts of a quantity's text; `whole` has no leading zeros.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, Error> {
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = |s: &str| s.len() - s.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let whole_len = digits(unsigned);
    let (whole, rest) = unsigned.split_at(whole_len);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let letters = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if text.is_empty() || !exponent.bytes().all(|c| c.is_ascii_digit()) {
        return Err(Error::Format);
    }
    interpret(suffix)?;
    if whole.is_empty() && fraction.is_empty() {
        return Err(Error::Numeric);
    }
    Ok(Parts { negative, whole: whole.trim_start_matches('0'), fraction, suffix })
}

/// Base, exponent and format of a suffix.
fn interpret(suffix: &str) -> Result<(i128, i32, Format), Error> {
    use Format::{BinarySi, DecimalExponent, DecimalSi};
    Ok(match suffix {
        "n" => (10, -9, DecimalSi),
        "u" => (10, -6, DecimalSi),
        "m" => (10, -3, DecimalSi),
        "" => (10, 0, DecimalSi),
        "k" => (10, 3, DecimalSi),
        "M" => (10, 6, DecimalSi),
        "G" => (10, 9, DecimalSi),
        "T" => (10, 12, DecimalSi),
        "P" => (10, 15, DecimalSi),
        "E" => (10, 18, DecimalSi),
        "Ki" => (2, 10, BinarySi),
        "Mi" => (2, 20, BinarySi),
        "Gi" => (2, 30, BinarySi),
        "Ti" => (2, 40, BinarySi),
        "Pi" => (2, 50, BinarySi),
        "Ei" => (2, 60, BinarySi),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(Error::Suffix)?;
            (10, exponent.parse().map_err(|_| Error::Suffix)?, DecimalExponent)
        }
    })
}

/// Rounds away from zero, as upstream does with what is finer than a nano.
fn divide_up(value: i128, by: i128) -> i128 {
    value / by + i128::from(value % by != 0) * value.signum()
}

impl Quantity {
    pub fn new(whole: i64, format: Format) -> Self {
        Self { nanos: i128::from(whole) * NANOS_PER_ONE, format }
    }

    pub fn from_milli(milli: i64, format: Format) -> Self {
        Self { nanos: i128::from(milli) * (NANOS_PER_ONE / 1000), format }
    }

    pub fn parse(text: &str) -> Result<Self, Error> {
        let parts = split(text)?;
        let (base, exponent, format) = interpret(parts.suffix)?;
        if exponent.abs() > MAX_EXPONENT && base == 10 {
            return Err(Error::Numeric);
        }
        let mut value: i128 = 0;
        let mut scale: i32 = -9;
        // Digits finer than 10^-9 after the suffix is applied only matter for rounding up.
        for digit in parts.whole.bytes().chain(parts.fraction.bytes()) {
            let next = value.checked_mul(10).and_then(|v| v.checked_add(i128::from(digit - b'0')));
            value = next.ok_or(Error::Numeric)?;
        }
        scale += parts.fraction.len() as i32;
        if base == 2 {
            value = value.checked_mul(1_i128 << exponent).ok_or(Error::Numeric)?;
        } else {
            scale -= exponent;
        }
        let nanos = match scale {
            ..=0 => {
                10_i128.checked_pow(scale.unsigned_abs()).and_then(|p| value.checked_mul(p)).ok_or(Error::Numeric)?
            }
            _ => 10_i128.checked_pow(scale.unsigned_abs()).map_or(i128::from(value != 0), |p| divide_up(value, p)),
        };
        let limit = i128::from(i64::MAX) * NANOS_PER_ONE;
        let nanos = if format == Format::BinarySi { nanos.min(limit) } else { nanos };
        let format =
            if format == Format::BinarySi && nanos > 0 && nanos < NANOS_PER_ONE { Format::DecimalSi } else { format };
        Ok(Self { nanos: if parts.negative { -nanos } else { nanos }, format })
    }

    pub fn format(self) -> Format {
        self.format
    }
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }
    /// -1, 0 or 1.
    pub fn sign(self) -> i32 {
        self.nanos.signum() as i32
    }
    /// The value rounded up to a whole number (`Quantity.Value`); saturates.
    pub fn value(self) -> i64 {
        saturate(divide_up(self.nanos, NANOS_PER_ONE))
    }
    /// The value rounded up to thousandths, in thousandths (`Quantity.MilliValue`); saturates.
    pub fn milli_value(self) -> i64 {
        saturate(divide_up(self.nanos, NANOS_PER_ONE / 1000))
    }
    /// Whether this is a whole number.
    pub fn is_integer(self) -> bool {
        self.nanos % NANOS_PER_ONE == 0
    }
    /// Rounded up to thousandths, as `Quantity.RoundUp(Milli)`.
    #[must_use]
    pub fn round_up_to_milli(self) -> Self {
        let unit = NANOS_PER_ONE / 1000;
        Self { nanos: divide_up(self.nanos, unit).saturating_mul(unit), ..self }
    }
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_sub(other.nanos), format }
    }
    #[must_use]
    pub fn times(self, factor: i64) -> Self {
        Self { nanos: self.nanos.saturating_mul(i128::from(factor)), ..self }
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The canonical text: no fraction, the largest suffix.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        let whole = self.nanos / NANOS_PER_ONE;
        if self.format == Format::BinarySi && self.is_integer() && whole.abs() >= 1024 {
            return write_binary(f, whole);
        }
        let (mut number, mut exponent) = (self.nanos, -9);
        while number % 1000 == 0 && (exponent < 18 || self.format == Format::DecimalExponent) {
            number /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (_, 0) => write!(f, "{number}"),
            (Format::DecimalExponent, _) => write!(f, "{number}e{exponent}"),
            _ => {
                let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((exponent + 9) / 3) as usize];
                write!(f, "{number}{suffix}")
            }
        }
    }
}

fn write_binary(f: &mut fmt::Formatter<'_>, mut number: i128) -> fmt::Result {
    let mut suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].into_iter();
    let mut suffix = suffixes.next();
    while number % 1024 == 0 {
        let Some(larger) = suffixes.next() else { break };
        number /= 1024;
        suffix = Some(larger);
    }
    write!(f, "{number}{}", suffix.unwrap_or_default())
}

impl std::str::FromStr for Quantity {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

/// The text which an object keeps after `text` was decoded: canonical, but for the forms that upstream's parser keeps
/// as they were written (`ParseQuantity` caches the text where it holds it to be canonical already).
pub fn canonical(text: &str) -> Result<String, Error> {
    let text = text.trim();
    let quantity = Quantity::parse(text)?;
    if is_kept(text)? { Ok(text.to_owned()) } else { Ok(quantity.to_string()) }
}

fn is_kept(text: &str) -> Result<bool, Error> {
    let parts = split(text)?;
    let (base, exponent, _) = interpret(parts.suffix)?;
    let whole = if parts.whole.is_empty() { "0" } else { parts.whole };
    let digits = (whole.len() + parts.fraction.len()) as i32;
    if base == 2 {
        let fits = parts.fraction.is_empty() && 14 - digits - exponent * 3 / 10 >= 0;
        return Ok(fits && whole.parse::<u64>().is_ok_and(|value| value & 7 != 0));
    }
    let scale = exponent - parts.fraction.len() as i32;
    let all: String = [whole, parts.fraction].concat();
    Ok(digits <= FAST_DIGITS && scale >= -9 && scale % 3 == 0 && !all.ends_with("000") && !all.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canon(text: &str) -> String {
        canonical(text).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn canonical_text() {
        let cases = [
            ("0", "0"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("100m", "100m"),
            ("1000k", "1M"),
            ("1e3", "1e3"),
            ("1e4", "10e3"),
            ("12345", "12345"),
            ("0.1m", "100u"),
            ("0.0000000001", "1n"),
            ("0.5Ki", "512"),
            ("1500Mi", "1500Mi"),
            ("-1.5", "-1500m"),
            ("+2", "+2"),
            ("1.500", "1.500"),
            ("00", "0"),
            ("100Ei", "9223372036854775807"),
            (".5", "500m"),
            ("5.", "5."),
            ("0.1Ki", "102400m"),
            ("1E", "1E"),
            ("2000E", "2000E"),
            (" 1Gi ", "1Gi"),
        ];
        for (text, want) in cases {
            assert_eq!(canon(text), want, "{text}");
        }
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in ["", "abc", "1 Gi", "1GiB", "1.2.3", "0x10"] {
            assert_eq!(Quantity::parse(text), Err(Error::Format), "{text:?}");
        }
        for text in ["1mm", "--1", "1eE"] {
            assert_eq!(Quantity::parse(text), Err(Error::Suffix), "{text:?}");
        }
        assert_eq!(Quantity::parse("."), Err(Error::Numeric));
        assert_eq!(Quantity::parse("m"), Err(Error::Numeric));
        assert_eq!(Quantity::parse("1e99"), Err(Error::Numeric));
    }

    #[test]
    fn sums_and_values() {
        let q = |t: &str| Quantity::parse(t).unwrap();
        assert_eq!(q("1").plus(q("500m")).to_string(), "1500m");
        assert_eq!(q("0").plus(q("1Gi")).to_string(), "1Gi");
        assert_eq!(q("1Gi").minus(q("512Mi")).to_string(), "512Mi");
        assert_eq!((q("1100m").value(), q("1100m").milli_value()), (2, 1100));
        assert_eq!(q("-1100m").value(), -2);
        assert!(q("1Ki") > q("1k") && q("1000m") == q("1"));
        assert_eq!(q("1.5").times(4).to_string(), "6");
    }

    proptest! {
        #[test]
        fn canonical_text_parses_to_the_same_number(n in -1_000_000_000_i64..1_000_000_000, suffix in "[numkMGTPE]?|[KMGTP]i") {
            let quantity = Quantity::parse(&format!("{n}{suffix}")).unwrap();
            let again = Quantity::parse(&quantity.to_string()).unwrap();
            prop_assert_eq!(quantity, again);
            prop_assert_eq!(again.to_string(), quantity.to_string());
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[-+0-9.eEinumkKMGTP]{0,50}") {
            if let Ok(quantity) = Quantity::parse(&text) {
                prop_assert!(Quantity::parse(&quantity.to_string()).is_ok());
            }
        }
    }
}
