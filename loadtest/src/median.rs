//! The middle of what several rounds found, and how sure it is. Pure.

/// Of a hundred such intervals, so many hold the true median at least.
const SURE: f64 = 0.95;

/// The middle; of an even number the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values = sorted(values);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(values[values.len() / 2 - 1], upper))
}

/// Between which of the values the true median lies, with a certainty of 95 % at least, whatever the values are distributed like: so many
/// of them may lie on one side of it by chance. None for fewer than six, which cannot be so sure.
pub(crate) fn interval(values: &[f64]) -> Option<(f64, f64)> {
    let values = sorted(values.iter().copied());
    let count = values.len();
    // How likely it is that so many or fewer lie below the median, for 0, 1, ...
    let mut term = 0.5f64.powi(i32::try_from(count).ok()?);
    let (mut below, mut outside) = (0.0, None);
    for rank in 0..count / 2 {
        below += term;
        if 2.0 * below > 1.0 - SURE {
            break;
        }
        outside = Some(rank);
        term *= (count - rank) as f64 / (rank + 1) as f64;
    }
    let rank = outside?;
    Some((values[rank], values[count - 1 - rank]))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_in_the_middle() {
        assert_eq!(median([].into_iter()), None);
        assert_eq!(median([3.0, 1.0, 9.0].into_iter()), Some(3.0));
        assert_eq!(median([4.0, 1.0, 2.0, 9.0].into_iter()), Some(3.0));
    }

    #[test]
    fn the_interval_leaves_out_what_chance_may_put_on_one_side() {
        // Ranks of the sign test's tables for 95 %.
        let of = |count: u32| interval(&(1..=count).map(f64::from).rev().collect::<Vec<_>>());
        assert_eq!(of(5), None);
        assert_eq!(of(6), Some((1.0, 6.0)));
        assert_eq!(of(9), Some((2.0, 8.0)));
        assert_eq!(of(12), Some((3.0, 10.0)));
        assert_eq!(of(20), Some((6.0, 15.0)));
        assert_eq!(interval(&[]), None);
    }
}
