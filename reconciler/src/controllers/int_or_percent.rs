//! Limits that users give as a number or as a share. Pure.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// An absolute number or a percentage of `of` (`GetScaledValueFromIntOrPercent`); absent and malformed count as 0.
pub fn scaled(value: Option<&IntOrString>, of: i32, round_up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(n)) => *n,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or_default();
            let hundredfold = percent * i64::from(of);
            let rounded = if round_up { (hundredfold + 99) / 100 } else { hundredfold / 100 };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        let check = |value: &str, of: i32, up: i32, down: i32| {
            let value = value.parse().map_or_else(|_| IntOrString::String(value.to_owned()), IntOrString::Int);
            assert_eq!((scaled(Some(&value), of, true), scaled(Some(&value), of, false)), (up, down), "{value:?}");
        };
        check("3", 10, 3, 3);
        check("25%", 10, 3, 2);
        check("0%", 10, 0, 0);
        check("100%", 7, 7, 7);
        check("1%", 10, 1, 0);
        check("many", 10, 0, 0);
        assert_eq!(scaled(None, 10, true), 0);
    }
}
