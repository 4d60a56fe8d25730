//! The same boot with the firmware checking signatures.

use crate::boot_healthy::boots;

#[test]
fn boots_and_is_confirmed_under_secure_boot() -> anyhow::Result<()> {
    boots(true)
}
