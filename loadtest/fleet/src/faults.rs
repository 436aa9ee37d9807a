//! What goes wrong, and how often: the language of `--faults`.
//!
//! A plan is a list parted by commas. `name=rate` is a mean number of times per device and minute;
//! `name=fraction` (`terse` only) is a share of the devices; `herd@30s` happens once to the whole fleet, counted
//! from its start. `half-open=0.01,slow=0.02,reboot=0.05,herd@30s,drop=0.1,ble=0.2`

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Highest rate of one fault per device and minute.
pub const FAULT_RATE_MAX: f64 = 60.0;
/// Most herds in one plan.
pub const HERDS_MAX: usize = 16;
/// Longest time after which a herd may be planned.
pub const HERD_AFTER_MAX: Duration = Duration::from_secs(7 * 86_400);

/// A fault that strikes one device at a random moment.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Fault {
    /// A burst of Bluetooth scan results: an event of about 2.3 kB. No fault, but it weighs like one.
    Ble,
    /// The TCP connection breaks; the device dials again.
    Drop,
    /// The device dies without a FIN; the server's socket stays open and silent. Half of them lost their power
    /// and boot again, half lost their Wi-Fi and come back as they were.
    HalfOpen,
    /// The device reboots: it says -109 for a second, breaks the connection, boots, has no clock at first.
    Reboot,
    /// The last status is sent once more, byte for byte.
    Repeat,
    /// The energy counters fall to zero.
    Reset,
    /// The link is slow in both directions for a while.
    Slow,
}

impl Fault {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 7] = [
        Self::Ble,
        Self::Drop,
        Self::HalfOpen,
        Self::Reboot,
        Self::Repeat,
        Self::Reset,
        Self::Slow,
    ];

    /// The name in a plan.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ble => "ble",
            Self::Drop => "drop",
            Self::HalfOpen => "half-open",
            Self::Reboot => "reboot",
            Self::Repeat => "repeat",
            Self::Reset => "reset",
            Self::Slow => "slow",
        }
    }

    const fn place(self) -> usize {
        self as usize
    }
}

/// A plan of faults. The default is the empty plan: nothing goes wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultPlan {
    per_minute: [f64; Fault::ALL.len()],
    herds: Vec<Duration>,
    terse: f64,
}

impl FaultPlan {
    /// The mean time between two strikes of `fault` on one device; `None` if it never strikes.
    pub fn mean_gap(&self, fault: Fault) -> Option<Duration> {
        let rate = self.per_minute[fault.place()];
        (rate > 0.0).then(|| Duration::from_secs_f64(60.0 / rate))
    }

    /// When, after the start of the fleet, all devices lose their connection at once.
    pub fn herds(&self) -> &[Duration] {
        &self.herds
    }

    /// The share of devices (0 to 1) whose frames lack `dst` and `ts`.
    pub const fn terse(&self) -> f64 {
        self.terse
    }

    /// The same plan with `fault` at `per_minute`, kept within 0 and [`FAULT_RATE_MAX`].
    #[must_use]
    pub fn with(mut self, fault: Fault, per_minute: f64) -> Self {
        self.per_minute[fault.place()] = per_minute.clamp(0.0, FAULT_RATE_MAX);
        self
    }
}

impl FromStr for FaultPlan {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let mut plan = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            plan.add(part)?;
        }
        plan.herds.sort_unstable();
        Ok(plan)
    }
}

impl FaultPlan {
    fn add(&mut self, part: &str) -> Result<(), FaultError> {
        let shown = || part.chars().take(64).collect::<String>();
        if let Some(after) = part.strip_prefix("herd@") {
            let after = parse_duration(after).filter(|after| *after <= HERD_AFTER_MAX);
            let after = after.ok_or_else(|| FaultError::HerdTime(shown()))?;
            if self.herds.len() == HERDS_MAX {
                return Err(FaultError::TooManyHerds);
            }
            self.herds.push(after);
            return Ok(());
        }
        let (name, value) = part.split_once('=').ok_or_else(|| FaultError::Form(shown()))?;
        let value: f64 = value.parse().map_err(|_| FaultError::Rate(shown()))?;
        if name == "terse" {
            if !(0.0..=1.0).contains(&value) {
                return Err(FaultError::Fraction(shown()));
            }
            self.terse = value;
            return Ok(());
        }
        let fault = Fault::ALL
            .into_iter()
            .find(|fault| fault.name() == name)
            .ok_or_else(|| FaultError::Unknown(shown()))?;
        if !(0.0..=FAULT_RATE_MAX).contains(&value) {
            return Err(FaultError::Rate(shown()));
        }
        self.per_minute[fault.place()] = value;
        Ok(())
    }
}

/// Reads `250ms`, `30s`, `5m` or `1h`.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(digits_end);
    let amount: u64 = digits.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    amount.checked_mul(millis).map(Duration::from_millis)
}

/// Why a plan is refused; each shows the part that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FaultError {
    /// Neither `name=value` nor `herd@time`.
    Form(String),
    /// `terse` is not a share from 0 to 1.
    Fraction(String),
    /// The time of a herd cannot be read or lies more than a week ahead.
    HerdTime(String),
    /// The rate is not a number from 0 to [`FAULT_RATE_MAX`].
    Rate(String),
    /// More than [`HERDS_MAX`] herds.
    TooManyHerds,
    /// No fault has this name.
    Unknown(String),
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(part) => write!(
                f,
                "fault {part:?}: write name=rate, for example drop=0.1, or herd@30s"
            ),
            Self::Fraction(part) => write!(f, "fault {part:?}: a share of devices is a number from 0 to 1"),
            Self::HerdTime(part) => {
                write!(
                    f,
                    "fault {part:?}: write a time of at most a week as 250ms, 30s, 5m or 1h"
                )
            }
            Self::Rate(part) => {
                write!(
                    f,
                    "fault {part:?}: a rate is a number from 0 to {FAULT_RATE_MAX} per device and minute"
                )
            }
            Self::TooManyHerds => write!(f, "at most {HERDS_MAX} herds in one plan"),
            Self::Unknown(part) => {
                write!(f, "fault {part:?} is unknown; there are: herd@time terse")?;
                Fault::ALL
                    .into_iter()
                    .try_for_each(|fault| write!(f, " {}", fault.name()))
            }
        }
    }
}

impl std::error::Error for FaultError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_documented_example_is_read() {
        let plan: FaultPlan =
            "half-open=0.01, slow=0.02,reboot=0.05,herd@30s,drop=0.1,ble=0.2,terse=0.5,herd@250ms"
                .parse()
                .expect("valid");
        assert_eq!(plan.mean_gap(Fault::Drop), Some(Duration::from_secs(600)));
        assert_eq!(plan.mean_gap(Fault::Reset), None);
        assert_eq!(
            plan.herds(),
            [Duration::from_millis(250), Duration::from_secs(30)]
        );
        assert!((plan.terse() - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn an_empty_plan_is_no_faults() {
        assert_eq!("".parse::<FaultPlan>(), Ok(FaultPlan::default()));
        assert!(
            Fault::ALL
                .into_iter()
                .all(|fault| FaultPlan::default().mean_gap(fault).is_none())
        );
    }

    #[test]
    fn places_match_the_order_of_all() {
        for (place, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault.place(), place);
        }
    }

    #[test]
    fn each_mistake_is_named_with_a_remedy() {
        let error = |text: &str| text.parse::<FaultPlan>().expect_err("refused");
        assert_eq!(error("drop"), FaultError::Form("drop".into()));
        assert_eq!(error("drop=-1"), FaultError::Rate("drop=-1".into()));
        assert_eq!(error("drop=NaN"), FaultError::Rate("drop=NaN".into()));
        assert_eq!(error("drop=61"), FaultError::Rate("drop=61".into()));
        assert_eq!(error("terse=2"), FaultError::Fraction("terse=2".into()));
        assert_eq!(error("herd@30"), FaultError::HerdTime("herd@30".into()));
        assert_eq!(
            error("herd@9999999h"),
            FaultError::HerdTime("herd@9999999h".into())
        );
        assert!(error("fire=1").to_string().contains("half-open"));
        assert_eq!(
            error(&["herd@1s"; HERDS_MAX + 1].join(",")),
            FaultError::TooManyHerds
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
            let _ = text.parse::<FaultPlan>();
        }
    }
}
