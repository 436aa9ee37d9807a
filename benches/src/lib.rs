//! Micro-benches of Cauce: `cargo bench -p cauce-benches`. Figures that decisions rest on are kept in docs/BENCHMARKS.md.
