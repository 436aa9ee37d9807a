//! How soon a thread runs once it has something to do, where others want its core too.
//!
//! Linux gives a core away in slices of some milliseconds, and who wakes waits for the end of another's slice unless its own
//! is shorter. A thread that answers messages works for some ten microseconds at a time: with a slice of 100 µs it goes before
//! those that compute, without getting more of the core than is its due. That needs no right. To go before others also when
//! it has had its due needs a priority, and that the right to it (`CAP_SYS_NICE`, or a limit on `nice` that allows it).
//!
//! What must stay true: only the calling thread is changed, and only if it is one of those that share the core fairly; a
//! real-time policy that an operator gave us stays as it is.
//!
//! Kernels before 6.12 take a slice and ignore it; other systems know none. This crate exists because no safe library has the
//! call: all `unsafe` code of the workspace is here.

use std::fmt;
use std::io;

/// The shortest slice that Linux grants (`sched(7)`: 100 µs to 100 ms).
pub const SLICE_NS: u64 = 100_000;

/// How far above the system's other work a thread goes: 0, as everything, to 20. As `nice` has it, with the sign turned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Priority(u8);

impl Priority {
    /// As everything else.
    pub const NORMAL: Self = Self(0);
    /// The highest there is.
    pub const MAX: Self = Self(20);

    /// None above [`Self::MAX`].
    pub fn new(above: u8) -> Option<Self> {
        (above <= Self::MAX.0).then_some(Self(above))
    }

    /// The value that `nice` would show.
    pub fn nice(self) -> i32 {
        -i32::from(self.0)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Lets this thread, and those that it starts from now on, run as soon as they have something to do. With
/// [`Priority::NORMAL`], the priority stays as it is and only the slice changes.
///
/// # Errors
/// `PermissionDenied` if the system allows no such priority; then nothing has changed. Whatever else the kernel says.
pub fn run_soon(priority: Priority) -> io::Result<()> {
    system::change(|schedule| {
        schedule.slice_ns = SLICE_NS;
        if priority != Priority::NORMAL {
            schedule.nice = priority.nice();
        }
    })
}

/// Lets this thread, and those that it starts from now on, go before others, and leaves its slice: for threads that spin. From
/// those a short slice takes the core sooner, because they have always had their due.
///
/// # Errors
/// As [`run_soon`].
pub fn outrank(priority: Priority) -> io::Result<()> {
    if priority == Priority::NORMAL {
        return Ok(());
    }
    system::change(|schedule| schedule.nice = priority.nice())
}

/// Gives back what [`run_soon`] gave: the slice as everybody's, and no priority above normal.
///
/// # Errors
/// Whatever the kernel says.
pub fn run_as_usual() -> io::Result<()> {
    system::change(|schedule| {
        schedule.slice_ns = 0;
        schedule.nice = schedule.nice.max(0);
    })
}

/// What of a thread's schedule we change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Schedule {
    nice: i32,
    /// 0 is the system's default.
    slice_ns: u64,
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::mem::size_of;

    use libc::{SCHED_BATCH, SCHED_OTHER, SYS_sched_getattr, SYS_sched_setattr, sched_attr, syscall};

    use super::Schedule;

    const THIS_THREAD: libc::pid_t = 0;
    const NO_FLAGS: libc::c_uint = 0;
    const ATTR_BYTES: libc::c_uint = size_of::<sched_attr>() as libc::c_uint;

    pub(super) fn change(change: impl FnOnce(&mut Schedule)) -> io::Result<()> {
        let mut attr = get()?;
        if !is_fair(&attr) {
            return Ok(());
        }
        let mut schedule = of(&attr);
        change(&mut schedule);
        attr.sched_nice = schedule.nice;
        attr.sched_runtime = schedule.slice_ns;
        set(&attr)
    }

    #[cfg(test)]
    pub(super) fn now() -> io::Result<Schedule> {
        get().map(|attr| of(&attr))
    }

    fn of(attr: &sched_attr) -> Schedule {
        Schedule {
            nice: attr.sched_nice,
            slice_ns: attr.sched_runtime,
        }
    }

    fn is_fair(attr: &sched_attr) -> bool {
        [SCHED_OTHER, SCHED_BATCH]
            .iter()
            .any(|&policy| u32::try_from(policy) == Ok(attr.sched_policy))
    }

    fn get() -> io::Result<sched_attr> {
        let mut attr = sched_attr {
            size: ATTR_BYTES,
            sched_policy: 0,
            sched_flags: 0,
            sched_nice: 0,
            sched_priority: 0,
            sched_runtime: 0,
            sched_deadline: 0,
            sched_period: 0,
        };
        // SAFETY: the kernel writes `ATTR_BYTES` bytes at most to the pointer (`sched_getattr(2)`: "size … of the sched_attr
        // structure"), which is so many bytes of a live, exclusively borrowed structure of integers, any value of which is
        // valid. It keeps no pointer.
        #[expect(unsafe_code)]
        let answer = unsafe {
            syscall(
                SYS_sched_getattr,
                THIS_THREAD,
                &raw mut attr,
                ATTR_BYTES,
                NO_FLAGS,
            )
        };
        checked(answer).map(|()| attr)
    }

    fn set(attr: &sched_attr) -> io::Result<()> {
        // SAFETY: the kernel reads `attr.size` bytes from the pointer, which `get` has set to what the live, borrowed
        // structure has, or to less. It keeps no pointer, and changes nothing in this process's memory.
        #[expect(unsafe_code)]
        let answer = unsafe { syscall(SYS_sched_setattr, THIS_THREAD, &raw const *attr, NO_FLAGS) };
        checked(answer)
    }

    fn checked(answer: libc::c_long) -> io::Result<()> {
        match answer {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    use super::Schedule;

    /// Nothing to change where there are no slices. A priority that nobody can give is an error.
    pub(super) fn change(change: impl FnOnce(&mut Schedule)) -> io::Result<()> {
        let mut schedule = Schedule { nice: 0, slice_ns: 0 };
        change(&mut schedule);
        match schedule.nice {
            0 => Ok(()),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// On a thread of its own: a schedule is a thread's.
    fn apart(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn a_short_slice_needs_no_right_and_leaves_the_priority() {
        apart(|| {
            let before = system::now().unwrap();
            run_soon(Priority::NORMAL).unwrap();
            let after = system::now().unwrap();
            assert_eq!(after.nice, before.nice);
            // Kernels before 6.12 tell of no slice.
            assert!([SLICE_NS, before.slice_ns].contains(&after.slice_ns), "{after:?}");
        });
    }

    #[test]
    fn a_thread_that_was_to_run_soon_runs_as_usual_again() {
        apart(|| {
            let before = system::now().unwrap();
            run_soon(Priority::NORMAL).unwrap();
            run_as_usual().unwrap();
            assert_eq!(
                system::now().unwrap(),
                Schedule {
                    nice: before.nice.max(0),
                    ..before
                }
            );
        });
    }

    #[test]
    fn a_priority_is_given_or_refused_with_nothing_changed() {
        apart(|| {
            let before = system::now().unwrap();
            match run_soon(Priority::new(5).unwrap()) {
                Ok(()) => assert_eq!(system::now().unwrap().nice, -5),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                    assert_eq!(system::now().unwrap(), before);
                }
            }
        });
    }

    #[test]
    fn a_thread_that_spins_keeps_its_slice() {
        apart(|| {
            let before = system::now().unwrap();
            outrank(Priority::NORMAL).unwrap();
            assert_eq!(system::now().unwrap(), before);
            if outrank(Priority::MAX).is_ok() {
                assert_eq!(system::now().unwrap(), Schedule { nice: -20, ..before });
            }
        });
    }

    #[test]
    fn what_one_thread_asks_for_changes_no_other() {
        let before = system::now().unwrap();
        apart(|| run_soon(Priority::NORMAL).unwrap());
        assert_eq!(system::now().unwrap(), before);
    }

    #[test]
    fn priorities_end_at_twenty() {
        assert_eq!(Priority::new(20).map(Priority::nice), Some(-20));
        assert_eq!(Priority::new(21), None);
    }
}
