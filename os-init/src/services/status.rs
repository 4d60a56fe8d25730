//! What the manager shows of its services.

use super::manage::Manager;
use super::schedule::now_s;
use super::supervised::Supervised;
use super::supervisor::State;
use super::wire;
use std::fs;

impl Manager {
    /// Everything, with the gate's words.
    #[must_use]
    pub fn shown(&self, gate: String) -> wire::ServiceList {
        wire::ServiceList {
            services: self.services.iter().map(|(name, it)| self.one_shown(name, it)).collect(),
            left_out: self
                .left_out
                .iter()
                .map(|(name, reason)| wire::LeftOut { name: name.clone(), reason: reason.clone() })
                .collect(),
            gate,
        }
    }

    /// One service.
    #[must_use]
    pub fn one_shown(&self, name: &str, service: &Supervised) -> wire::Service {
        let definition = &service.definition;
        let file = &definition.file;
        let up_s = match service.state {
            State::Running { since_ms, .. } => Some(self.now_ms().saturating_sub(since_ms) / 1000),
            _ => None,
        };
        wire::Service {
            name: name.to_owned(),
            description: file.description.clone(),
            origin: if definition.built_in { "built-in" } else { "operator" }.into(),
            enabled: definition.enabled,
            state: service.state.word().into(),
            up_s,
            restarts: service.restarts,
            reason: self.reason(name, service),
            privileges: file.privileges(),
            // Read for who asks, not at every turn of the loop.
            memory_bytes: None,
            kind: file.kind.word().into(),
            next_s: file.schedule().filter(|_| definition.enabled).and_then(|it| it.next(now_s())),
            labels: file.labels.clone().into_iter().collect(),
            image: service.image().unwrap_or_default().to_owned(),
            own_image: definition.own_image.clone().unwrap_or_default(),
            set_aside: definition.set_aside.clone().unwrap_or_default(),
        }
    }

    fn reason(&self, name: &str, service: &Supervised) -> String {
        if matches!(service.state, State::Running { well: false, .. }) {
            return "has not said yet that it is well".into();
        }
        if service.state != State::Waiting {
            return service.reason.clone().unwrap_or_default();
        }
        if let Some((whom, state)) = self.blocked_by(name) {
            return format!("requires {whom}, which is {}", state.word());
        }
        match self.waits_for(name).as_slice() {
            [] => String::new(),
            names => format!("waits for {}", names.join(", ")),
        }
    }
}

/// What is charged to the service's cgroup, in bytes.
#[must_use]
pub fn memory(name: &str) -> Option<u64> {
    let path = format!("/sys/fs/cgroup/bascule/{name}/memory.current");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
