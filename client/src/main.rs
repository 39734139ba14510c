//! sstp
fn main() {}
