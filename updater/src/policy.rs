//! Whether a verified release may be installed on this machine. Pure rules.

use partition_layout::boot_state::{Refused, holds, may_overwrite};
use partition_layout::labels::KIND_OS;
use partition_layout::record::{Content, Record};
use partition_layout::slot::Slot;
use update_manifest::digest::Digest;
use update_manifest::release::Release;

use crate::failure::Failure;

/// What this machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The OS that runs here.
    pub product: String,
    /// `x86_64`.
    pub arch: String,
    /// The running release number.
    pub release: u64,
    /// The running slot.
    pub running: Slot,
    /// Size of the other slot in bytes.
    pub slot_size: u64,
}

/// Which release numbers the caller wants, seen from the running one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Higher ones; others are nothing to do. What the daemon does by itself.
    Newer,
    /// The same too; lower ones are refused. What an operator gets without asking for more.
    NotOlder,
    /// Any.
    Any,
}

/// What the caller leaves to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leave {
    /// A digest in quarantine may be tried again.
    pub quarantined: bool,
    /// Which release numbers may be installed.
    pub direction: Direction,
}

/// What is to be done about a release that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It runs already.
    Running,
    /// It is no newer than what runs.
    NotNewer,
    /// It is armed already: the next start tries it.
    Armed,
    /// It is whole in the other slot: verify again.
    Sealed,
    /// It has to be written.
    Install,
}

/// Judges `release`, whose manifest is `digest`, against machine and record.
///
/// # Errors
/// A refusal with its fixed word: `kind`, `product`, `arch`, `requires`, `min-from`, `older`,
/// `secver`, `too-large`, `quarantined`.
pub fn judge(
    release: &Release,
    digest: Digest,
    machine: &Machine,
    record: &Record,
    leave: Leave,
) -> Result<Decision, Failure> {
    fits(release, machine)?;
    let labels = &release.labels;
    let running = record.slot(machine.running);
    if running.digest == digest.0 {
        return Ok(Decision::Running);
    }
    if labels.release <= machine.release && leave.direction == Direction::Newer {
        return Ok(Decision::NotNewer);
    }
    let other = record.slot(machine.running.other());
    let is_there = other.content == Content::Sealed && other.digest == digest.0;
    if is_there && record.trial == Some(machine.running.other()) && record.tries > 0 {
        return Ok(Decision::Armed);
    }
    if labels.secver < record.floor {
        return Err(Failure::refused(
            "secver",
            format!(
                "release {} has security version {}, below this machine's floor {}",
                labels.version, labels.secver, record.floor
            ),
        ));
    }
    if labels.release < machine.release && leave.direction == Direction::NotOlder {
        return Err(Failure::refused(
            "older",
            format!(
                "release {} ({}) is older than the running {}; `osupdate apply --allow-older` \
                 installs it, `osupdate rollback` goes back to the other slot",
                labels.release, labels.version, machine.release
            ),
        ));
    }
    if let (Some(cause), false) = (holds(record, &digest.0), leave.quarantined) {
        return Err(Failure::refused(
            "quarantined",
            format!(
                "release {} ({digest}) is in quarantine: {}; `osupdate retry` tries it again",
                labels.version,
                cause.words()
            ),
        ));
    }
    Ok(if is_there { Decision::Sealed } else { Decision::Install })
}

/// Whether this machine may write and arm the other slot now.
///
/// # Errors
/// A refusal that is not about any release: `on-trial`, `not-confirmed`.
pub fn may_write(machine: &Machine, record: &Record) -> Result<(), Failure> {
    may_overwrite(record, machine.running).map_err(|refused| match refused {
        Refused::OnTrial => Failure::refused(
            "on-trial",
            "the running release is on trial; wait for the health gate (`osupdate status`), or \
             `osupdate rollback`",
        ),
        _ => Failure::refused(
            "not-confirmed",
            "the running release is not confirmed in this boot, and the other slot may be the \
             only way back; wait for the health gate (`osupdate status`)",
        ),
    })
}

/// Whether the image is for this kind of machine at all.
fn fits(release: &Release, machine: &Machine) -> Result<(), Failure> {
    let labels = &release.labels;
    let differs = |kind: &str, what: &str, theirs: &str, ours: &str| {
        Err(Failure::refused(kind, format!("image is for {what} {theirs:?}, this is {ours:?}")))
    };
    if labels.kind != KIND_OS {
        return differs("kind", "kind", &labels.kind, KIND_OS);
    }
    if labels.product != machine.product {
        return differs("product", "product", &labels.product, &machine.product);
    }
    if labels.arch != machine.arch {
        return differs("arch", "architecture", &labels.arch, &machine.arch);
    }
    if let Some(name) = labels.unmet_requirement() {
        return Err(Failure::refused(
            "requires",
            format!(
                "release {} requires {name:?}, which the running release does not know; install \
                 a release between them first",
                labels.version
            ),
        ));
    }
    if machine.release < labels.min_from {
        return Err(Failure::refused(
            "min-from",
            format!(
                "release {} installs from release {} on, this is {}; install a release between \
                 them first",
                labels.version, labels.min_from, machine.release
            ),
        ));
    }
    if labels.slot_size > machine.slot_size || !labels.slot_size.is_multiple_of(4096) {
        return Err(Failure::refused(
            "too-large",
            format!("image needs {} bytes, the slot has {}", labels.slot_size, machine.slot_size),
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
