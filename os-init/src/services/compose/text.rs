//! The text of a service file, key by key. Strings and lists are written as JSON has them, which is
//! TOML too.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A service file that is being written.
#[derive(Debug, Default)]
pub struct Document {
    /// Key and value, in the order in which they came.
    plain: Vec<(String, String)>,
    /// Lists that grow.
    lists: BTreeMap<String, Vec<String>>,
    /// Tables of texts.
    tables: BTreeMap<String, Vec<(String, String)>>,
    mounts: Vec<String>,
    health: Option<String>,
}

impl Document {
    /// `key = "text"`.
    pub fn text(&mut self, key: &str, text: &str) {
        self.raw(key, &quoted(text));
    }

    /// `key = value`, as it is.
    pub fn raw(&mut self, key: &str, value: &str) {
        self.plain.push((key.to_owned(), value.to_owned()));
    }

    /// `key = ["…", …]`.
    pub fn list(&mut self, key: &str, values: Vec<String>) {
        self.raw(key, &serde_json::json!(values).to_string());
    }

    /// More entries of a list, each once; none makes no list.
    pub fn more(&mut self, key: &str, values: Vec<String>) {
        for value in values {
            let list = self.lists.entry(key.to_owned()).or_default();
            if !list.contains(&value) {
                list.push(value);
            }
        }
    }

    /// One entry of a table.
    pub fn entry(&mut self, table: &str, key: &str, value: &str) {
        self.tables.entry(table.to_owned()).or_default().push((key.to_owned(), value.to_owned()));
    }

    /// One mount.
    pub fn mount(&mut self, source: &str, target: &str, write: bool) {
        let write = if write { ", write = true" } else { "" };
        let (source, target) = (quoted(source), quoted(target));
        self.mounts.push(format!("{{ source = {source}, target = {target}{write} }}"));
    }

    /// A health probe that runs a program.
    pub fn health(&mut self, words: Vec<String>, numbers: &[(&str, Option<u64>)]) {
        let mut table = format!("{{ exec = {}", serde_json::json!(words));
        for (key, number) in numbers {
            if let Some(number) = number {
                // Writing to a String cannot fail.
                let _ = write!(table, ", {key} = {number}");
            }
        }
        self.health = Some(table + " }");
    }

    /// The text.
    pub fn finish(&self) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: &str| {
            // As above.
            let _ = writeln!(text, "{key} = {value}");
        };
        for (key, value) in &self.plain {
            line(key, value);
        }
        for (key, values) in &self.lists {
            line(key, &serde_json::json!(values).to_string());
        }
        if !self.mounts.is_empty() {
            line("mounts", &format!("[\n    {},\n]", self.mounts.join(",\n    ")));
        }
        if let Some(health) = &self.health {
            line("health", health);
        }
        for (table, entries) in &self.tables {
            let entries =
                entries.iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value)));
            line(table, &format!("{{ {} }}", entries.collect::<Vec<_>>().join(", ")));
        }
        text
    }
}

fn quoted(text: &str) -> String {
    serde_json::json!(text).to_string()
}
