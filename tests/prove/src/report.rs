//! The report of `cargo xtask prove`: what each part found, as one JSON object and as a page.
//!
//! | file of the folder | from |
//! |---|---|
//! | `prove-simulation.json` | `prove` |
//! | `prove-vm.json` | `vm-prove` |
//! | `prove-model.log` | the model checker's test, one line `NAME: N states, …` for each world |
//! | `mutants.json` | `cargo xtask mutants`; may be absent, and is then told as not run |

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// What is assumed, in the words of ARCHITECTURE.md.
const ASSUMED: &[&str] = &[
    "A write of one sector leaves all other sectors alone. The sector itself may come out old, \
     new, torn or as garbage.",
    "A flush that returned has everything before it on stable media; writes between two flushes \
     may arrive in any order or not at all. In the loader the firmware's flush may do nothing: that \
     costs one extra try.",
    "The firmware starts the loader, which nothing writes to after the installation.",
    "Memory is honest, and SHA-256 holds.",
];

/// Reads the parts in `folder` and writes `prove.json` and `prove.html` there. Gives the object.
///
/// # Errors
/// A part that must be there is missing or no JSON; the message names the file.
pub fn write(folder: &Path) -> Result<Value, String> {
    let simulation = read_json(&folder.join("prove-simulation.json"))?;
    let vm = read_json(&folder.join("prove-vm.json"))?;
    let log = folder.join("prove-model.log");
    let model = fs::read_to_string(&log).map_err(|e| format!("read {}: {e}", log.display()))?;
    let model = model_states(&model);
    if model.is_empty() {
        return Err(format!("{} names no world: did the model checker run?", log.display()));
    }
    let list = folder.join("mutants.json");
    let mutants = if list.exists() { read_json(&list)? } else { Value::Null };
    let number = |part: &Value, name: &str| part.get(name).and_then(Value::as_u64).unwrap_or(0);
    let report = json!({
        "crash_states": number(&simulation, "crash_states"),
        "unbootable": number(&simulation, "unbootable") + number(&vm, "unbootable"),
        "rebuilt_from_vm": number(&vm, "rebuilt_from_vm"),
        "booted_from_vm": number(&vm, "booted_from_vm"),
        "killed_at_random": number(&vm, "killed_at_random"),
        "machine_years": number(&simulation, "machine_years"),
        "model_states": model.iter().map(|(_, states)| states).sum::<u64>(),
        "mutants": mutants.get("mutants"),
        "mutants_caught": mutants.get("mutants_caught"),
        "failures": number(&simulation, "failures"),
        "model": model.iter().map(|(name, states)| json!({"world": name, "states": states}))
            .collect::<Vec<_>>(),
        "simulation": simulation,
        "vm": vm,
    });
    put(&folder.join("prove.json"), &format!("{report:#}\n"))?;
    put(&folder.join("prove.html"), &page(&report))?;
    Ok(report)
}

fn read_json(path: &Path) -> Result<Value, String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|e| format!("read {shown}: {e}"))?;
    serde_json::from_str(&text).map_err(|e| format!("read {shown}: {e}"))
}

fn put(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("write {}: {e}", path.display()))
}

/// The worlds that the model checker went through, and how many states each has.
fn model_states(log: &str) -> Vec<(String, u64)> {
    let line = |line: &str| {
        let (name, rest) = line.split_once(": ")?;
        let (states, _) = rest.split_once(" states, ")?;
        Some((name.trim().to_owned(), states.parse().ok()?))
    };
    log.lines().filter_map(line).collect()
}

fn page(report: &Value) -> String {
    let mut rows = String::new();
    let words = [
        ("crash_states", "power cuts simulated over the product's own code"),
        ("rebuilt_from_vm", "disks rebuilt from the recorded writes of a real machine"),
        ("booted_from_vm", "of these started for real, from the firmware to the health gate"),
        ("killed_at_random", "power cuts of a running machine at moments that nothing has chosen"),
        ("machine_years", "machine-years lived, with bad releases, decay, cuts and operators"),
        ("model_states", "states of the slot rules gone through, every one"),
        ("mutants", "ways in which the product was broken on purpose"),
        ("mutants_caught", "of these seen by a test"),
        ("unbootable", "states that do not boot"),
    ];
    for (name, what) in words {
        let figure = report.get(name).filter(|it| !it.is_null());
        let figure = figure.map_or("not run".to_owned(), grouped);
        // Writing to a string does not fail.
        let _ = writeln!(rows, "<tr><td>{figure}</td><td>{what}</td></tr>");
    }
    let mut operations = String::new();
    for part in ["/simulation/crash_states_by_operation", "/vm/by_operation"] {
        for (name, states) in report.pointer(part).and_then(Value::as_object).into_iter().flatten()
        {
            let place = if part.starts_with("/vm") { "real machine" } else { "simulated" };
            let _ = writeln!(
                operations,
                "<tr><td>{}</td><td>{name}</td><td>{place}</td></tr>",
                grouped(states)
            );
        }
    }
    let assumed: String = ASSUMED.iter().map(|it| format!("<li>{it}</li>\n")).collect();
    let seeds = ["/simulation/seed", "/vm/seed"]
        .map(|at| report.pointer(at).map_or("none".to_owned(), ToString::to_string));
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Bascule: the flip, proven</title>\n\
         <style>body{{font:16px/1.5 sans-serif;max-width:46em;margin:2em auto;padding:0 1em}}\
         td:first-child{{text-align:right;padding-right:1em;font-variant-numeric:tabular-nums}}\
         </style>\n<h1>The flip, proven</h1>\n\
         <p>The promise: whatever moment the power goes, and whatever the disk makes of what it \
         had not flushed, the machine starts an intact image again.</p>\n\
         <table>\n{rows}</table>\n<h2>Where the power was cut</h2>\n<table>\n{operations}</table>\n\
         <h2>What is assumed</h2>\n<ul>\n{assumed}</ul>\n\
         <h2>How to see it again</h2>\n<p><code>cargo xtask prove</code>; the seeds were {} \
         (simulation) and {} (real machine). A state that does not boot is told with its whole \
         history.</p>\n",
        seeds[0], seeds[1]
    )
}

/// A number with a space between thousands.
fn grouped(number: &Value) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_become_one_report_and_a_missing_one_is_named() {
        let folder = std::env::temp_dir().join(format!("prove-report-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let put = |name: &str, text: &str| fs::write(folder.join(name), text).expect("a part");
        put(
            "prove-simulation.json",
            r#"{"crash_states": 1234, "unbootable": 1, "machine_years": 5, "seed": 9,
               "crash_states_by_operation": {"apply": 1234}}"#,
        );
        put(
            "prove-model.log",
            "running 2 tests\nupdates: 10 states, 0 loops\nmixed: 5 states, 1 loops\n",
        );
        let missing = write(&folder).expect_err("no prove-vm.json");
        assert!(missing.contains("prove-vm.json"), "{missing}");
        put("prove-vm.json", r#"{"rebuilt_from_vm": 7, "booted_from_vm": 2, "unbootable": 2}"#);
        let report = write(&folder).expect("all parts");
        let page = fs::read_to_string(folder.join("prove.html")).expect("a page");
        fs::remove_dir_all(&folder).expect("remove the folder");
        let number = |name: &str| report.get(name).and_then(Value::as_u64);
        assert_eq!(number("unbootable"), Some(3));
        assert_eq!(number("model_states"), Some(15));
        assert_eq!(report.get("mutants"), Some(&Value::Null), "not run is not none");
        assert!(page.contains("1\u{202f}234") && page.contains("not run"), "{page}");
    }
}
