//! Values as people write them: `500ms`, `10s`, `64M`.

use std::time::Duration;

/// Reads `500ms`, `10s`, `1.5m`, `2h`, `1d`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err(format!("\"{unit}\" is no unit of time; write 500ms, 10s, 5m, 2h or 1d")),
    };
    let number: f64 = parse(number).ok_or("write a number and a unit, such as 500ms, 10s or 5m")?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| "longer than the clock can tell".to_owned())
}

/// Like [`duration`], for a limit that a zero would turn against everybody.
pub(crate) fn nonzero_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time < Duration::from_millis(1) => {
            Err("every connection would end at once; give 1ms or more, or leave the option out for no limit"
                .into())
        }
        time => Ok(time),
    }
}

/// Reads `4096`, `64K`, `64M`, `1.5G`, `1T` (powers of 1024, `KiB` and `KB` mean the same).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let upper = unit.to_ascii_uppercase();
    let shift = match upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper) {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("\"{unit}\" is no unit of size; write 4096, 64K, 64M or 1G")),
    };
    let too_large = || "larger than 64 bits can hold".to_owned();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(too_large);
    }
    let number: f64 = parse(number).ok_or("write a number and perhaps a unit, such as 4096, 64K or 64M")?;
    let bytes = number * (1u64 << shift) as f64;
    if bytes < 2f64.powi(64) { Ok(bytes as u64) } else { Err(too_large()) }
}

/// Digits and the rest.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()))
}

/// A decimal number without sign, exponent, `inf` or `nan`; `split` lets nothing else through.
fn parse(digits: &str) -> Option<f64> {
    digits.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
    }

    #[test]
    fn wrong_durations_say_what_to_write() {
        for text in ["", "s", "-1s", "1 s", "1x", "1.2.3s", "1e3s", "nan", "inf", "ten"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(duration("10sec").unwrap_err().contains("10s"));
        assert!(duration("99999999999999999999999d").unwrap_err().contains("clock"));
        assert!(nonzero_duration("0s").unwrap_err().contains("leave the option out"));
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64K", 64 << 10),
            ("64M", 64 << 20),
            ("64MiB", 64 << 20),
            ("64mb", 64 << 20),
            ("2T", 2 << 40),
            ("1.5k", 1536),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "64X", "18446744073709551616", "99999999T", "1 M"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
