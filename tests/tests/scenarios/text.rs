//! Scenario files: text that is read, and whose expected output can be written anew.
//!
//! A file holds scenarios, each opened by a line `scenario NAME`. A command is one line, optionally with an indented
//! input (YAML) under it, and optionally with `----` and the output it must have, up to the next empty line.

use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub file: PathBuf,
    pub name: String,
    pub commands: Vec<Command>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Counted from 1.
    pub line: usize,
    pub words: Vec<String>,
    /// The indented lines, without their indentation.
    pub input: String,
    pub expected: Option<String>,
    /// The lines (from 0) that the output and its `----` take; where it would go if there is none.
    output_lines: std::ops::Range<usize>,
}

pub fn parse(file: &Path, text: &str) -> Result<Vec<Scenario>, String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut scenarios: Vec<Scenario> = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        if line.trim().is_empty() || line.starts_with('#') {
            at += 1;
        } else if let Some(name) = line.strip_prefix("scenario ") {
            let name = name.trim().to_owned();
            scenarios.push(Scenario { file: file.to_owned(), name, commands: Vec::new() });
            at += 1;
        } else if line.starts_with(' ') || line.starts_with("----") {
            return Err(format!("{}:{}: this belongs to no command", file.display(), at + 1));
        } else {
            let Some(scenario) = scenarios.last_mut() else {
                return Err(format!("{}:{}: a command before the first scenario", file.display(), at + 1));
            };
            let command = command(&lines, &mut at).map_err(|e| format!("{}:{}: {e}", file.display(), at + 1))?;
            scenario.commands.push(command);
        }
    }
    Ok(scenarios)
}

fn command(lines: &[&str], at: &mut usize) -> Result<Command, String> {
    let mut command = Command { line: *at + 1, words: split(lines[*at])?, ..Command::default() };
    *at += 1;
    let start = *at;
    while *at < lines.len() && (lines[*at].starts_with("  ") || is_gap(lines, *at)) {
        *at += 1;
    }
    for line in &lines[start..*at] {
        command.input.push_str(line.strip_prefix("  ").unwrap_or_default());
        command.input.push('\n');
    }
    let first = *at;
    if lines.get(*at) == Some(&"----") {
        *at += 1;
        let start = *at;
        while *at < lines.len() && !lines[*at].is_empty() {
            *at += 1;
        }
        command.expected = Some(lines[start..*at].join("\n"));
    }
    command.output_lines = first..*at;
    Ok(command)
}

/// An empty line within an input: an indented line follows.
fn is_gap(lines: &[&str], at: usize) -> bool {
    let next = lines[at..].iter().find(|line| !line.trim().is_empty());
    lines[at].trim().is_empty() && next.is_some_and(|line| line.starts_with("  "))
}

/// Words, separated by blanks; double quotes keep blanks.
fn split(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(Some(word).filter(|w| !w.is_empty()));
    Ok(words)
}

/// The text with new outputs for the commands of one scenario.
pub fn rewrite(text: &str, scenario: &Scenario, outputs: &[String]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (command, output) in scenario.commands.iter().zip(outputs).rev() {
        let mut new = Vec::new();
        if !output.is_empty() {
            new.push("----".to_owned());
            new.extend(output.lines().map(str::to_owned));
        }
        let fresh = command.expected.is_none() && !new.is_empty();
        lines.splice(command.output_lines.clone(), new);
        let after = command.output_lines.start + output.lines().count() + 1;
        if fresh && lines.get(after).is_some_and(|line| !line.is_empty()) {
            lines.insert(after, String::new());
        }
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// What parsing and rewriting must keep; run as trials of their own.
pub fn check() -> Result<(), String> {
    let text =
        "# top\nscenario one thing\nnodes 2\napply\n  a: 1\n\n  b: \"x y\"\nshow pods \"a b\"\n----\nold\n\nend\n";
    let scenarios = parse(Path::new("f.txt"), text)?;
    let [one] = scenarios.as_slice() else { return Err(format!("{scenarios:?}")) };
    let inputs: Vec<&str> = one.commands.iter().map(|c| c.input.as_str()).collect();
    if one.name != "one thing" || inputs != ["", "a: 1\n\nb: \"x y\"\n", "", ""] {
        return Err(format!("{one:?}"));
    }
    if one.commands[2].words != ["show", "pods", "a b"] || one.commands[2].expected.as_deref() != Some("old") {
        return Err(format!("{one:?}"));
    }
    let outputs = ["made".to_owned(), String::new(), "new\nlines".to_owned(), String::new()];
    let new = rewrite(text, one, &outputs);
    let expected = "# top\nscenario one thing\nnodes 2\n----\nmade\n\napply\n  a: 1\n\n  b: \"x y\"\nshow pods \"a b\"\n----\nnew\nlines\n\nend\n";
    if new != expected {
        return Err(format!("rewritten:\n{new}"));
    }
    parse(Path::new("f.txt"), " lost\n").err().map(drop).ok_or_else(|| "a lost line is an error".to_owned())
}
