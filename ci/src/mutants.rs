//! `cargo xtask mutants`: breaks the product on purpose, one fault at a time, and asks whether a
//! test sees it.
//!
//! A mutant is a file in `tests/mutants`: two lines of head, then a unified diff.
//!
//! ```text
//! # what: the record is not flushed
//! # tests: -p partition-layout --test power_cut
//! --- a/partition-layout/src/places.rs
//! +++ b/partition-layout/src/places.rs
//! …
//! ```
//!
//! `tests` are the words behind `cargo test`. All happens in a copy of the files that git knows, in
//! `target/mutants/tree`, which keeps its builds. A mutant that does not apply or does not compile,
//! and one whose tests do not end, is an error and not a catch: each catch names its test.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{place, setup, step};

/// Where the mutants are, from the root.
const FOLDER: &str = "tests/mutants";
/// What became of them, in the target folder.
pub const LIST: &str = "mutants.json";
/// The end of their file names.
const ENDING: &str = "patch";
/// The tests of one mutant have this many seconds: many times what they take.
const SECONDS_MAX: u32 = 300;
/// What `timeout` ends with when it had to end the command.
const TIMED_OUT: i32 = 124;

/// One way to break the product.
#[derive(Debug, PartialEq, Eq)]
struct Mutant {
    name: String,
    what: String,
    tests: Vec<String>,
    /// The files that it changes, from the root.
    files: Vec<String>,
}

/// What became of a mutant.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// The first test that failed.
    Caught(String),
    Survived,
    /// It says nothing about the tests: why.
    Broken(String),
}

struct Judged<'a> {
    mutant: &'a Mutant,
    fate: Fate,
    took: Duration,
}

/// Runs the named mutants, or all; `--list` only names them, `--json` prints what is also written
/// to `target/mutants.json`.
///
/// # Errors
/// The unmutated tests are red, a mutant survives, does not apply, does not compile or hangs, or a
/// name or an option is unknown.
pub fn run(words: &[&str]) -> Result<()> {
    let (options, names): (Vec<&str>, Vec<&str>) =
        words.iter().partition(|word| word.starts_with("--"));
    if let Some(unknown) = options.iter().find(|option| !["--list", "--json"].contains(option)) {
        bail!("no option {unknown}, there are --list and --json");
    }
    let mutants = load(&place::root().join(FOLDER), &names)?;
    if options.contains(&"--list") {
        for mutant in &mutants {
            println!("{:<36} {}", mutant.name, mutant.what);
        }
        return Ok(());
    }
    setup::run()?;
    let tree = Tree::fresh()?;
    tree.all_apply(&mutants)?;
    tree.is_green(&mutants)?;
    let mut judged = Vec::new();
    for (mutant, number) in mutants.iter().zip(1..) {
        let (fate, took) = tree.judge(mutant)?;
        let seconds = took.as_secs_f32();
        let count = mutants.len();
        eprintln!("  {number}/{count} {}: {} in {seconds:.1} s", mutant.name, words_of(&fate));
        judged.push(Judged { mutant, fate, took });
    }
    let all = names.is_empty();
    let json = json(&judged, if all { &tree.mark } else { "" });
    let file = place::target().join(LIST);
    fs::write(&file, &json).with_context(|| format!("write {}", file.display()))?;
    let shown = if options.contains(&"--json") { json } else { table(&judged) };
    print!("{shown}");
    let missed = judged.iter().filter(|one| !matches!(one.fate, Fate::Caught(_)));
    let missed: Vec<&str> = missed.map(|one| one.mutant.name.as_str()).collect();
    if !missed.is_empty() {
        bail!("not caught: {}", missed.join(", "));
    }
    Ok(())
}

/// The mutants of `folder`, or those with these names; such as share their tests are neighbours, so
/// that little is built twice.
fn load(folder: &Path, names: &[&str]) -> Result<Vec<Mutant>> {
    let listing = || format!("list {}", folder.display());
    let mut mutants = Vec::new();
    for entry in fs::read_dir(folder).with_context(listing)? {
        let path = entry.with_context(listing)?.path();
        if path.extension().is_none_or(|ending| ending != ENDING) {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        mutants.push(parse(&name, &text).with_context(|| format!("read {}", path.display()))?);
    }
    if let Some(unknown) = names.iter().find(|name| mutants.iter().all(|m| m.name != **name)) {
        bail!("no mutant {unknown}, see `cargo xtask mutants --list`");
    }
    mutants.retain(|mutant| names.is_empty() || names.contains(&mutant.name.as_str()));
    mutants.sort_by(|a, b| (&a.tests, &a.name).cmp(&(&b.tests, &b.name)));
    Ok(mutants)
}

fn parse(name: &str, text: &str) -> Result<Mutant> {
    let head = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map(str::trim).filter(|value| !value.is_empty()).with_context(|| {
            format!("there is no line `{key} …`, see `Adding a mutant` in docs/testing.md")
        })
    };
    let what = head("# what:")?.to_owned();
    let tests = head("# tests:")?.split_whitespace().map(str::to_owned).collect();
    let changed = text.lines().filter_map(|line| line.strip_prefix("+++ b/"));
    let files: Vec<String> = changed.map(|file| file.trim_end().to_owned()).collect();
    if files.is_empty() {
        bail!("there is no diff in it");
    }
    Ok(Mutant { name: name.to_owned(), what, tests, files })
}

/// Whether the list that an earlier run left is of all mutants of the files as they are.
///
/// # Errors
/// A file cannot be read.
pub fn list_is_of_this_tree() -> Result<bool> {
    let text = fs::read_to_string(place::target().join(LIST)).unwrap_or_default();
    Ok(text.contains(&tree_line(&mark(&place::root(), &known(&place::root())?)?)))
}

fn tree_line(mark: &str) -> String {
    format!("\"tree\": {}", quoted(mark))
}

/// The files that git knows.
fn known(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut git = Command::new("git");
    let listed = step::output(git.current_dir(root).args(["ls-files", "-z"]))?;
    Ok(listed.split_terminator('\0').map(PathBuf::from).collect())
}

/// Differs when one of these files does, but for those that are only read by people.
fn mark(root: &Path, known: &BTreeSet<PathBuf>) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    let counts = |file: &&PathBuf| file.extension().is_none_or(|it| it != "md");
    for file in known.iter().filter(counts) {
        let path = root.join(file);
        if path.exists() {
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            (file, bytes).hash(&mut hasher);
        }
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// The copy in which everything happens.
struct Tree {
    root: PathBuf,
    path: PathBuf,
    /// What was copied, see [`mark`].
    mark: String,
}

impl Tree {
    /// Makes the copy what the working tree is. A file that is the same is left, with its time, so
    /// that cargo builds only what is new.
    fn fresh() -> Result<Self> {
        let path = place::target().join("mutants/tree");
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("find {}", path.display()))?;
        let root = place::root();
        let known = known(&root)?;
        let tree = Self { mark: mark(&root, &known)?, root, path };
        tree.drop_others(Path::new(""), &known)?;
        for file in &known {
            tree.bring(file)?;
        }
        Ok(tree)
    }

    /// Removes what the working tree has no more, and what a test left.
    fn drop_others(&self, folder: &Path, known: &BTreeSet<PathBuf>) -> Result<()> {
        let listing = || format!("list {}", folder.display());
        for entry in fs::read_dir(self.path.join(folder)).with_context(listing)? {
            let entry = entry.with_context(listing)?;
            let file = folder.join(entry.file_name());
            if entry.file_type().with_context(listing)?.is_dir() {
                self.drop_others(&file, known)?;
            } else if !known.contains(&file) || !self.root.join(&file).exists() {
                fs::remove_file(entry.path())
                    .with_context(|| format!("remove {}", entry.path().display()))?;
            }
        }
        Ok(())
    }

    /// Brings one file from the working tree, if it differs.
    fn bring(&self, file: &Path) -> Result<()> {
        let (source, copy) = (self.root.join(file), self.path.join(file));
        if !source.exists() {
            return Ok(());
        }
        let bytes = fs::read(&source).with_context(|| format!("read {}", source.display()))?;
        if fs::read(&copy).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        let folder = copy.parent().unwrap_or(&self.path);
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        // Not with the time of the source: cargo goes by it, and it may be older than a build of
        // what was here before.
        fs::write(&copy, bytes).with_context(|| format!("write {}", copy.display()))
    }

    fn apply(&self, mutant: &Mutant, options: &[&str]) -> Result<()> {
        let patch = self.path.join(FOLDER).join(&mutant.name).with_extension(ENDING);
        let mut git = Command::new("git");
        git.current_dir(&self.path).arg("apply").args(options).arg(patch);
        // Inside a repository, git would leave out what lies outside of the folder, silently.
        git.env("GIT_CEILING_DIRECTORIES", self.path.parent().unwrap_or(&self.path));
        step::output(&mut git).map(drop)
    }

    fn all_apply(&self, mutants: &[Mutant]) -> Result<()> {
        let fails = mutants.iter().filter(|mutant| self.apply(mutant, &["--check"]).is_err());
        let fails: Vec<&str> = fails.map(|mutant| mutant.name.as_str()).collect();
        if !fails.is_empty() {
            bail!("the code is no longer what these were made for: {}", fails.join(", "));
        }
        Ok(())
    }

    /// Runs the tests of all mutants on the unmutated code.
    fn is_green(&self, mutants: &[Mutant]) -> Result<()> {
        let tests: BTreeSet<&[String]> = mutants.iter().map(|m| m.tests.as_slice()).collect();
        for words in tests {
            let name = format!("unmutated {}", words.join(" "));
            step::run(&name, &mut self.cargo_test(0, words))
                .context("the tests are red without any mutant")?;
        }
        Ok(())
    }

    fn judge(&self, mutant: &Mutant) -> Result<(Fate, Duration)> {
        self.apply(mutant, &[])?;
        let judged = self.tests_see(mutant);
        for file in &mutant.files {
            self.bring(Path::new(file))?;
        }
        judged
    }

    fn tests_see(&self, mutant: &Mutant) -> Result<(Fate, Duration)> {
        let name = format!("mutant {}", mutant.name);
        let no_run = [&["--no-run".to_owned()], &*mutant.tests].concat();
        let build = step::follow(&name, &mut self.cargo_test(0, &no_run))?;
        if !build.status.success() {
            let why = format!("does not compile, see {}", build.log.display());
            return Ok((Fate::Broken(why), build.took));
        }
        let tests = step::follow(&name, &mut self.cargo_test(SECONDS_MAX, &mutant.tests))?;
        let said = fs::read_to_string(&tests.log).unwrap_or_default();
        let fate = match (tests.status.success(), first_failed(&said)) {
            (true, _) => Fate::Survived,
            (false, Some(test)) if tests.status.code() != Some(TIMED_OUT) => Fate::Caught(test),
            (false, _) => Fate::Broken(format!(
                "its tests ended with {}, see {}",
                tests.status,
                tests.log.display()
            )),
        };
        Ok((fate, build.took + tests.took))
    }

    /// `cargo test` with these words in the copy, ended after so many seconds; 0 is never.
    fn cargo_test(&self, seconds_max: u32, words: &[String]) -> Command {
        let mut command = Command::new("timeout");
        command.arg(seconds_max.to_string());
        command.arg(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["test", "--locked"]).args(words).current_dir(&self.path);
        command.env("CARGO_TARGET_DIR", place::target().join("mutants/build"));
        command.env("CARGO_TERM_COLOR", "never");
        // A property is tried with the same cases each time, and leaves no file in the tree.
        command.env("PROPTEST_RNG_SEED", "1").env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
        command
    }
}

/// The first failed test in the output of `cargo test`.
fn first_failed(said: &str) -> Option<String> {
    said.lines().find_map(|line| {
        let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
        Some(name.to_owned())
    })
}

fn words_of(fate: &Fate) -> String {
    match fate {
        Fate::Caught(test) => format!("caught by {test}"),
        Fate::Survived => "SURVIVES".into(),
        Fate::Broken(why) => format!("ERROR, {why}"),
    }
}

fn table(judged: &[Judged]) -> String {
    let width = |text: fn(&Judged) -> usize| judged.iter().map(text).max().unwrap_or(0);
    let (names, whats) =
        (width(|it| it.mutant.name.len()), width(|it| it.mutant.what.chars().count()));
    let mut out = String::new();
    for Judged { mutant, fate, took } in judged {
        let (name, what, seconds) = (&mutant.name, &mutant.what, took.as_secs_f32());
        let fate = words_of(fate);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:<names$}  {what:<whats$}  {seconds:>5.1} s  {fate}");
    }
    let _ = writeln!(out, "{} mutants, {} caught", judged.len(), caught(judged));
    out
}

fn caught(judged: &[Judged]) -> usize {
    judged.iter().filter(|one| matches!(one.fate, Fate::Caught(_))).count()
}

fn json(judged: &[Judged], mark: &str) -> String {
    let list: Vec<String> = judged
        .iter()
        .map(|Judged { mutant, fate, took }| {
            let by = match fate {
                Fate::Caught(test) => quoted(test),
                Fate::Survived | Fate::Broken(_) => "null".into(),
            };
            let (name, what) = (quoted(&mutant.name), quoted(&mutant.what));
            let seconds = took.as_secs_f32();
            format!(
                "    {{\"name\": {name}, \"what\": {what}, \"caught_by\": {by}, \"seconds\": {seconds:.1}}}"
            )
        })
        .collect();
    let (all, caught, list) = (judged.len(), caught(judged), list.join(",\n"));
    let tree = tree_line(mark);
    format!(
        "{{\n  {tree},\n  \"mutants\": {all},\n  \"mutants_caught\": {caught},\n  \"list\": [\n{list}\n  ]\n}}\n"
    )
}

fn quoted(text: &str) -> String {
    let plain = text.chars().filter(|letter| !letter.is_control());
    let escaped = plain.flat_map(|letter| {
        matches!(letter, '"' | '\\').then_some('\\').into_iter().chain([letter])
    });
    format!("\"{}\"", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_says_what_it_breaks_and_who_shall_see_it() {
        let diff = "--- a/x/y.rs\n+++ b/x/y.rs\n@@ -1 +1 @@\n-a\n+b\n";
        let head = "# what: a is b\n# tests: -p x --test y\n";
        let read = parse("name", &format!("{head}{diff}"));
        let expected = Mutant {
            name: "name".into(),
            what: "a is b".into(),
            tests: ["-p", "x", "--test", "y"].map(str::to_owned).into(),
            files: vec!["x/y.rs".into()],
        };
        assert_eq!(read.ok(), Some(expected));
        let no_what = format!("# tests: -p x\n{diff}");
        for bad in [head, &no_what, &format!("# what:\n# tests: -p x\n{diff}")] {
            assert!(parse("name", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_failed_test_is_named() {
        let said = "running 2 tests\ntest a::good ... ok\ntest a::bad ... FAILED\n\nfailures:\n";
        assert_eq!(first_failed(said), Some("a::bad".into()));
        assert_eq!(first_failed("error: could not compile\n"), None);
    }

    #[test]
    fn the_report_is_json_whatever_is_in_a_name() {
        assert_eq!(quoted("a \"b\" \\ \u{7}c"), r#""a \"b\" \\ c""#);
    }
}
