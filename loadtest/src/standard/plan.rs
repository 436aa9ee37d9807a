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
    let fits = |rounds: u32| seconds(left, rounds) <= seconds_left;
    let fitting = (1..=asked).rev().find(|&rounds| fits(rounds));
    line.rounds_max(fitting.unwrap_or(1))
}

/// What these lines take if each makes so many rounds, as far as it makes rounds.
fn seconds(lines: &[&Line], rounds: u32) -> f64 {
    let of = |line: &&Line| f64::from(line.rounds_max(rounds)) * line.round_seconds;
    lines.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::super::set::chosen;
    use super::*;

    /// A quarter of an hour, in seconds: what the whole set may take.
    const ALL: f64 = 15.0 * 60.0;

    /// As `standard` asks, line by line, if each takes what it says.
    #[test]
    fn the_whole_set_fits_into_a_quarter_of_an_hour_with_two_rounds_at_least() {
        let all = chosen(&[]).unwrap();
        let mut left = ALL - 30.0;
        for at in 0..all.len() {
            let line = all[at];
            let made = rounds(&all[at..], 9, left);
            assert!(made >= line.rounds_max(2), "{}: {made}", line.title);
            left -= f64::from(made) * line.round_seconds;
        }
        assert!(left >= 0.0, "{left}");
    }

    #[test]
    fn rounds_grow_with_the_time_that_is_left_and_one_is_always_tried() {
        let all = chosen(&[1, 3]).unwrap();
        assert_eq!(rounds(&all, 3, 1e6), 3);
        assert_eq!(rounds(&all, 3, 2.0 * 53.0), 2);
        assert_eq!(rounds(&all, 3, 5.0), 1);
        assert_eq!(rounds(&all, 3, 0.0), 0);
        assert_eq!(rounds(&[], 3, 9.0), 0);
        assert_eq!(rounds(&chosen(&[7]).unwrap(), 3, 1e6), 1);
    }

    #[test]
    fn beside_itself_undisturbed_a_line_makes_three_rounds_at_least_and_memory_makes_one() {
        let noisy = chosen(&[9]).unwrap();
        let made = |asked, left| rounds(&noisy, asked, left);
        assert_eq!((made(2, 1e6), made(5, 1e6)), (3, 5));
        assert_eq!((made(1, 1e6), made(3, 20.0)), (1, 1));
        assert_eq!(rounds(&chosen(&[6]).unwrap(), 9, 1e6), 1);
    }

    #[test]
    fn within_the_process_five_rounds_are_made_unless_time_is_for_one_or_more_are_asked_for() {
        let line = chosen(&[10]).unwrap();
        let made = |asked, left| rounds(&line, asked, left);
        assert_eq!((made(3, 1e6), made(2, 1e6), made(9, 1e6)), (5, 5, 9));
        assert_eq!((made(3, 20.0), made(1, 1e6), made(3, 0.0)), (1, 1, 0));
    }
}
