//! Firmware versions and the differences between them that a peer can see.

use std::fmt;
use std::str::FromStr;

/// A version such as `1.7.5` or `2.0.0-beta1`; what follows the numbers is kept for display only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Firmware {
    number: (u16, u16, u16),
    text: String,
}

/// A version that is not `major.minor.patch`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FirmwareError(String);

impl fmt::Display for FirmwareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "firmware {:?} is not of the form major.minor.patch, for example 1.7.5",
            self.0
        )
    }
}

impl std::error::Error for FirmwareError {}

/// What a minute report of a metering device carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MinuteReport {
    /// Only the energy counter (before 1.5.0).
    EnergyOnly,
    /// All measurements (1.5.0 on).
    AllValues,
}

/// How the device guards its LAN side when it has a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DigestKind {
    /// 1.x: the nonce is a number, one signature may be used again and again.
    Reusable,
    /// 2.0.0 on: opaque nonce, rising count, expiry, lock-out.
    Counted,
}

/// Whether a component in a status repeats the id that its key already carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum InnerId {
    Present,
    Absent,
}

impl Firmware {
    /// The version as the device prints it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The digest scheme of this version.
    pub fn digest_kind(&self) -> DigestKind {
        if self.number >= (2, 0, 0) {
            DigestKind::Counted
        } else {
            DigestKind::Reusable
        }
    }

    pub(crate) fn minute_report(&self) -> MinuteReport {
        if self.number >= (1, 5, 0) {
            MinuteReport::AllValues
        } else {
            MinuteReport::EnergyOnly
        }
    }

    /// Captured deltas carry the inner id up to 1.6; from 1.7.0 on it is gone.
    pub(crate) fn delta_inner_id(&self) -> InnerId {
        if self.number >= (1, 7, 0) {
            InnerId::Absent
        } else {
            InnerId::Present
        }
    }

    /// Before 1.5.0 the frame that says "now zero watts" after switching off got lost at times.
    pub(crate) fn loses_zero_power(&self) -> bool {
        self.number < (1, 5, 0)
    }

    /// `minute_ts` of old firmware points to the last second of the minute, of newer to the one after.
    pub(crate) fn minute_ts(&self, minute_start_seconds: u64) -> u64 {
        match self.minute_report() {
            MinuteReport::EnergyOnly => minute_start_seconds.saturating_sub(1),
            MinuteReport::AllValues => minute_start_seconds,
        }
    }
}

impl FromStr for Firmware {
    type Err = FirmwareError;

    fn from_str(text: &str) -> Result<Self, FirmwareError> {
        let refuse = || FirmwareError(text.chars().take(64).collect());
        let numbers = text.split_once('-').map_or(text, |(numbers, _)| numbers);
        let mut parts = numbers.split('.').map(str::parse::<u16>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self {
                number: (major, minor, patch),
                text: text.to_owned(),
            }),
            _ => Err(refuse()),
        }
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firmware(text: &str) -> Firmware {
        text.parse().expect("a version")
    }

    #[test]
    fn quirks_follow_the_version() {
        let (old, middle, new, beta) = (
            firmware("1.1.0"),
            firmware("1.5.0"),
            firmware("1.7.5"),
            firmware("2.0.0-beta1"),
        );
        assert_eq!(old.minute_report(), MinuteReport::EnergyOnly);
        assert!(old.loses_zero_power() && !middle.loses_zero_power());
        assert_eq!(middle.minute_report(), MinuteReport::AllValues);
        assert_eq!(
            (middle.delta_inner_id(), new.delta_inner_id()),
            (InnerId::Present, InnerId::Absent)
        );
        assert_eq!(
            (new.digest_kind(), beta.digest_kind()),
            (DigestKind::Reusable, DigestKind::Counted)
        );
        assert_eq!(old.minute_ts(120), 119);
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["", "1", "1.2", "1.2.x", "1.2.3.4", "-", "70000.0.0"] {
            let error = text.parse::<Firmware>().expect_err("refused");
            assert!(error.to_string().contains("1.7.5"));
        }
    }
}
