//! System services: each one a container whose root is the read-only OS itself.
//!
//! Reading order:
//! - [`file`]: what a service file says (`/usr/share/bascule/services/*.toml`), parsed and checked;
//! - [`built_in`]: reading those files;
//! - [`spec`]: the OCI runtime specification made from it, least privilege by default;
//! - [`supervisor`]: when a service is started and restarted, one enum and one match;
//! - [`runtime`]: containerd, the only place that talks to it;
//! - [`manage`]: the loop that performs all this; [`probes`]: what the health gate asks;
//! - [`console`], [`folders`], [`devices`], [`resolv`]: what the services find when they start;
//! - [`direct`]: a service without its container, when containerd does not start;
//! - [`status`], [`serve`]: what others may ask and what PID 1 is told.

pub mod built_in;
pub mod console;
pub mod devices;
pub mod direct;
pub mod file;
pub mod folders;
#[cfg(feature = "containerd")]
pub mod manage;
#[cfg(feature = "containerd")]
pub mod probes;
pub mod resolv;
#[cfg(feature = "containerd")]
pub mod runtime;
#[cfg(feature = "containerd")]
pub mod serve;
pub mod spec;
pub mod status;
pub mod supervisor;
