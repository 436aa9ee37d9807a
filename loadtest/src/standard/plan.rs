//! How the time of a standard set is shared out. Pure: what is left of it is told by who has a clock.

use super::lines::Line;

/// How many rounds a line may make so that all that is left makes as many within the time that is left; at least one while there is time.
/// `left` begins with the line itself.
pub(super) fn rounds(left: &[&Line], asked: u32, seconds_left: f64) -> u32 {
    let Some(line) = left.first() else {
        return 0;
    };
    if seconds_left <= 0.0 {
        return 0;
    }
    let most = line.rounds_max(asked.max(1));
    let fits = |rounds: u32| seconds(left, rounds) <= seconds_left;
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
        let made = rounds(&all.lines, 9, ALL - 30.0);
        assert!(made >= 2, "{made}");
    }

    #[test]
    fn rounds_grow_with_the_time_that_is_left_and_one_is_always_tried() {
        let all = chosen(&[1, 3]).unwrap().lines;
        assert_eq!(rounds(&all, 3, 1e6), 3);
        assert_eq!(rounds(&all, 3, 2.0 * 53.0), 2);
        assert_eq!(rounds(&all, 3, 5.0), 1);
        assert_eq!(rounds(&all, 3, 0.0), 0);
        assert_eq!(rounds(&[], 3, 9.0), 0);
        assert_eq!(rounds(&chosen(&[10]).unwrap().lines, 3, 1e6), 1);
    }

    #[test]
    fn a_spare_line_is_made_in_what_is_left_of_the_time() {
        let search = seconds(&[&SPARE[0]], 1);
        assert!(is_room_for(&SPARE[0], search) && !is_room_for(&SPARE[0], search - 1.0));
    }
}
