//! The project's tables of what the schemas lack, by type and field.

use std::collections::HashMap;

use serde_json::Value;

use crate::encode::{NUMBER_BITS, Zero};

/// One row of `merge-rules.tsv`.
#[derive(Clone, Debug, Default)]
pub struct MergeRule {
    pub list_type: String,
    pub list_map_keys: Vec<String>,
    pub patch_strategies: Vec<String>,
    pub patch_merge_key: String,
    pub map_type: String,
}

/// Facts by (type, field); field `.` is the type itself.
pub struct Tables {
    merge_rules: HashMap<(String, String), MergeRule>,
    zeros: HashMap<(String, String), Zero>,
    defaults: HashMap<(String, String), Value>,
    required: HashMap<String, Vec<String>>,
    numbers: HashMap<(String, String), u32>,
}

fn lines(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).map(|l| l.split('\t').collect())
}

fn text(field: &str) -> String {
    if field == "-" { String::new() } else { field.to_owned() }
}

fn list(field: &str) -> Vec<String> {
    if field == "-" { Vec::new() } else { field.split(',').map(str::to_owned).collect() }
}

/// `2.2.1` as the arena packs it.
fn packed(numbers: &str) -> u32 {
    let parse = |n: &str| n.parse::<u32>().ok().filter(|n| *n < 1 << NUMBER_BITS);
    let number = |n: &str| parse(n).unwrap_or_else(|| panic!("protobuf.tsv: bad number {n}"));
    numbers.split('.').rev().fold(0, |packed, n| packed << NUMBER_BITS | number(n))
}

impl Tables {
    pub fn read() -> Self {
        let mut tables = Self {
            merge_rules: HashMap::new(),
            zeros: HashMap::new(),
            defaults: HashMap::new(),
            required: HashMap::new(),
            numbers: HashMap::new(),
        };
        for row in lines(include_str!("../data/merge-rules.tsv")) {
            let rule = MergeRule {
                list_type: text(row[2]),
                list_map_keys: list(row[3]),
                patch_strategies: list(row[4]),
                patch_merge_key: text(row[5]),
                map_type: text(row[6]),
            };
            tables.merge_rules.insert((row[0].to_owned(), row[1].to_owned()), rule);
        }
        for row in lines(include_str!("../data/zero-values.tsv")) {
            for (at, zero) in [(1, Zero::Drop), (2, Zero::Emit), (3, Zero::Null)] {
                for field in list(row[at]) {
                    tables.zeros.insert((row[0].to_owned(), field), zero);
                }
            }
        }
        for row in lines(include_str!("../data/defaults.tsv")) {
            let value = serde_json::from_str(row[2]).unwrap_or_else(|e| panic!("defaults.tsv: {row:?}: {e}"));
            tables.defaults.insert((row[0].to_owned(), row[1].to_owned()), value);
        }
        for row in lines(include_str!("../data/required.tsv")) {
            tables.required.insert(row[0].to_owned(), list(row[1]));
        }
        for row in lines(include_str!("../data/protobuf.tsv")) {
            for field in row[1].split(' ') {
                let (name, numbers) = field.split_once('=').unwrap_or_else(|| panic!("protobuf.tsv: {row:?}"));
                tables.numbers.insert((row[0].to_owned(), name.to_owned()), packed(numbers));
            }
        }
        tables
    }

    pub fn numbers(&self, ty: &str, field: &str) -> u32 {
        self.numbers.get(&(ty.to_owned(), field.to_owned())).copied().unwrap_or_default()
    }

    pub fn required(&self, ty: &str) -> Vec<String> {
        self.required.get(ty).cloned().unwrap_or_default()
    }

    pub fn merge_rule(&self, ty: &str, field: &str) -> MergeRule {
        self.merge_rules.get(&(ty.to_owned(), field.to_owned())).cloned().unwrap_or_default()
    }

    pub fn zero(&self, ty: &str, field: &str) -> Zero {
        self.zeros.get(&(ty.to_owned(), field.to_owned())).copied().unwrap_or_default()
    }

    pub fn default(&self, ty: &str, field: &str) -> Option<&Value> {
        self.defaults.get(&(ty.to_owned(), field.to_owned()))
    }
}
