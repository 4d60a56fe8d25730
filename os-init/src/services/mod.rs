//! System services: each one a container whose root is the read-only OS itself.
//!
//! Reading order:
//! - [`file`]: what a service file says, parsed and checked;
//! - [`built_in`], [`operator`]: where such files lie; [`graph`]: who starts after whom, and what
//!   does not fit; [`definitions`]: all of that together;
//! - [`spec`]: the OCI runtime specification made from it, least privilege by default;
//! - [`supervisor`]: when a service is started and restarted, one enum and one match;
//! - [`runtime`]: containerd, the only place that talks to it, with [`roots`]; [`run`]: one run of one service,
//!   with [`health`] and [`notify`]: whether it is well;
//! - [`manage`]: the loop that performs all this, on [`supervised`] services; [`orders`]: what people ask of it;
//!   [`probes`], [`gate_facts`]: what the health gate asks;
//! - [`compose`]: service files from a compose file;
//! - [`console`], [`folders`], [`devices`], [`resolv`]: what the services find when they start;
//! - [`direct`]: a service without its container, when containerd does not start;
//! - [`wire`], [`serve`], [`status`], [`logs`]: what others may ask and what PID 1 is told;
//!   [`try_image`]: one service upgraded alone.

pub mod built_in;
#[cfg(feature = "compose")]
pub mod compose;
pub mod console;
pub mod definitions;
pub mod devices;
pub mod direct;
pub mod file;
pub mod folders;
#[cfg(feature = "containerd")]
pub mod gate_facts;
pub mod graph;
#[cfg(feature = "containerd")]
pub mod health;
pub mod images;
#[cfg(feature = "containerd")]
pub mod logs;
#[cfg(feature = "containerd")]
pub mod manage;
#[cfg(feature = "containerd")]
pub mod notify;
pub mod operator;
#[cfg(feature = "containerd")]
pub mod orders;
#[cfg(feature = "containerd")]
pub mod probes;
pub mod resolv;
#[cfg(feature = "containerd")]
pub mod roots;
#[cfg(feature = "containerd")]
pub mod run;
#[cfg(feature = "containerd")]
pub mod runtime;
pub mod schedule;
#[cfg(feature = "containerd")]
pub mod serve;
pub mod spec;
#[cfg(feature = "containerd")]
pub mod status;
#[cfg(feature = "containerd")]
pub mod supervised;
pub mod supervisor;
#[cfg(feature = "containerd")]
pub mod try_image;
pub mod upgrade;
#[cfg(feature = "wire")]
pub mod wire;
