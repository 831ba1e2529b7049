//! Writes Prometheus' text exposition format (version 0.0.4).

use std::fmt::Write;

#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// The two lines before a family's samples.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            self.write(format_args!("{label}=\"{}\"", escaped(value)));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        self.write(format_args!(" {value}\n"));
    }

    /// Lines that are in the format already.
    pub fn lines(&mut self, lines: &str) {
        self.0.push_str(lines);
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("a String takes every write");
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_prometheus_reads_them() {
        let mut text = Text::default();
        text.family("x_total", "counter", "Help.");
        text.sample("x_total", &[("a", "b\"c"), ("d", "")], 3.0);
        text.sample("y", &[], 0.25);
        let wanted = "# HELP x_total Help.\n# TYPE x_total counter\nx_total{a=\"b\\\"c\",d=\"\"} 3\ny 0.25\n";
        assert_eq!(String::from_utf8(text.into_bytes()).unwrap(), wanted);
    }
}
