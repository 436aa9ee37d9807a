//! Devices under virtual time: every test lets a device live minutes or hours and looks at what it said.

mod bench;
mod calls;
mod faults;
mod life;
mod rules;
mod speech;
