//! Numbers as devices print them: rounded to the digits of the field, and without a decimal point when none is
//! needed, so the same field is an integer in one frame and a float in the next.

use crate::time::Timestamp;
use serde_json::Value;

/// `value` with at most `decimals` digits after the point; an integer if nothing is left there.
pub(crate) fn number(value: f64, decimals: i32) -> Value {
    /// Above this an f64 no longer holds every integer; such a value is printed as it is.
    const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;
    let scale = 10f64.powi(decimals);
    let rounded = (value * scale).round() / scale;
    if rounded.fract() == 0.0 && rounded.abs() < EXACT_INTEGER_MAX {
        Value::from(rounded as i64)
    } else {
        Value::from(rounded)
    }
}

/// A quantity kept in thousandths (milliwatts, millivolts), printed in whole units.
pub(crate) fn milli(value: i64, decimals: i32) -> Value {
    number(value as f64 / 1000.0, decimals)
}

/// Seconds with two decimals, as every `ts` has.
pub(crate) fn seconds(at: Timestamp) -> Value {
    number(at.as_micros() as f64 / 1e6, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_values_lose_their_point() {
        assert_eq!(number(50.0, 2).to_string(), "50");
        assert_eq!(number(50.014, 2).to_string(), "50.01");
        assert_eq!(number(-626.6, 1).to_string(), "-626.6");
        assert_eq!(number(0.04, 1).to_string(), "0");
        assert_eq!(milli(233_649, 1).to_string(), "233.6");
    }

    #[test]
    fn a_timestamp_has_two_decimals() {
        assert_eq!(
            seconds(Timestamp::from_micros(1_705_084_173_384_999)).to_string(),
            "1705084173.38"
        );
        assert_eq!(seconds(Timestamp::from_micros(4_280_000)).to_string(), "4.28");
    }
}
