//! Generates the wire types from the schema without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schema = "proto/cauce.proto";
    println!("cargo:rerun-if-changed={schema}");
    let descriptors = protox::compile([schema], ["proto"])?;
    prost_build::Config::new()
        // Payloads are slices of the buffer they were read into.
        .bytes(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
