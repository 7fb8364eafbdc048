//! Tells the binary which commit and compiler it comes from.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
    println!("cargo:rerun-if-env-changed=MAITRED_COMMIT");
    let given = std::env::var("MAITRED_COMMIT").ok();
    let commit = given.unwrap_or_else(|| said_by("git", &["rev-parse", "--short=12", "HEAD"]));
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    println!("cargo:rustc-env=MAITRED_COMMIT={commit}");
    println!(
        "cargo:rustc-env=MAITRED_RUSTC={}",
        said_by(&compiler, &["--version"])
    );
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok();
    let text = output
        .filter(|o| o.status.success())
        .and_then(|o| String::from_utf8(o.stdout).ok());
    text.map_or_else(|| "unknown".to_owned(), |t| t.trim().to_owned())
}
