//! How the time of a standard set is shared out. Pure: what is left of it is told by who has a clock.

use super::lines::Line;

/// Rounds that each line is to have before time goes to a spare one: a median of one says little.
const ROUNDS_BEFORE_SPARE: u32 = 2;

/// How many rounds a line may make so that all that is left makes as many within the time that is left; at least one while there is time.
/// `left` begins with the line itself. What is `spare` gets its time before third rounds do.
pub(super) fn rounds(left: &[&Line], spare: &[&Line], asked: u32, seconds_left: f64) -> u32 {
    let Some(line) = left.first() else {
        return 0;
    };
    if seconds_left <= 0.0 {
        return 0;
    }
    let asked = asked.max(1);
    let behind = seconds(spare, 1);
    let kept = match seconds(left, asked.min(ROUNDS_BEFORE_SPARE)) + behind <= seconds_left {
        true => behind,
        false => 0.0,
    };
    let fits = |rounds: u32| seconds(left, rounds) + kept <= seconds_left;
    let most = line.rounds_max(asked);
    (1..=most).rev().find(|&rounds| fits(rounds)).unwrap_or(1)
}

/// Whether a spare line can be made in the time that is left.
pub(super) fn is_room_for(spare: &Line, seconds_left: f64) -> bool {
    seconds(&[spare], 1) <= seconds_left
}

/// What these lines take if each makes so many rounds, as far as it makes rounds.
fn seconds(lines: &[&Line], rounds: u32) -> f64 {
    let of = |line: &&Line| f64::from(line.rounds_max(rounds)) * line.round_seconds;
    lines.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::super::set::{SPARE, chosen};
    use super::*;

    /// A quarter of an hour, in seconds: what the whole set may take.
    const ALL: f64 = 15.0 * 60.0;

    #[test]
    fn the_whole_set_fits_into_a_quarter_of_an_hour_with_two_rounds_at_least() {
        let all = chosen(&[]).unwrap();
        let made = rounds(&all.lines, &all.spare, 9, ALL - 30.0);
        assert!(made >= 2, "{made}");
    }

    #[test]
    fn rounds_grow_with_the_time_that_is_left_and_one_is_always_tried() {
        let all = chosen(&[1, 3]).unwrap().lines;
        let rounds = |left: &[&Line], asked, seconds| rounds(left, &[], asked, seconds);
        assert_eq!(rounds(&all, 3, 1e6), 3);
        assert_eq!(rounds(&all, 3, 2.0 * 53.0), 2);
        assert_eq!(rounds(&all, 3, 5.0), 1);
        assert_eq!(rounds(&all, 3, 0.0), 0);
        assert_eq!(rounds(&[], 3, 9.0), 0);
        assert_eq!(rounds(&chosen(&[10]).unwrap().lines, 3, 1e6), 1);
    }

    #[test]
    fn a_spare_line_takes_time_from_third_rounds_and_none_from_second_ones() {
        let all = chosen(&[1, 3]).unwrap().lines;
        let spare = [&SPARE[0]];
        let (round, search) = (seconds(&all, 1), SPARE[0].round_seconds);
        let made = |seconds| rounds(&all, &spare, 3, seconds);
        assert_eq!(made(3.0 * round + search), 3);
        assert_eq!(made(3.0 * round + search - 1.0), 2);
        assert_eq!(made(2.0 * round + search), 2);
        // Not enough for it: then nothing is kept for it either.
        assert_eq!(made(2.0 * round + search - 1.0), 3);
        assert_eq!(made(2.0 * round), 2);
        assert_eq!(made(2.0 * round - 1.0), 1);
        assert!(is_room_for(&SPARE[0], search) && !is_room_for(&SPARE[0], search - 1.0));
    }
}
