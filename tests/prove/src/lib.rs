//! Prove the flip: every power cut in every operation, and long lives, over the product's own code.
//!
//! What runs is the product: the loader's session (`loader::session`), os-init's record helper and
//! its making of the state partition, the updater's plan, slot writer and rollback, and the rules and
//! formats of `partition_layout`. What is simulated is what they run on: the disk (`strict_disk`), the
//! firmware's hands, the network, time, and how a started image behaves.
//!
//! Reading order: [`layout`] and [`image`] (what lies on a disk), [`machine`] (disk and state, with
//! every write a point at which the power may go), [`world`], [`boot`] and [`update`] (the product at
//! work), [`crash`] and [`fates`] (every cut), [`scenarios`] (in what),
//! [`faults`] (damage without a cut), [`lives`] (years), [`run`] (all of it), [`report`].

pub mod anew;
pub mod boot;
pub mod crash;
pub mod fates;
pub mod faults;
pub mod image;
pub mod layout;
pub mod lives;
pub mod machine;
pub mod report;
pub mod run;
pub mod scenarios;
pub mod update;
pub mod world;
