//! Reads Rust source as text: blanks comments and literals, leaves out test items, and finds the
//! top-level modules that a file refers to.
//!
//! A text scan sees what is written, not what macros expand to; that is enough for layout rules.

use std::collections::BTreeSet;

/// The text with comments and the insides of literals turned into blanks; lines stay where they are.
pub(crate) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end == at {
            at += 1;
            continue;
        }
        for byte in out[at..end].iter_mut().filter(|b| **b != b'\n') {
            *byte = b' ';
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that starts at `at` ends; `at` itself if none does.
fn literal_end(text: &[u8], at: usize) -> usize {
    let rest = &text[at..];
    let before = at.checked_sub(1).map_or(b' ', |i| text[i]);
    let starts_word = !(before.is_ascii_alphanumeric() || before == b'_');
    if rest.starts_with(b"//") {
        at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())
    } else if rest.starts_with(b"/*") {
        at + block_comment_len(rest)
    } else if rest.starts_with(b"\"") {
        at + string_len(rest)
    } else if starts_word && (rest.starts_with(b"r\"") || rest.starts_with(b"r#")) {
        at + raw_string_len(rest).unwrap_or(0)
    } else if starts_word && (rest.starts_with(b"br\"") || rest.starts_with(b"br#")) {
        at + raw_string_len(&rest[1..]).map_or(0, |n| n + 1)
    } else if rest.starts_with(b"'") {
        at + char_len(rest)
    } else {
        at
    }
}

fn block_comment_len(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at < text.len() {
        if text[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string_len(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// `r"…"`, `r##"…"##`; `None` for a raw identifier.
fn raw_string_len(text: &[u8]) -> Option<usize> {
    let hashes = text[1..].iter().take_while(|b| **b == b'#').count();
    let body = 1 + hashes + 1;
    if text.get(body - 1) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let end = text[body..].windows(close.len()).position(|w| w == close);
    Some(end.map_or(text.len(), |end| body + end + close.len()))
}

/// The length of a character literal, 0 for a lifetime.
fn char_len(text: &[u8]) -> usize {
    if text.get(1) == Some(&b'\\') {
        return text[3..]
            .iter()
            .position(|b| *b == b'\'')
            .map_or(0, |end| 3 + end + 1);
    }
    // A character is at most four bytes; what follows a lifetime is not a quote that close, except
    // in `'a'` itself.
    let close = text
        .iter()
        .take(6)
        .skip(2)
        .position(|b| *b == b'\'')
        .map(|n| n + 2);
    close
        .filter(|end| std::str::from_utf8(&text[1..*end]).is_ok_and(|s| s.chars().count() == 1))
        .map_or(0, |end| end + 1)
}

/// Blanked text without the items under `#[cfg(test)]`.
pub(crate) fn production(text: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut rest = blank(text);
    let mut out = String::new();
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        let item = &rest[at + MARK.len()..];
        rest = item[item_len(item)..].to_owned();
    }
    out.push_str(&rest);
    out
}

/// An item ends with its block, or with a `;` outside brackets.
fn item_len(text: &str) -> usize {
    let (mut brackets, mut braces) = (0_i32, 0_i32);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b'{' => braces += 1,
            b'}' => braces -= 1,
            b';' => {}
            _ => continue,
        }
        let ends = byte == b';' || byte == b'}';
        if ends && brackets == 0 && braces <= 0 {
            return at + 1;
        }
    }
    text.len()
}

/// Top-level modules that blanked text refers to, by `crate::…` or by enough `super::`.
pub(crate) fn imports(text: &str, module_path: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        found.extend(heads(&text[at + "crate::".len()..]));
    }
    let root = "super::".repeat(module_path.len());
    for (at, _) in text.match_indices(&root) {
        let whole = !text[..at].ends_with("super::");
        found.extend(
            heads(&text[at + root.len()..])
                .into_iter()
                .filter(|_| whole),
        );
    }
    found
}

/// `a::b` → a; `{a::{b, c}, d}` → a, d. Types and macros at the crate's root are not modules.
fn heads(text: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let head = |text: &str| {
        let text = text.trim_start();
        let word: String = text.chars().take_while(|c| is_word(*c)).collect();
        let is_macro = text[word.len()..].starts_with('!');
        let is_module = word.starts_with(|c: char| c.is_lowercase()) && word != "self";
        (is_module && !is_macro).then_some(word)
    };
    let Some(group) = text.strip_prefix('{') else {
        return head(text).into_iter().collect();
    };
    let mut found: Vec<_> = head(group).into_iter().collect();
    let mut depth = 0_i32;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => found.extend(head(&group[at + 1..])),
            _ => {}
        }
    }
    found
}

pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|w| !w.is_empty())
}

pub(crate) fn has_comment(line: &str, code: &str) -> bool {
    line.find("//")
        .is_some_and(|at| code.get(at..).is_some_and(|rest| rest.trim().is_empty()))
}

pub(crate) fn fixed_port(line: &str) -> Option<u16> {
    let hosts = [
        "127.0.0.1:",
        "localhost:",
        "0.0.0.0:",
        "[::1]:",
        "[127, 0, 0, 1], ",
    ];
    hosts.iter().find_map(|host| {
        let at = line.find(host)? + host.len();
        let digits: String = line[at..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().ok().filter(|port| *port != 0)
    })
}

fn imported(text: &str, file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let path: Vec<_> = path.split('/').map(str::to_owned).collect();
    imports(&production(text), &path).into_iter().collect()
}

#[test]
fn imports_are_seen_however_they_are_written() {
    assert_eq!(imported("use crate::auth::Need;", "src/plan.rs"), ["auth"]);
    assert_eq!(
        imported(
            "use crate::{auth::{self, Need}, limit, plan::Plan};",
            "src/proxy.rs"
        ),
        ["auth", "limit", "plan"]
    );
    assert_eq!(
        imported("fn f() { crate::proxy::run() }", "src/config.rs"),
        ["proxy"]
    );
    assert_eq!(
        imported("use super::super::webhook::X;", "src/limit/key.rs"),
        ["webhook"]
    );
    assert!(imported("use super::key::X; use super::super::y::Z;", "src/a/b/c.rs").is_empty());
}

#[test]
fn comments_strings_and_tests_are_not_imports() {
    let text = r##"
        //! [`crate::proxy`]
        /* crate::app /* nested */ crate::server */
        const A: &str = "crate::app \" crate::server";
        const B: &str = r#"crate::app "quoted" "#;
        const C: char = '"'; fn f<'a>(x: &'a str) {} use crate::kernel::Id;
        #[cfg(test)]
        use crate::app::{A, B};
        #[cfg(test)]
        mod tests { use crate::proxy::X; fn g() { if true { } } }
        #[cfg(test)]
        mod more;
        fn last() { crate::telemetry::count() }
    "##;
    assert_eq!(imported(text, "src/auth.rs"), ["kernel", "telemetry"]);
}

#[test]
fn fixed_ports_are_seen() {
    assert_eq!(
        fixed_port(r#"TcpListener::bind("127.0.0.1:8080")"#),
        Some(8080)
    );
    assert_eq!(fixed_port(r#"TcpListener::bind("127.0.0.1:0")"#), None);
    assert_eq!(fixed_port("SocketAddr::from(([127, 0, 0, 1], 9))"), Some(9));
}
