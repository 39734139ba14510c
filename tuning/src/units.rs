//! Numbers with units as people write them: sizes in bytes and spans of time.
//!
//! Owns the two text forms and nothing else. Whole numbers only: `"1.5 GiB"` is `"1536 MiB"`. What `Display` writes,
//! `FromStr` reads back as the same value.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a text is not a size or a span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// The text does not begin with a digit.
    #[error("\"{0}\" does not begin with a number; write for example {1}")]
    NoNumber(String, &'static str),
    /// The number has a fraction.
    #[error("\"{0}\" has a fraction; write a whole number of a smaller unit, for example {1}")]
    Fraction(String, &'static str),
    /// A span of time without a unit.
    #[error("\"{0}\" has no unit; write for example {1}")]
    NoUnit(String, &'static str),
    /// A unit that is not one of ours.
    #[error("\"{text}\" has the unknown unit `{unit}`; use {units}")]
    UnknownUnit {
        /// The whole text.
        text: String,
        /// The part that is not a unit.
        unit: String,
        /// The units that are known.
        units: &'static str,
    },
    /// More than the type holds: 2^64 - 1 bytes or milliseconds.
    #[error("\"{0}\" is too large")]
    TooLarge(String),
}

/// The units of one quantity: each name with its factor, the smallest first.
struct Units {
    factors: &'static [(&'static str, u64)],
    /// The factor of a number without a unit, if that is allowed.
    bare: Option<u64>,
    names: &'static str,
    example: &'static str,
}

const SIZES: Units = Units {
    factors: &[
        ("B", 1),
        ("kB", 1000),
        ("KB", 1000),
        ("KiB", 1 << 10),
        ("MB", 1_000_000),
        ("MiB", 1 << 20),
        ("GB", 1_000_000_000),
        ("GiB", 1 << 30),
        ("TB", 1_000_000_000_000),
        ("TiB", 1 << 40),
    ],
    bare: Some(1),
    names: "B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024)",
    example: "\"64 KiB\"",
};

const TIMES: Units = Units {
    factors: &[
        ("ms", 1),
        ("s", 1000),
        ("min", 60_000),
        ("h", 3_600_000),
        ("day", 86_400_000),
        ("days", 86_400_000),
    ],
    bare: None,
    names: "ms, s, min, h or days",
    example: "\"5 s\"",
};

impl Units {
    fn parse(&self, text: &str) -> Result<u64, UnitError> {
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = trimmed.split_at(digits);
        if number.is_empty() {
            return Err(UnitError::NoNumber(text.into(), self.example));
        }
        if rest.starts_with(['.', ',']) {
            return Err(UnitError::Fraction(text.into(), self.example));
        }
        let factor = self.factor(text, rest.trim_start())?;
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .ok_or_else(|| UnitError::TooLarge(text.into()))
    }

    fn factor(&self, text: &str, unit: &str) -> Result<u64, UnitError> {
        if unit.is_empty() {
            return self.bare.ok_or_else(|| UnitError::NoUnit(text.into(), self.example));
        }
        match self.factors.iter().find(|(name, _)| *name == unit) {
            Some((_, factor)) => Ok(*factor),
            None => Err(UnitError::UnknownUnit { text: text.into(), unit: unit.into(), units: self.names }),
        }
    }

    /// The shortest exact form: the unit that leaves the smallest whole number.
    fn shortest(&self, value: u64) -> (u64, &'static str) {
        let exact = self.factors.iter().filter(|(_, factor)| value.is_multiple_of(*factor));
        match exact.max_by_key(|(_, factor)| *factor) {
            Some((name, factor)) if value > 0 => (value / factor, name),
            _ => (value, self.factors[0].0),
        }
    }
}

/// A number of bytes, written `"64 KiB"`, `"250 MB"` or as a plain number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// A size of so many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        SIZES.parse(text).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = SIZES.shortest(self.0);
        write!(f, "{number} {unit}")
    }
}

/// A span of time in whole milliseconds, written `"5 s"`, `"100 ms"`, `"2 h"` or `"30 days"`; the unit is required.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

impl Span {
    /// A span of so many milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    /// The whole milliseconds of `duration`; a smaller rest is cut off, and what does not fit becomes the longest span.
    pub fn of(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    /// The number of milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The same span as a standard duration.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        TIMES.parse(text).map(Self)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = TIMES.shortest(self.0);
        let unit = if unit == "days" && number == 1 { "day" } else { unit };
        write!(f, "{number} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_decimal_or_binary_or_plain() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1 B", 1),
            ("64 KiB", 65_536),
            ("64KiB", 65_536),
            (" 250 MB ", 250_000_000),
            ("2 kB", 2000),
            ("2 KB", 2000),
            ("1 GiB", 1 << 30),
            ("4 GB", 4_000_000_000),
            ("3 TiB", 3 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn sizes_show_in_the_unit_that_leaves_the_smallest_number() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (65_536, "64 KiB"),
            (250_000_000, "250 MB"),
            (1_024_000, "1000 KiB"),
            (1 << 30, "1 GiB"),
            (u64::MAX, "18446744073709551615 B"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn spans_need_a_unit() {
        for (text, milliseconds) in [
            ("0 ms", 0),
            ("100 ms", 100),
            ("5 s", 5000),
            ("5s", 5000),
            ("10 min", 600_000),
            ("2 h", 7_200_000),
            ("1 day", 86_400_000),
            ("30 days", 2_592_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Span(milliseconds)), "{text}");
        }
        assert_eq!("5".parse::<Span>(), Err(UnitError::NoUnit("5".into(), TIMES.example)));
    }

    #[test]
    fn spans_show_in_the_largest_exact_unit() {
        for (milliseconds, text) in [
            (0, "0 ms"),
            (1500, "1500 ms"),
            (135_000, "135 s"),
            (60_000, "1 min"),
            (86_400_000, "1 day"),
            (2_592_000_000, "30 days"),
        ] {
            assert_eq!(Span(milliseconds).to_string(), text);
        }
    }

    #[test]
    fn each_mistake_in_a_unit_has_its_own_error() {
        let size = |text: &str| text.parse::<ByteSize>().unwrap_err();
        assert!(matches!(size(""), UnitError::NoNumber(..)));
        assert!(matches!(size("-1 MB"), UnitError::NoNumber(..)));
        assert!(matches!(size("MB"), UnitError::NoNumber(..)));
        assert!(matches!(size("1.5 GiB"), UnitError::Fraction(..)));
        assert!(matches!(size("1,5 GiB"), UnitError::Fraction(..)));
        assert!(matches!(size("1 mb"), UnitError::UnknownUnit { unit, .. } if unit == "mb"));
        assert!(matches!(size("1 MB 2"), UnitError::UnknownUnit { unit, .. } if unit == "MB 2"));
        assert!(matches!(size("18446744073709551616"), UnitError::TooLarge(..)));
        assert!(matches!(size("16777216 TiB"), UnitError::TooLarge(..)));
        let span = |text: &str| text.parse::<Span>().unwrap_err();
        assert!(matches!(span("5 sec"), UnitError::UnknownUnit { unit, .. } if unit == "sec"));
        assert!(matches!(span("300000000000 days"), UnitError::TooLarge(..)));
    }

    proptest! {
        #[test]
        fn a_shown_size_reads_back_as_itself(number in any::<u64>(), unit in 0..SIZES.factors.len()) {
            let size = ByteSize(number / SIZES.factors[unit].1 * SIZES.factors[unit].1);
            prop_assert_eq!(size.to_string().parse::<ByteSize>(), Ok(size));
        }

        #[test]
        fn a_shown_span_reads_back_as_itself(number in any::<u64>(), unit in 0..TIMES.factors.len()) {
            let span = Span(number / TIMES.factors[unit].1 * TIMES.factors[unit].1);
            prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        }

        #[test]
        fn any_text_is_a_value_or_an_error_and_never_a_panic(text in ".*") {
            let _ = text.parse::<ByteSize>();
            let _ = text.parse::<Span>();
        }
    }
}
