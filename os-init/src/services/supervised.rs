//! One service under supervision, and what is remembered of it on `/run` for a later manager of the
//! same boot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::definitions::Definition;
use super::file::{Kind, ServiceFile};
use super::supervisor::{Policy, State};
use crate::console::warn;

/// Where it is remembered, in a folder for each kind of mark.
pub const MARKS: &str = "/run/bascule";
/// Services that a person has stopped, an empty file each.
const STOPPED: &str = "stopped";
/// Built-in services that do not run by the image that was chosen for them: a file each, which names
/// it.
const FELL_BACK: &str = "fell-back";
/// A built-in service is started so often by an image that was chosen for it.
const IMAGE_TRIES: u32 = 3;

/// What a service goes back to where an image on trial is not kept.
struct Before {
    definition: Definition,
    fell_back: Option<String>,
}

/// One service under supervision.
pub struct Supervised {
    /// By what it is started next.
    pub definition: Definition,
    /// Where it stands.
    pub state: State,
    /// How often it ended and was started again.
    pub restarts: u32,
    /// Why it does not run, or last stopped running.
    pub reason: Option<String>,
    /// Where its marks are.
    marks: PathBuf,
    /// By what it was started last.
    pub(super) runs_by: Option<Arc<ServiceFile>>,
    /// What was before an image was put on trial, which nothing but the end of the trial changes.
    trial: Option<Before>,
    /// It is stopped, and shall stay so, until somebody says otherwise.
    pub(super) by_hand: bool,
    /// The image that it does not run by in this boot, although it was chosen.
    fell_back: Option<String>,
    /// Its file is gone: it is forgotten once it has ended.
    pub(super) gone: bool,
}

impl Supervised {
    /// Not started yet, as its marks in `marks` say.
    pub(super) fn new(definition: Definition, marks: &Path) -> Self {
        let name = definition.file.name.clone();
        let by_hand = marks.join(STOPPED).join(&name).exists();
        let runs = definition.enabled && definition.missing.is_none() && !by_hand;
        let reason = match &definition.missing {
            _ if by_hand => Some("stopped".into()),
            Some(missing) => Some(missing.to_string()),
            None if !runs => Some("disabled".into()),
            None => None,
        };
        let state = match (runs, definition.file.kind) {
            (true, Kind::Scheduled) => State::Resting,
            (true, Kind::Daemon | Kind::Oneshot) => State::Waiting,
            (false, _) => State::Stopped,
        };
        let mut made = Self {
            fell_back: fs::read_to_string(marks.join(FELL_BACK).join(&name)).ok(),
            marks: marks.to_owned(),
            definition: definition.clone(),
            state,
            restarts: 0,
            reason,
            runs_by: None,
            trial: None,
            by_hand,
            gone: false,
        };
        made.take_definition(definition);
        made
    }

    /// Takes what the files say now, but for what is on trial or has failed in this boot.
    pub(super) fn take_definition(&mut self, definition: Definition) {
        if self.is_on_trial() {
            return;
        }
        self.definition = match &self.fell_back {
            Some(image) if definition.chosen() == image => {
                definition.by_its_own(failed_words(image))
            }
            _ => definition,
        };
    }

    /// Puts an image on trial: only `definition` counts until [`Self::end_trial`]. A person asks for
    /// it, so what it did before does not matter now.
    pub(super) fn begin_trial(&mut self, definition: Definition) {
        let fell_back = self.fell_back.take();
        let definition = std::mem::replace(&mut self.definition, definition);
        self.trial = Some(Before { definition, fell_back });
    }

    /// What was on trial is `kept`, or what was before is again; what the files say is taken after it.
    pub(super) fn end_trial(&mut self, kept: bool) {
        let Some(Before { definition, fell_back }) = self.trial.take() else { return };
        if kept {
            self.note(FELL_BACK, None);
        } else {
            (self.definition, self.fell_back) = (definition, fell_back);
        }
    }

    /// Whether only the end of a trial changes by what it runs.
    pub(super) fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// A built-in service that does not come up by an image that was chosen for it runs by its own:
    /// the machine is reached by it.
    pub(super) fn fall_back_if_failed(&mut self) {
        if matches!(self.state, State::Pausing { failures, .. } if failures >= IMAGE_TRIES) {
            self.fall_back();
        }
    }

    /// The same at once; whether there was anything to leave.
    pub(super) fn fall_back(&mut self) -> bool {
        let chosen = self.definition.chosen().to_owned();
        if !self.definition.built_in || chosen.is_empty() || self.is_on_trial() {
            return false;
        }
        let name = &self.definition.file.name;
        let why = failed_words(&chosen);
        warn(&format!("{name}: {why}; its own root runs until the next boot"));
        self.note(FELL_BACK, Some(&chosen));
        self.definition = self.definition.by_its_own(why);
        self.fell_back = Some(chosen);
        true
    }

    /// Whether a person has stopped it, for this manager and later ones of the same boot.
    pub(super) fn set_by_hand(&mut self, stopped: bool) {
        self.by_hand = stopped;
        self.note(STOPPED, stopped.then_some(""));
    }

    /// A scheduled service that only waits to be taken up by the clock.
    pub(super) fn may_rest(&self) -> bool {
        let Definition { file, enabled, missing, .. } = &self.definition;
        let idle = self.state == State::Stopped && !self.by_hand && !self.gone;
        idle && *enabled && missing.is_none() && file.kind == Kind::Scheduled
    }

    /// Whether its time has come between two looks at the clock, in minutes since 1970.
    pub(super) fn is_due(&self, before: u64, now: u64) -> bool {
        let schedule = self.definition.file.schedule().filter(|_| self.definition.enabled);
        schedule.is_some_and(|it| it.is_due(before, now))
    }

    /// The image that it was started by, or else is started by next.
    pub(super) fn image(&self) -> Option<&str> {
        let down = matches!(
            self.state,
            State::Waiting | State::Stopped | State::Resting | State::Done | State::Failed
        );
        let runs = self.runs_by.as_ref().filter(|_| !down);
        runs.unwrap_or(&self.definition.file).image.as_deref()
    }

    fn note(&self, kind: &str, text: Option<&str>) {
        let folder = self.marks.join(kind);
        let path = folder.join(&self.definition.file.name);
        let done = match text {
            Some(text) => fs::create_dir_all(&folder).and_then(|()| fs::write(&path, text)),
            None => fs::remove_file(&path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }),
        };
        if let Err(error) = done {
            warn(&format!("note in {}: {error}", path.display()));
        }
    }

    pub(super) fn policy(&self) -> Policy {
        let file = &self.definition.file;
        let (oneshot, asked) = (file.kind != Kind::Daemon, file.health.is_some());
        Policy { oneshot, restart: file.restart(), asked }
    }
}

fn failed_words(image: &str) -> String {
    format!("{image} did not get healthy in this boot")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::upgrade::Upgrade;

    fn image(digit: char) -> String {
        format!("registry/web@sha256:{}", String::from(digit).repeat(64))
    }

    /// A service of this name, built in or not, that runs by this image, which was chosen for it.
    fn definition(built_in: bool, chosen: Option<char>, rest: &str) -> Definition {
        let text = format!("format = 1\nname = \"unit-test\"\ncommand = [\"/x\"]\n{rest}");
        let file = ServiceFile::parse(&text).unwrap().with_image(chosen.map(image));
        Definition {
            file: Arc::new(file),
            own_image: None,
            upgrade: chosen.map(|digit| Upgrade::new(&image(digit), "", String::new())),
            set_aside: None,
            built_in,
            enabled: true,
            missing: None,
        }
    }

    /// With a folder of marks of its own, empty.
    fn supervised(test: &str, definition: Definition) -> Supervised {
        let marks = std::env::temp_dir().join(format!("marks-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&marks);
        Supervised::new(definition, &marks)
    }

    #[test]
    fn nothing_but_its_end_changes_a_trial() {
        let mut service = supervised("trial", definition(false, Some('a'), ""));
        service.begin_trial(definition(false, Some('b'), ""));
        // Another order has read the files meanwhile.
        service.take_definition(definition(false, Some('a'), ""));
        assert_eq!(service.definition.chosen(), image('b'));
        service.end_trial(false);
        assert_eq!(service.definition.chosen(), image('a'));
        service.begin_trial(definition(false, Some('b'), ""));
        service.end_trial(true);
        assert_eq!(service.definition.chosen(), image('b'), "also where the files cannot be read");
        service.take_definition(definition(false, Some('b'), ""));
        assert_eq!(service.definition.chosen(), image('b'), "it was kept");
    }

    #[test]
    fn a_built_in_service_leaves_an_image_that_keeps_failing() {
        let mut service = supervised("fall-back", definition(true, Some('a'), ""));
        service.state = State::Pausing { until_ms: 0, failures: IMAGE_TRIES - 1 };
        service.fall_back_if_failed();
        assert_eq!(service.definition.chosen(), image('a'));
        service.state = State::Pausing { until_ms: 0, failures: IMAGE_TRIES };
        service.fall_back_if_failed();
        assert_eq!(service.definition.chosen(), "");
        assert!(service.definition.set_aside.as_ref().unwrap().contains(&image('a')));
        // The files still say so.
        service.take_definition(definition(true, Some('a'), ""));
        assert_eq!(service.definition.chosen(), "");
        service.take_definition(definition(true, Some('b'), ""));
        assert_eq!(service.definition.chosen(), image('b'), "another one is another matter");
        // A later manager of the same boot.
        let later = Supervised::new(definition(true, Some('a'), ""), &service.marks.clone());
        assert_eq!(later.definition.chosen(), "");
        service.take_definition(definition(true, Some('a'), ""));
        service.begin_trial(definition(true, Some('a'), ""));
        assert_eq!(service.definition.chosen(), image('a'), "a person asks for it");
        service.end_trial(false);
        service.take_definition(definition(true, Some('a'), ""));
        assert_eq!(service.definition.chosen(), "", "it has failed once more");
        service.begin_trial(definition(true, Some('a'), ""));
        service.end_trial(true);
        let later = Supervised::new(definition(true, Some('a'), ""), &service.marks.clone());
        assert_eq!(later.definition.chosen(), image('a'), "and is well now");
        // An operator's own has no other root that it could run by.
        let marks = service.marks;
        let mut service = Supervised::new(definition(false, Some('a'), ""), &marks);
        assert!(!service.fall_back());
        fs::remove_dir_all(marks).unwrap();
    }

    #[test]
    fn a_scheduled_service_that_is_not_disabled_waits_for_the_clock() {
        let nightly = "kind = \"scheduled\"\nschedule = \"* * * * *\"";
        let mut service = supervised("nightly", definition(false, None, nightly));
        assert_eq!(service.state, State::Resting);
        assert!(service.is_due(7, 8));
        service.state = State::Stopped;
        assert!(service.may_rest());
        service.set_by_hand(true);
        assert!(!service.may_rest(), "a person has stopped it");
        let later = Supervised::new(definition(false, None, nightly), &service.marks.clone());
        assert!(later.by_hand && later.state == State::Stopped);
        service.set_by_hand(false);
        service.definition.enabled = false;
        assert!(!service.may_rest() && !service.is_due(7, 8));
        fs::remove_dir_all(service.marks).unwrap();
    }
}
