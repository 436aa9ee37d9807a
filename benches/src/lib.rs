//! What the benches of Cauce share that can be judged without running one. How to run them: docs/BENCHMARKS.md, "Micro-benches".

pub mod instructions;
