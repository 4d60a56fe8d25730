//! Who starts after whom: the set of service files, put in order and checked.
//!
//! Pure. What is wrong is found here, before anything is started: at validation by `osctl`, and at
//! boot, where a wrong file costs its own service and those that need it, never a built-in one.

use super::file::{Invalid, Kind, ServiceFile};
use std::collections::{BTreeMap, BTreeSet};

/// Services that fit together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Graph {
    /// Each stands behind those it starts after; their `before` is in the others' `after`.
    pub ordered: Vec<ServiceFile>,
    /// What was left out: the name and the reason.
    pub refused: Vec<(String, Invalid)>,
}

/// Adds services to the built-in ones, in the order in which they start.
///
/// # Errors
/// The built-in ones do not fit among themselves.
pub fn arrange(built_in: Vec<ServiceFile>, added: Vec<ServiceFile>) -> Result<Graph, Invalid> {
    order(built_in.clone())?;
    let own: BTreeSet<&str> = built_in.iter().map(|file| file.name.as_str()).collect();
    let (mut refused, mut fitting) = (Vec::new(), Vec::new());
    for file in added {
        match stands_before(&file, &own) {
            Some(why) => refused.push((file.name, why)),
            None => fitting.push(file),
        }
    }
    loop {
        let why = match order(built_in.iter().chain(&fitting).cloned().collect()) {
            Ok(ordered) => return Ok(Graph { ordered, refused }),
            Err(why) => why,
        };
        let guilty: Vec<String> = match &why {
            Invalid::Duplicate(name) | Invalid::Unknown(name, _) | Invalid::Scheduled(name, _) => {
                vec![name.clone()]
            }
            Invalid::Cycle(names) => names.clone(),
            _ => Vec::new(),
        };
        let before = fitting.len();
        fitting.retain(|file| !guilty.contains(&file.name));
        if fitting.len() == before {
            return Err(why);
        }
        refused.extend(guilty.into_iter().map(|name| (name, why.clone())));
    }
}

/// A service that bears a built-in one's name, wants it to wait, or wants a say in the health gate.
fn stands_before(file: &ServiceFile, own: &BTreeSet<&str>) -> Option<Invalid> {
    if own.contains(file.name.as_str()) {
        return Some(Invalid::Duplicate(file.name.clone()));
    }
    if file.gate.is_some() {
        let rule = "is for built-in services: yours are no reason to leave a release";
        return Some(Invalid::Value("gate", rule.into()));
    }
    let whom = file.before.iter().find(|name| own.contains(name.as_str()))?;
    Some(Invalid::BeforeBuiltIn(file.name.clone(), whom.clone()))
}

/// Puts services in an order in which each stands behind those it starts after, and moves each
/// `before` into the other's `after`.
///
/// # Errors
/// A duplicate name, an unknown name, a scheduled one that is required, or a cycle: those in it, and no
/// others.
pub fn order(files: Vec<ServiceFile>) -> Result<Vec<ServiceFile>, Invalid> {
    let mut waiting: BTreeMap<String, ServiceFile> = BTreeMap::new();
    let mut later = Vec::new();
    for file in files {
        later.extend(file.before.iter().map(|whom| (file.name.clone(), whom.clone())));
        if let Some(twice) = waiting.insert(file.name.clone(), file) {
            return Err(Invalid::Duplicate(twice.name));
        }
    }
    for (who, whom) in later {
        let Some(file) = waiting.get_mut(&whom) else { return Err(Invalid::Unknown(who, whom)) };
        if !file.after.contains(&who) {
            file.after.push(who);
        }
    }
    for file in waiting.values() {
        if let Some(whom) = waits_for(file).find(|name| !waiting.contains_key(*name)) {
            return Err(Invalid::Unknown(file.name.clone(), whom.clone()));
        }
        let scheduled =
            |name: &&String| waiting.get(*name).is_some_and(|it| it.kind == Kind::Scheduled);
        if let Some(whom) = file.requires.iter().find(scheduled) {
            return Err(Invalid::Scheduled(file.name.clone(), whom.clone()));
        }
    }
    let mut ordered: Vec<ServiceFile> = Vec::new();
    while !waiting.is_empty() {
        let ready: Vec<String> = waiting
            .values()
            .filter(|file| !waits_for(file).any(|name| waiting.contains_key(name)))
            .map(|file| file.name.clone())
            .collect();
        if ready.is_empty() {
            return Err(Invalid::Cycle(cycle(waiting)));
        }
        ordered.extend(ready.iter().filter_map(|name| waiting.remove(name)));
    }
    Ok(ordered)
}

fn waits_for(file: &ServiceFile) -> impl Iterator<Item = &String> {
    file.after.iter().chain(&file.requires)
}

/// Those that wait for each other, among services of which each waits for another.
fn cycle(mut waiting: BTreeMap<String, ServiceFile>) -> Vec<String> {
    loop {
        let wanted: BTreeSet<String> = waiting.values().flat_map(waits_for).cloned().collect();
        let before = waiting.len();
        // Nobody waits for these: they only stand behind a cycle.
        waiting.retain(|name, _| wanted.contains(name));
        if waiting.len() == before {
            return waiting.into_keys().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strict_disk::random::Random;

    fn file(name: &str, rest: &str) -> ServiceFile {
        let head = format!("format = 1\nname = \"{name}\"\ncommand = [\"/bin/true\"]\n");
        ServiceFile::parse(&(head + rest)).unwrap()
    }

    fn named(name: &str, after: &[&str]) -> ServiceFile {
        file(name, &format!("after = {after:?}"))
    }

    fn names(files: Vec<ServiceFile>) -> Result<Vec<String>, Invalid> {
        order(files).map(|list| list.into_iter().map(|file| file.name).collect())
    }

    #[test]
    fn order_follows_after_before_and_requires() {
        for files in [
            vec![named("c", &["b"]), named("b", &["a"]), named("a", &[])],
            vec![named("c", &["b"]), named("b", &[]), file("a", "before = [\"b\"]")],
            vec![file("c", "requires = [\"b\"]"), named("b", &["a"]), named("a", &[])],
        ] {
            assert_eq!(names(files), Ok(vec!["a".into(), "b".into(), "c".into()]));
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let behind = vec![named("a", &["b"]), named("b", &["a"]), named("c", &["a"])];
        assert_eq!(names(behind), Err(Invalid::Cycle(vec!["a".into(), "b".into()])));
        assert_eq!(names(vec![named("a", &["a"])]), Err(Invalid::Cycle(vec!["a".into()])));
        for unknown in
            [named("a", &["z"]), file("a", "before = [\"z\"]"), file("a", "requires = [\"z\"]")]
        {
            assert_eq!(names(vec![unknown]), Err(Invalid::Unknown("a".into(), "z".into())));
        }
        let twice = vec![named("a", &[]), named("a", &[])];
        assert_eq!(names(twice), Err(Invalid::Duplicate("a".into())));
    }

    /// CF-6: what is wrong is refused by name, with those that need it; the rest starts.
    #[test]
    fn a_wrong_file_costs_itself_and_those_that_need_it() {
        let built_in = vec![named("network", &[]), named("console", &["network"])];
        let added = vec![
            named("good", &["console"]),
            named("x", &["y"]),
            named("y", &["x"]),
            named("behind", &["x"]),
            file("lost", "requires = [\"nowhere\"]"),
            file("pushy", "before = [\"network\"]"),
            file("judge", "gate = true"),
            named("network", &[]),
        ];
        let graph = arrange(built_in.clone(), added).unwrap();
        let order: Vec<&str> = graph.ordered.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(order, ["network", "console", "good"]);
        let mut out: Vec<&str> = graph.refused.iter().map(|(name, _)| name.as_str()).collect();
        out.sort_unstable();
        assert_eq!(out, ["behind", "judge", "lost", "network", "pushy", "x", "y"]);
        let why = |name: &str| {
            graph.refused.iter().find(|(it, _)| it == name).map(|(_, why)| why.to_string()).unwrap()
        };
        assert_eq!(why("x"), "these wait for each other: x, y");
        assert!(why("behind").contains("`x`, which does not exist or is left out"));
        assert!(why("pushy").contains("built-in services wait for no other"));
        assert_eq!(
            arrange(vec![named("a", &["a"])], built_in),
            Err(Invalid::Cycle(vec!["a".into()]))
        );
    }

    /// Whatever people write: nothing built in is lost, what is left out is told, and the order holds.
    #[test]
    fn any_set_of_files_leaves_an_order() {
        let mut random = Random::new(1);
        for _ in 0..500 {
            let built_in = vec![named("s0", &[]), named("s1", &["s0"])];
            let count = random.below(8);
            let mut added = Vec::new();
            for _ in 0..count {
                let mut lists = [(); 3].map(|()| Vec::new());
                for list in &mut lists {
                    let length = random.below(3);
                    list.extend((0..length).map(|_| format!("s{}", random.below(9))));
                }
                let [after, before, requires] = &lists;
                let rest =
                    format!("after = {after:?}\nbefore = {before:?}\nrequires = {requires:?}\n");
                added.push(file(&format!("s{}", random.below(9)), &rest));
            }
            let all: BTreeSet<String> = added.iter().map(|file| file.name.clone()).collect();
            let graph = arrange(built_in, added).unwrap();
            let place = |name: &String| graph.ordered.iter().position(|it| it.name == *name);
            for (here, file) in graph.ordered.iter().enumerate() {
                assert!(waits_for(file).all(|name| place(name).is_some_and(|it| it < here)));
            }
            assert!(place(&"s0".into()).is_some() && place(&"s1".into()).is_some());
            let told: BTreeSet<String> =
                graph.refused.iter().map(|(name, _)| name.clone()).collect();
            for name in &all {
                assert!(place(name).is_some() || told.contains(name), "{name} is not told");
            }
        }
    }

    #[test]
    fn nobody_requires_what_is_scheduled() {
        let nightly = file("nightly", "kind = \"scheduled\"\nschedule = \"0 3 * * *\"\n");
        let needs = file("needs", "requires = [\"nightly\"]\n");
        let graph =
            arrange(Vec::new(), vec![nightly, needs, named("later", &["nightly"])]).unwrap();
        let names: Vec<&str> = graph.ordered.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["nightly", "later"], "who only starts after it need not wait");
        assert!(
            matches!(graph.refused.as_slice(), [(name, Invalid::Scheduled(..))] if name == "needs")
        );
    }
}
