//! Rules about single files: the opening line, size, banned words, purity of plans, honest tests.

use super::Source;

/// Lines of a Rust file without its tests; beyond it a file has to be split.
const FILE_LINES_MAX: usize = 800;
/// Lines of a function: a reader keeps one on a screen.
const FUNCTION_LINES_MAX: usize = 120;
/// Bytes of any tracked file but the lock file.
const FILE_BYTES_MAX: usize = 256 * 1024;
/// Module names that say nothing.
const BANNED_MODULES: &[&str] = &["common", "util", "utils", "helper", "helpers", "manager", "misc"];
/// What a plan may not contain: it is a pure function.
const BANNED_IN_PLANS: &[&str] =
    &["async ", ".await", "Instant::now", "SystemTime::now", "Timestamp::now", "rand::", "tokio::", "std::fs"];

pub fn check(sources: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for source in sources {
        check_any(source, &mut out);
        if source.path.ends_with(".rs") {
            check_rust(source, &mut out);
        }
    }
    out
}

fn check_any(source: &Source, out: &mut Vec<String>) {
    if source.text.len() > FILE_BYTES_MAX && source.path != "Cargo.lock" {
        out.push(format!("{}: larger than {FILE_BYTES_MAX} bytes", source.path));
    }
}

fn check_rust(source: &Source, out: &mut Vec<String>) {
    let path = &source.path;
    if !source.text.starts_with("//!") {
        out.push(format!("{path}: the first line must say what the file is (//!)"));
    }
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    let folder = path.rsplit('/').nth(1).unwrap_or_default();
    if BANNED_MODULES.contains(&stem) || BANNED_MODULES.contains(&folder) {
        out.push(format!("{path}: a module name must say what is in it"));
    }
    let code = without_tests(&source.text);
    let lines = code.lines().count();
    if lines > FILE_LINES_MAX && !is_test(path) {
        out.push(format!("{path}: {lines} lines, the limit is {FILE_LINES_MAX}"));
    }
    for (name, lines) in long_functions(code) {
        out.push(format!("{path}: function {name} has {lines} lines, the limit is {FUNCTION_LINES_MAX}"));
    }
    if stem == "plan" {
        for banned in BANNED_IN_PLANS {
            if code.lines().any(|l| !l.trim_start().starts_with("//") && l.contains(banned)) {
                out.push(format!("{path}: a plan is pure, but this one says `{}`", banned.trim()));
            }
        }
    }
    for (number, line) in source.text.lines().enumerate() {
        // Spelled in two halves, so that this file does not find itself.
        for banned in [concat!("#[ig", "nore"), concat!("dbg", "!("), concat!("FIX", "ME"), concat!("X", "XX")] {
            if line.contains(banned) {
                out.push(format!("{path}:{}: `{banned}` is not allowed", number + 1));
            }
        }
        if line.contains(concat!(".g", "o:")) && line.contains("//") {
            out.push(format!("{path}:{}: cite upstream by symbol, not by line", number + 1));
        }
    }
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

/// The file up to its test module.
fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ").map_or(text, |end| &text[..end])
}

/// Functions over the limit: a function ends at the first line that closes at its own indentation.
fn long_functions(code: &str) -> Vec<(String, usize)> {
    let mut out = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (number, line) in code.lines().enumerate() {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        if let Some(name) = function_name(trimmed)
            && !line.trim_end().ends_with([';', '}'])
        {
            open = Some((number, format!("{indent}}}"), name.to_owned()));
        } else if let Some((start, end, name)) = &open
            && line == end
        {
            let lines = number - start + 1;
            if lines > FUNCTION_LINES_MAX {
                out.push((name.clone(), lines));
            }
            open = None;
        }
    }
    out
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_signature =
        before.split_whitespace().all(|w| w.starts_with("pub") || matches!(w, "const" | "async" | "unsafe" | "extern"));
    if !is_signature {
        return None;
    }
    after.split(['(', '<']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(path: &str, text: &str) -> Vec<String> {
        check(&[Source { path: path.to_owned(), text: text.to_owned() }])
    }

    #[test]
    fn a_good_file_passes() {
        assert_eq!(check_one("api/src/name.rs", "//! Names.\n\npub fn f() {\n}\n"), Vec::<String>::new());
    }

    #[test]
    fn bad_files_are_found() {
        assert_eq!(check_one("a/src/x.rs", "use std;\n").len(), 1);
        assert_eq!(check_one("a/src/utils.rs", "//! x\n").len(), 1);
        assert_eq!(check_one("a/src/helpers/x.rs", "//! x\n").len(), 1);
        assert_eq!(check_one("a/src/x.rs", &format!("//! x\n{}", "a\n".repeat(801))).len(), 1);
        assert_eq!(check_one("a/src/x.rs", concat!("//! x\n#[ig", "nore]\n")).len(), 1);
        assert_eq!(check_one("a/src/x/plan.rs", "//! x\nasync fn f() {}\n").len(), 1);
        assert_eq!(check_one("a/b.txt", &"x".repeat(FILE_BYTES_MAX + 1)).len(), 1);
    }

    #[test]
    fn a_long_function_is_found_by_name() {
        let text =
            format!("//! x\nimpl X {{\n    pub async fn long(&self) {{\n{}    }}\n}}\n", "        a();\n".repeat(120));
        let found = check_one("a/src/x.rs", &text);
        assert!(found.len() == 1 && found[0].contains("long"), "{found:?}");
    }
}
