//! Bad files and the exact words about them: each `golden/*.toml` has a `.txt` beside it.

use std::path::Path;

use super::SECRETS;
use crate::config::ConfigSource;

/// Where the pairs are.
const FIXTURES: &str = "src/config/tests/golden";

fn complaint(file: &Path) -> String {
    let env = SECRETS.iter().copied().collect();
    match (ConfigSource {
        path: Some(file.to_owned()),
        env,
    })
    .load()
    {
        Ok(_) => "loads\n".into(),
        Err(errors) => format!("{errors}\n"),
    }
}

#[test]
fn bad_files_are_answered_in_the_expected_words() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in std::fs::read_dir(FIXTURES).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|e| e == "toml") {
            seen += 1;
            let found = complaint(&file);
            let expected = std::fs::read_to_string(file.with_extension("txt")).unwrap_or_default();
            if found != expected {
                wrong.push(format!(
                    "{}\nfound:\n{found}\nexpected:\n{expected}",
                    file.display()
                ));
            }
        }
    }
    assert!(seen >= 5, "the fixtures are not there");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
