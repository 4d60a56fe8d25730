//! What a compose file writes in several ways, read in one: texts, lists, pairs, sizes, times.

use serde_json::Value;

/// A value as text.
pub fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A list of texts; a single one is a list of one.
pub fn list(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().map(scalar).collect(),
        Value::Null => Vec::new(),
        other => vec![scalar(other)],
    }
}

pub fn keys_or_list(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map.keys().cloned().collect(),
        other => list(other),
    }
}

/// A table, or a list of `NAME=VALUE`; no value where there is none.
pub fn pairs(value: Option<&Value>) -> Vec<(String, Option<String>)> {
    match value {
        Some(Value::Object(map)) => map
            .iter()
            .map(|(key, value)| (key.clone(), Some(scalar(value)).filter(|_| !value.is_null())))
            .collect(),
        Some(other) => list(other)
            .into_iter()
            .map(|text| match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (text, None),
            })
            .collect(),
        None => Vec::new(),
    }
}

/// `512m`, `1g`, `100000`.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// `90`, `1m30s`, `2h`: whole seconds, at least one.
pub fn seconds(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    if let Ok(plain) = rest.parse() {
        return Some(plain);
    }
    let mut milliseconds: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        milliseconds =
            milliseconds.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = next;
    }
    Some(milliseconds.div_ceil(1000).max(1)).filter(|_| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        let sizes = ["1024", "64m", "1GB", "x", "1t", ""].map(bytes);
        assert_eq!(sizes, [Some(1024), Some(64 << 20), Some(1 << 30), None, None, None]);
        let times = ["10", "1m30s", "500ms", "2h", "x", "1x", ""].map(seconds);
        assert_eq!(times, [Some(10), Some(90), Some(1), Some(7200), None, None, None]);
    }
}
