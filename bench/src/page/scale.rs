//! Scales of plots: which numbers an axis shows, how it writes them, and where a value lies on it. Knows nothing of pixels.

/// Ticks that an axis has at most, about.
const TICKS: f64 = 5.0;
/// Powers of ten that a logarithmic axis covers at most.
const MOST_DECADES: i32 = 9;
/// Ticks of a logarithmic axis beyond which only the powers of ten are shown.
const CROWDED: usize = 9;
/// The largest number that is drawn; larger ones are drawn as it.
const LARGEST: f64 = 1e18;
/// The smallest.
const SMALLEST: f64 = 1e-9;

/// An axis from its lowest number to its highest.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    logarithmic: bool,
}

impl Scale {
    /// From zero to at least `most`, in equal steps of 1, 2 or 5 times a power of ten.
    pub(super) fn from_zero(most: f64) -> Self {
        let most = drawable(most);
        Self::in_steps(at_least(most / TICKS), most)
    }

    /// From zero to at least `most`, in whole steps.
    pub(super) fn whole(most: usize) -> Self {
        let most = drawable(most as f64);
        Self::in_steps(at_least(most / TICKS).max(1.0), most)
    }

    fn in_steps(step: f64, most: f64) -> Self {
        let steps = (most / step - 1e-9).ceil().max(1.0) as u32;
        let ticks: Vec<f64> = (0..=steps).map(|count| f64::from(count) * step).collect();
        Self { low: 0.0, high: f64::from(steps) * step, ticks, logarithmic: false }
    }

    /// From at most `least` to at least `most`, both 1, 2 or 5 times a power of ten.
    pub(super) fn logarithmic(least: f64, most: f64) -> Self {
        let most = drawable(most);
        let least = drawable(least).min(most);
        let low = at_most(least.max(most / 10f64.powi(MOST_DECADES)));
        let high = at_least(most).max(low * 10.0);
        let within = |tick: &f64| (low * 0.999..=high * 1.001).contains(tick);
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let ticks_of = |multiples: &[f64]| -> Vec<f64> {
            let powers = (first..=last).map(|power| 10f64.powi(power));
            powers.flat_map(|power| multiples.iter().map(move |it| it * power)).filter(within).collect()
        };
        let all = ticks_of(&[1.0, 2.0, 5.0]);
        let ticks = if all.len() > CROWDED { ticks_of(&[1.0]) } else { all };
        Self { low, high, ticks, logarithmic: true }
    }

    /// Quantiles below 1 by how many nines they have, from 0 to at least `most`.
    pub(super) fn quantiles(most: f64) -> Self {
        let high = (nines(most) - 1e-6).ceil().max(2.0);
        let powers = (1..=high as i32).map(f64::from);
        let ticks = [nines(0.5)].into_iter().chain(powers).collect();
        Self { low: 0.0, high, ticks, logarithmic: false }
    }

    /// The share of the axis that lies below a value, 0 to 1.
    pub(super) fn place(&self, value: f64) -> f64 {
        let share = match self.logarithmic {
            true => (value.max(self.low).log10() - self.low.log10()) / (self.high.log10() - self.low.log10()),
            false => (value - self.low) / (self.high - self.low),
        };
        share.clamp(0.0, 1.0)
    }

    /// The numbers to be written at the axis, rising.
    pub(super) fn ticks(&self) -> &[f64] {
        &self.ticks
    }
}

/// How many nines a quantile has: 0.99 has two.
pub(super) fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile.clamp(0.0, 0.999_999_9)).log10()
}

/// A quantile as a percentile, `quantile` being below 1.
pub(super) fn percentile(quantile: f64) -> String {
    let text = format!("{:.6}", quantile * 100.0);
    format!("p{}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// What the quantile with so many nines is called.
pub(super) fn percentile_of_nines(nines: f64) -> String {
    percentile(1.0 - 10f64.powf(-nines))
}

/// A number that a scale can be made of, whatever was measured.
fn drawable(value: f64) -> f64 {
    if value > 0.0 { value.clamp(SMALLEST, LARGEST) } else { 1.0 }
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below `value`, which is above 0.
fn at_least(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let enough = |multiple: &f64| multiple * power >= value * (1.0 - 1e-9);
    [1.0, 2.0, 5.0].into_iter().find(enough).unwrap_or(10.0) * power
}

/// The largest that is not above.
fn at_most(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let fits = |multiple: &f64| multiple * power <= value * (1.0 + 1e-9);
    [5.0, 2.0, 1.0].into_iter().find(fits).unwrap_or(1.0) * power
}

/// A count: `1.84 M`.
pub(super) fn count(value: f64) -> String {
    scaled(value, &[(1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, "")])
}

/// Microseconds: `1.2 ms`.
pub(super) fn duration(microseconds: f64) -> String {
    scaled(microseconds, &[(1e6, " s"), (1e3, " ms"), (1.0, " µs")])
}

/// Bytes: `9.7 MB`.
pub(super) fn bytes(value: f64) -> String {
    scaled(value, &[(1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1.0, " B")])
}

/// Three digits that count, in the largest unit that fits.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".into();
    }
    let grain = 10f64.powf(value.abs().log10().floor() - 2.0);
    let rounded = (value / grain).round() * grain;
    let fits = |unit: &&(f64, &str)| rounded.abs() >= unit.0 * 0.999_999;
    let &(unit, name) = units.iter().find(fits).or(units.last()).expect("there are units");
    let number = rounded / unit;
    let digits = if number.abs() >= 99.95 {
        0
    } else if number.abs() >= 9.995 {
        1
    } else {
        2
    };
    let text = format!("{number:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_from_zero_ends_just_above_the_most_in_steps_of_one_two_or_five() {
        for (most, ticks) in [
            (1_835_528.0, vec![0.0, 500e3, 1e6, 1.5e6, 2e6]),
            (10.0, vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
            (2.0, vec![0.0, 0.5, 1.0, 1.5, 2.0]),
            (0.0, vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
            (-3.0, vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ] {
            let scale = Scale::from_zero(most);
            assert_eq!(scale.ticks().len(), ticks.len(), "{most}: {:?}", scale.ticks());
            for (found, wanted) in scale.ticks().iter().zip(ticks) {
                assert!((found - wanted).abs() < 1e-6, "{most}: {found} is not {wanted}");
            }
            assert!((scale.place(0.0), scale.place(scale.high)) == (0.0, 1.0));
        }
    }

    #[test]
    fn what_is_counted_has_no_ticks_between_whole_numbers() {
        for (most, ticks) in
            [(0, vec![0.0, 1.0]), (2, vec![0.0, 1.0, 2.0]), (8, vec![0.0, 2.0, 4.0, 6.0, 8.0])]
        {
            assert_eq!(Scale::whole(most).ticks(), ticks);
        }
    }

    #[test]
    fn a_logarithmic_scale_shows_powers_of_ten_and_what_lies_between_if_there_is_room() {
        for (least, most, ticks) in [
            (130.0, 18_000.0, vec![100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4]),
            (3.0, 4.0, vec![2.0, 5.0, 10.0, 20.0]),
            (12.0, 2_500_000.0, vec![10.0, 100.0, 1e3, 1e4, 1e5, 1e6]),
            (0.0, 0.0, vec![1.0, 2.0, 5.0, 10.0]),
        ] {
            let scale = Scale::logarithmic(least, most);
            assert_eq!(scale.ticks().len(), ticks.len(), "{least} to {most}: {:?}", scale.ticks());
            for (found, wanted) in scale.ticks().iter().zip(ticks) {
                assert!((found / wanted - 1.0).abs() < 1e-6, "{least} to {most}: {found} is not {wanted}");
            }
        }
        assert!((Scale::logarithmic(1.0, 100.0).place(10.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn quantiles_are_placed_by_their_nines() {
        assert_eq!(Scale::quantiles(0.9999).ticks().len(), 5);
        let scale = Scale::quantiles(0.9995);
        let names: Vec<String> = scale.ticks().iter().map(|&nines| percentile_of_nines(nines)).collect();
        assert_eq!(names, ["p50", "p90", "p99", "p99.9", "p99.99"]);
        assert!((scale.place(nines(0.99)) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn no_number_is_too_odd_for_a_scale() {
        for odd in [f64::NAN, f64::INFINITY, f64::MAX, f64::MIN_POSITIVE, -1e300, 0.0] {
            for scale in [
                Scale::from_zero(odd),
                Scale::logarithmic(odd, 1.0),
                Scale::logarithmic(1.0, odd),
                Scale::quantiles(odd),
            ] {
                assert!((2..=12).contains(&scale.ticks().len()), "{odd}: {scale:?}");
                let place = scale.place(1.0);
                assert!((0.0..=1.0).contains(&place), "{odd}: {scale:?} puts 1 at {place}");
            }
        }
    }

    #[test]
    fn numbers_are_short() {
        for (text, wanted) in [
            (count(1_835_528.0), "1.84 M"),
            (count(999_960.0), "1 M"),
            (count(20_000.0), "20 k"),
            (count(0.0), "0"),
            (count(512.0), "512"),
            (duration(0.5), "0.5 µs"),
            (duration(18_000.0), "18 ms"),
            (duration(1_500_000.0), "1.5 s"),
            (bytes(9_700_000.0), "9.7 MB"),
            (bytes(f64::NAN), "0"),
        ] {
            assert_eq!(text, wanted);
        }
    }
}
