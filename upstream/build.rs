//! Rebuilds the crate when a migration changes: the migrations are embedded in the binary.

fn main() {
    std::println!("cargo:rerun-if-changed=migrations");
}
