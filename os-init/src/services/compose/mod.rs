//! From a compose file to service files: what can be said is said, and what cannot is told.
//!
//! Source: the Compose specification, versions 1 and 2 of the format, and RancherOS v1's labels
//! `io.rancher.os.*` and `cron.schedule`; a cloud-config with `rancher: services:` is taken too. Pure.

mod text;
mod values;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::file::{NAME_MAX, ServiceFile};
use text::Document;
use values::{bytes, keys_or_list, list, pairs, scalar, seconds};

/// One service as it comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Its name here.
    pub name: String,
    /// Its service file.
    pub text: String,
    /// What was left out or is otherwise than there, a line each.
    pub notes: Vec<String>,
    /// Why the file cannot be used as it is.
    pub problem: Option<String>,
}

/// Services of RancherOS that there are here too, and their names.
const ELSEWHERE: [(&str, &str); 3] =
    [("network", "network"), ("console", "console"), ("ntp", "time")];
/// Keys that say nothing that would matter here.
const SILENT: [&str; 10] = [
    "cap_drop",
    "container_name",
    "hostname",
    "init",
    "logging",
    "ports",
    "pull_policy",
    "stdin_open",
    "tty",
    "uts",
];

/// Converts a whole file. `images` are the names by digest of images that the file names otherwise.
///
/// # Errors
/// It is no compose file: why.
pub fn convert(text: &str, images: &BTreeMap<String, String>) -> Result<Vec<Imported>, String> {
    let services = services(text)?;
    let names: BTreeMap<&str, String> =
        services.keys().map(|name| (name.as_str(), named(name))).collect();
    let convert = |(name, service): (&String, &Value)| {
        let Value::Object(service) = service else {
            return Err(format!("service `{name}` is no table"));
        };
        Ok(Service { names: &names, images, document: Document::default(), notes: Vec::new() }
            .convert(&named(name), service))
    };
    services.iter().map(convert).collect()
}

/// The images that the file names, as it names them.
///
/// # Errors
/// As [`convert`].
pub fn images(text: &str) -> Result<Vec<String>, String> {
    let services = services(text)?;
    let image = |service: &Value| Some(service.get("image")?.as_str()?.to_owned());
    Ok(services.values().filter_map(image).collect())
}

fn services(text: &str) -> Result<Map<String, Value>, String> {
    let value: Value = serde_saphyr::from_str(text)
        .map_err(|error| error.to_string().lines().next().unwrap_or("not YAML").to_owned())?;
    let found = value.pointer("/rancher/services").or_else(|| value.get("services"));
    let found = match found {
        Some(found) => found,
        // Version 1 has the services at its top.
        None => &value,
    };
    match found {
        Value::Object(services) if !services.is_empty() => Ok(services.clone()),
        _ => Err("there are no services in it".into()),
    }
}

/// A name that a service may bear here.
fn named(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    name.chars().map(plain).take(NAME_MAX).collect()
}

struct Service<'a> {
    names: &'a BTreeMap<&'a str, String>,
    images: &'a BTreeMap<String, String>,
    document: Document,
    notes: Vec<String>,
}

impl Service<'_> {
    fn convert(mut self, name: &str, service: &Map<String, Value>) -> Imported {
        self.document.text("name", name);
        let labels = pairs(service.get("labels"));
        for (key, value) in service {
            if !self.take(key, value) && !SILENT.contains(&key.as_str()) {
                self.notes.push(format!("`{key}` has no counterpart and is left out"));
            }
        }
        self.program(service);
        self.namespaces(service);
        self.labels(&labels);
        if service.get("privileged").is_some_and(|it| it == &Value::Bool(true)) {
            self.notes.push(
                "`privileged`: here each privilege is named; add the capabilities, devices and \
                 mounts that it needs"
                    .into(),
            );
        }
        if !service.contains_key("restart") {
            self.document.text("restart", "never");
        }
        if !service.contains_key("cap_add") {
            let note = "it has no capability, where Docker gives fourteen: name what it needs";
            self.notes.push(note.into());
        }
        if service.get("read_only") != Some(&Value::Bool(true)) {
            self.notes.push(
                "its root is read-only here; `writable_root = true` and `memory_mib` let it write \
                 there, into memory"
                    .into(),
            );
        }
        let text = format!("format = 1\n{}", self.document.finish());
        let problem = ServiceFile::parse(&text).err().map(|why| why.to_string());
        Imported { name: name.to_owned(), text, notes: self.notes, problem }
    }

    /// Takes one key; whether it says anything here.
    fn take(&mut self, key: &str, value: &Value) -> bool {
        match key {
            "image" => self.image(value),
            "environment" => self.environment(value),
            "volumes" => self.volumes(value),
            "devices" => self.devices(value),
            "cap_add" => self.capabilities(value),
            "user" => match scalar(value).parse::<u32>() {
                Ok(user) => self.document.raw("user", &user.to_string()),
                Err(_) => {
                    self.notes.push("`user`: only a number can be named; the image's counts".into())
                }
            },
            "restart" => self.restart(&scalar(value)),
            "mem_limit" => match bytes(&scalar(value)) {
                Some(bytes) => {
                    self.document.raw("memory_mib", &bytes.div_ceil(1 << 20).max(1).to_string());
                }
                None => self.notes.push(format!("`mem_limit`: {} is no size", scalar(value))),
            },
            "pids_limit" => self.number("tasks", key, value),
            "oom_score_adj" => self.number("oom_score_adj", key, value),
            "stop_grace_period" => match seconds(&scalar(value)) {
                Some(seconds) => self.document.raw("stop_s", &seconds.to_string()),
                None => {
                    self.notes.push(format!("`stop_grace_period`: {} is no time", scalar(value)))
                }
            },
            "healthcheck" => self.health(value),
            "depends_on" => self.order("requires", &keys_or_list(value)),
            "links" => self.order("after", &list(value)),
            // Looked at together, below.
            "command" | "entrypoint" | "labels" | "privileged" | "read_only" | "net"
            | "network_mode" | "pid" | "ipc" => {}
            _ => return false,
        }
        true
    }

    fn image(&mut self, value: &Value) {
        let name = scalar(value);
        let by_digest = self.images.get(&name).cloned();
        if by_digest.is_none() && !name.contains('@') {
            self.notes.push(format!("`image`: put the digest in the place of the tag of {name}"));
        }
        self.document.text("image", &by_digest.unwrap_or(name));
    }

    /// What is run: the image's program with other arguments, or another program.
    fn program(&mut self, service: &Map<String, Value>) {
        let entrypoint = self.words("entrypoint", service.get("entrypoint"));
        let command = self.words("command", service.get("command"));
        match (entrypoint, command) {
            (Some(program), more) => {
                let words = program.into_iter().chain(more.into_iter().flatten());
                self.document.list("command", words.collect());
            }
            (None, Some(arguments)) => self.document.list("args", arguments),
            (None, None) => {}
        }
    }

    /// A list, or a line of words.
    fn words(&mut self, key: &str, value: Option<&Value>) -> Option<Vec<String>> {
        match value? {
            Value::Null => None,
            Value::String(line) => {
                if line.contains(['"', '\'', '\\']) {
                    self.notes.push(format!("`{key}`: quotes in a line mean nothing here"));
                }
                self.no_variables(key, line);
                Some(line.split_whitespace().map(str::to_owned).collect())
            }
            other => {
                let words = list(other);
                self.no_variables(key, &words.join(" "));
                Some(words)
            }
        }
    }

    /// Compose puts its own environment in the place of `$NAME`, and `$` in that of `$$`.
    fn no_variables(&mut self, key: &str, text: &str) {
        if text.contains('$') {
            self.notes.push(format!("`{key}`: nothing is put in the place of `$` here: {text}"));
        }
    }

    fn number(&mut self, key: &str, from: &str, value: &Value) {
        match scalar(value).parse::<i64>() {
            Ok(number) => self.document.raw(key, &number.to_string()),
            Err(_) => self.notes.push(format!("`{from}`: {} is no number", scalar(value))),
        }
    }

    fn capabilities(&mut self, value: &Value) {
        let mut names = Vec::new();
        for name in list(value) {
            let name = name.to_ascii_uppercase();
            match name.strip_prefix("CAP_").unwrap_or(&name) {
                "ALL" => {
                    self.notes.push("`cap_add`: name the capabilities, not all of them".into())
                }
                name => names.push(format!("CAP_{name}")),
            }
        }
        self.document.list("capabilities", names);
    }

    fn environment(&mut self, value: &Value) {
        for (name, value) in pairs(Some(value)) {
            match value {
                Some(value) => {
                    self.no_variables("environment", &value);
                    self.document.entry("env", &name, &value);
                }
                None => self.notes.push(format!("`environment`: {name} is not taken from outside")),
            }
        }
    }

    fn volumes(&mut self, value: &Value) {
        for volume in list(value) {
            let mut parts = volume.split(':');
            let (source, target, mode) = (parts.next(), parts.next(), parts.next());
            match (source, target) {
                (Some(source), Some(target)) if source.starts_with('/') => {
                    let write = !mode.unwrap_or_default().split(',').any(|it| it == "ro");
                    self.document.mount(source, target, write);
                }
                _ => self.notes.push(format!(
                    "`volumes`: {volume} is no path of the machine; mount a folder below /var/data"
                )),
            }
        }
    }

    fn devices(&mut self, value: &Value) {
        let mut devices = Vec::new();
        for device in list(value) {
            match device.split(':').collect::<Vec<_>>().as_slice() {
                [host] => devices.push((*host).to_owned()),
                [host, inside, rights @ ..] if host == inside => match rights {
                    [rights] if !rights.contains('w') => self.notes.push(format!(
                        "`devices`: {device} cannot be shown for reading alone, and is left out"
                    )),
                    _ => devices.push((*host).to_owned()),
                },
                _ => self.notes.push(format!("`devices`: {device} cannot appear elsewhere")),
            }
        }
        self.document.list("devices", devices);
    }

    fn restart(&mut self, word: &str) {
        let restart = match word.split(':').next().unwrap_or_default() {
            "always" | "unless-stopped" => "always",
            "on-failure" => "on-failure",
            _ => "never",
        };
        self.document.text("restart", restart);
    }

    fn health(&mut self, value: &Value) {
        let test = value.get("test").map(|test| match test {
            Value::String(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
            other => list(other),
        });
        let words = match test.as_deref() {
            Some([kind, words @ ..]) if kind == "CMD" => words.to_vec(),
            Some([kind, line]) if kind == "CMD-SHELL" => {
                vec!["/bin/sh".into(), "-c".into(), line.clone()]
            }
            _ => return self.notes.push("`healthcheck`: without a test there is none".into()),
        };
        self.no_variables("healthcheck", &words.join(" "));
        let time = |key: &str| value.get(key).and_then(|it| seconds(&scalar(it)));
        let numbers = [
            ("interval_s", time("interval")),
            ("timeout_s", time("timeout")),
            ("start_s", time("start_period")),
            ("retries", value.get("retries").and_then(Value::as_u64)),
        ];
        self.document.health(words, &numbers);
    }

    /// Services that come earlier, as far as there are such here.
    fn order(&mut self, key: &str, whom: &[String]) {
        let mut known = Vec::new();
        for name in whom {
            let name = name.split(':').next().unwrap_or_default().trim();
            match (self.names.get(name), ELSEWHERE.iter().find(|(it, _)| *it == name)) {
                (Some(own), _) => known.push(own.clone()),
                (None, Some((_, here))) => known.push((*here).to_owned()),
                (None, None) => {
                    self.notes.push(format!("`{key}`: there is no service `{name}` here"))
                }
            }
        }
        self.document.more(key, known);
    }

    fn namespaces(&mut self, service: &Map<String, Value>) {
        let word = |key: &str| service.get(key).map(scalar).unwrap_or_default();
        let network = [word("network_mode"), word("net")].concat();
        let mut own = Vec::new();
        own.extend((word("pid") != "host").then(|| "pid".to_owned()));
        own.extend((word("ipc") != "host").then(|| "ipc".to_owned()));
        match network.as_str() {
            "none" => own.push("network".into()),
            "host" => {}
            _ => self
                .notes
                .push("it shares the machine's network: a port is open as it opens it".into()),
        }
        self.document.list("namespaces", own);
    }

    fn labels(&mut self, labels: &[(String, Option<String>)]) {
        let mut kind = None;
        for (label, value) in labels {
            let value = value.clone().unwrap_or_default();
            let listed: Vec<String> = value.split(',').map(|it| it.trim().to_owned()).collect();
            match label.as_str() {
                "io.rancher.os.after" => self.order("after", &listed),
                "io.rancher.os.before" => {
                    let (own, built_in): (Vec<_>, Vec<_>) =
                        listed.into_iter().partition(|it| self.names.contains_key(it.as_str()));
                    for name in built_in {
                        self.notes
                            .push(format!("`before`: `{name}` waits for no service of yours"));
                    }
                    self.order("before", &own);
                }
                "io.rancher.os.detach" if value == "false" => kind = Some("oneshot"),
                "cron.schedule" => {
                    kind = Some("scheduled");
                    // Its six fields begin with seconds.
                    let fields: Vec<&str> = value.split_whitespace().collect();
                    let fields = if fields.len() == 6 { &fields[1..] } else { &fields };
                    if fields.len() == 5 {
                        self.notes.push(format!(
                            "`cron.schedule`: read as minute, hour, day, month, weekday: {}",
                            fields.join(" ")
                        ));
                    }
                    self.document.text("schedule", &fields.join(" "));
                }
                "io.rancher.os.createonly" => self.notes.push(
                    "`createonly`: there are no containers that only hold volumes; mount folders"
                        .into(),
                ),
                "io.rancher.os.scope" | "io.rancher.os.detach" | "io.rancher.os.reloadconfig" => {}
                other => self.document.entry("labels", other, &value),
            }
        }
        if let Some(kind) = kind {
            self.document.text("kind", kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::file::{Kind, Namespace, Restart};

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn converted(text: &str) -> Vec<Imported> {
        let by_digest = |name: &str| (name.to_owned(), format!("registry/{name}@{DIGEST}"));
        let images = BTreeMap::from(["web", "db"].map(by_digest));
        convert(text, &images).unwrap()
    }

    fn one(text: &str) -> (ServiceFile, Vec<String>) {
        let all = converted(text);
        let [Imported { text, notes, problem, .. }] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(problem, &None, "{text}");
        (ServiceFile::parse(text).unwrap(), notes.clone())
    }

    #[test]
    fn a_compose_file_says_what_a_service_file_says() {
        let (file, notes) = one(r#"
version: "2"
services:
  Web_1:
    image: web
    entrypoint: ["/bin/web", "--port"]
    command: "80 quick"
    environment: { A: "1", B: "two words", C: "quote \" and ü" }
    volumes: ["/var/data/web:/data", "/etc/hosts:/etc/hosts:ro"]
    devices: ["/dev/fuse"]
    cap_add: [NET_ADMIN, SYS_TIME]
    user: "1000"
    network_mode: host
    pid: host
    restart: on-failure:3
    mem_limit: 64m
    pids_limit: 100
    stop_grace_period: 1m30s
    read_only: true
    healthcheck: { test: ["CMD", "/bin/check", "-q"], interval: 30s, timeout: 1500ms, retries: 5 }
    labels: { io.rancher.os.scope: system, team: "blue" }
"#);
        assert_eq!(notes, Vec::<String>::new());
        assert_eq!(file.name, "web-1");
        assert_eq!(file.image.as_deref(), Some(&*format!("registry/web@{DIGEST}")));
        assert_eq!(file.command, ["/bin/web", "--port", "80", "quick"]);
        assert_eq!(file.env["C"], "quote \" and ü");
        assert_eq!((file.mounts[0].write, file.mounts[1].write), (true, false));
        assert_eq!((file.mounts[0].target(), file.user), ("/data", Some(1000)));
        assert_eq!(file.capabilities, ["CAP_NET_ADMIN", "CAP_SYS_TIME"]);
        assert_eq!(file.namespaces, [Namespace::Ipc]);
        assert_eq!(
            (file.restart(), file.memory_mib, file.tasks),
            (Restart::OnFailure, Some(64), 100)
        );
        assert_eq!((file.stop_s, file.labels["team"].as_str()), (90, "blue"));
        let health = file.health.unwrap();
        assert_eq!(health.exec.unwrap(), ["/bin/check", "-q"]);
        assert_eq!((health.interval_s, health.timeout_s, health.retries), (30, 2, 5));
    }

    #[test]
    fn the_labels_of_rancheros_are_understood() {
        let text = r#"
rancher:
  services:
    first:
      image: web
      command: [serve]
      privileged: true
      net: host
      labels:
      - io.rancher.os.detach=false
      - io.rancher.os.after=network, docker
      - io.rancher.os.before=console,second
    second:
      image: db
      net: host
      labels: { cron.schedule: "0 30 3 * * *", io.rancher.os.after: ntp }
"#;
        let all = converted(text);
        let file = |index: usize| ServiceFile::parse(&all[index].text).unwrap();
        let (first, second) = (file(0), file(1));
        assert_eq!((first.kind, first.args), (Kind::Oneshot, Some(vec!["serve".to_owned()])));
        assert_eq!(
            (first.after, first.before),
            (vec!["network".to_owned()], vec!["second".to_owned()])
        );
        assert_eq!((second.kind, second.after.clone()), (Kind::Scheduled, vec!["time".to_owned()]));
        assert!(second.schedule().unwrap().is_due(3 * 60 + 29, 3 * 60 + 30));
        let told = all[0].notes.join("\n");
        for word in ["`privileged`", "no service `docker`", "`console` waits for no service"] {
            assert!(told.contains(word), "{word}: {told}");
        }
        assert!(first.capabilities.is_empty(), "no privilege that nobody has named");
    }

    #[test]
    fn what_cannot_be_said_here_is_told() {
        let text = r#"
web:
  image: nginx:1.25
  command: sh -c "echo $HOME"
  volumes: [data:/data]
  environment: [FROM_OUTSIDE]
  sysctls: { net.core.somaxconn: 1024 }
  depends_on: [nobody]
"#;
        let all = converted(text);
        let told = all[0].notes.join("\n");
        for word in [
            "tag of nginx:1.25",
            "quotes",
            "place of `$`",
            "data:/data",
            "FROM_OUTSIDE",
            "`sysctls`",
            "nobody",
        ] {
            assert!(told.contains(word), "{word}: {told}");
        }
        assert!(all[0].problem.as_ref().unwrap().contains("a tag can move"));
        assert_eq!(images(text).unwrap(), ["nginx:1.25"]);
        for bad in ["", "a: [", "services: {}", "services: 3", "web: 7", "- a\n- b"] {
            assert!(convert(bad, &BTreeMap::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_grants_more_than_it_says() {
        let text = r#"
web:
  image: web
  pids_limit: "5\nnew_privileges = true"
  oom_score_adj: "x"
  cap_add: [ALL, cap_net_admin, SYS_TIME]
  devices: ["/dev/a:/dev/a:r", "/dev/b:/dev/b:rwm", "/dev/c:/dev/d"]
  labels: { 'a" = 1, new_privileges = true, "b': "x\ny" }
"#;
        let (file, notes) = one(text);
        assert!(!file.new_privileges && file.tasks == 512 && file.oom_score_adj == 0);
        assert_eq!(file.capabilities, ["CAP_NET_ADMIN", "CAP_SYS_TIME"]);
        assert_eq!(file.devices, ["/dev/b"]);
        assert_eq!((file.labels.len(), file.restart()), (1, Restart::Never));
        let told = notes.join("\n");
        for word in ["`pids_limit`", "`oom_score_adj`", "`cap_add`", "reading alone", "elsewhere"] {
            assert!(told.contains(word), "{word}: {told}");
        }
    }
}
