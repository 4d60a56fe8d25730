//! A registry with a small release in it, a proxy that lies, and a machine to be updated.
//!
//! # Reading order
//! [`stock`] starts the registry and the stock tools; [`release`] makes a release; [`machine`] is
//! what it is installed on; [`tls`] is an https front; [`Field`] puts them together.

pub mod machine;
pub mod release;
pub mod stock;
pub mod tls;

use std::time::Duration;

use fault_proxy::{Faults, Proxy, Seen};
use update_manifest::sign::SigningKey;
use updater::engine::install::Report;
use updater::engine::plan::{Goal, Order, Outcome};
use updater::failure::{Class, Failure};
use updater::policy::{Direction, Leave};
use updater::registry::session::Credentials;
use updater::registry::transport::Patience;
use updater::registry::{Access, Reference, Registry};

use machine::Machine;
use release::Release;
use stock::Server;

/// Where the release is in the registry.
pub const REPOSITORY: &str = "bascule/os";
/// The tag that machines follow.
pub const TAG: &str = "stable";
/// The product of machines and releases.
pub const PRODUCT: &str = "bascule";
/// Their architecture.
pub const ARCH: &str = "x86_64";

/// Waits as in the field, but short: nothing here is far away.
pub const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(5),
    headers: Duration::from_secs(20),
    stall: Duration::from_secs(2),
    tries: 3,
    first_wait: Duration::from_millis(5),
    longest_wait: Duration::from_millis(40),
};

/// The key that signs what machines accept.
pub fn key() -> SigningKey {
    SigningKey::from_entropy(&[1; 32]).unwrap()
}

/// How a registry is reached without TLS and without a login.
pub fn access() -> Access {
    Access { plain_http: true, credentials: None, extra_ca: None, patience: PATIENCE }
}

/// Our client for the registry at `authority`.
pub fn client(authority: &str) -> Registry {
    Registry::new(authority, access()).unwrap()
}

/// A user name and a password.
pub fn credentials() -> Credentials {
    Credentials { username: "machine".into(), password: "secret".into() }
}

/// Release 2 in a real registry behind a proxy, and a machine that runs release 1.
pub struct Field {
    /// The proxy, with its switches.
    pub proxy: Proxy,
    /// The machine.
    pub machine: Machine,
    /// The release.
    pub release: Release,
    /// The registry behind the proxy.
    pub server: Server,
}

impl Field {
    /// Publishes and signs a release, with the proxy at rest.
    pub async fn start(name: &str) -> Field {
        let field = Field::unsigned(name).await;
        field.release.sign(&field.server.client(), &key()).await;
        field
    }

    /// Publishes a release without a signature, with the proxy at rest.
    pub async fn unsigned(name: &str) -> Field {
        let server = Server::start(name);
        let release = Release::new(2);
        release.publish(&server.client()).await;
        let proxy = Proxy::start("127.0.0.1:0", &server.authority, Faults::default()).unwrap();
        let machine = Machine::new(&server.folder, release.slot.len() as u64, &key());
        Field { proxy, machine, release, server }
    }

    /// `host:port` of the proxy.
    pub fn authority(&self) -> String {
        self.proxy.address().to_string()
    }

    /// Our client, through the proxy.
    pub fn client(&self) -> Registry {
        client(&self.authority())
    }

    /// Turns the switches and forgets what was seen.
    pub fn set(&self, faults: Faults) {
        self.proxy.set(faults);
        drop(self.proxy.take_seen());
    }

    /// Installs the release through the proxy.
    pub async fn install(&self) -> Report {
        self.install_with(self.client()).await
    }

    /// Installs the release through `registry`.
    pub async fn install_with(&self, registry: Registry) -> Report {
        self.order(registry, TAG, Goal::Arm, Direction::NotOlder).await
    }

    /// Carries out an order for what `tag` is in `registry`.
    pub async fn order(
        &self,
        registry: Registry,
        tag: &str,
        goal: Goal,
        direction: Direction,
    ) -> Report {
        let source = format!("{}/{REPOSITORY}:{tag}", registry.authority());
        let order = Order { goal, leave: Leave { quarantined: false, direction } };
        self.machine.install(registry, Reference::parse(&source).unwrap(), order).await
    }

    /// The requests for the layer since the last call.
    pub fn layer_requests(&self) -> Vec<Seen> {
        let digest = self.release.layer_listed.digest.to_string();
        let mut seen = self.proxy.take_seen();
        seen.retain(|seen| seen.path.contains(&digest));
        seen
    }

    /// Checks that `report` says that the release is armed, and that it is: in slot and record.
    pub fn is_armed(&self, report: &Report, case: &str) {
        assert_eq!(report.result, Ok(Outcome::Armed), "{case}");
        assert_eq!(report.digest, Some(self.release.image().digest), "{case}");
        assert!(self.machine.other_slot() == self.release.slot, "{case}: other bytes in the slot");
        assert!(self.machine.is_armed(), "{case}");
    }

    /// Checks that `report` is a failure of `class`, and that slot and record are as at first.
    pub fn is_untouched<'a>(&self, report: &'a Report, class: Class, case: &str) -> &'a Failure {
        let failure = match &report.result {
            Err(failure) => failure,
            Ok(outcome) => panic!("{case}: {outcome:?}"),
        };
        assert_eq!(failure.class, class, "{case}: {failure:?}");
        assert!(self.machine.is_as_at_first(), "{case}: slot or record was touched");
        failure
    }
}
