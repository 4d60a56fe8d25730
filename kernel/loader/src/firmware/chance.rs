//! A number nobody else has, and the time: each from the firmware, each with a way on without.

use core::ptr::{self, NonNull};

use loader::clock;
use sha2::{Digest, Sha256};
use uefi::runtime;
use uefi_raw::protocol::rng::RngProtocol;

use super::table;

/// A nonce for this start. It names a start; nothing secret hangs on it.
///
/// The firmware's generator where there is one, and always the processor's counter, the clock
/// and `seed` (what the disk held), so that two clones started together differ.
pub fn nonce(seed: &[u8]) -> [u8; 16] {
    let mut random = [0u8; 32];
    let from_firmware = fill(&mut random);
    let mut hash = Sha256::new();
    hash.update(random);
    hash.update([u8::from(from_firmware)]);
    // SAFETY: reads the processor's counter, which every x86-64 has.
    hash.update(unsafe { core::arch::x86_64::_rdtsc() }.to_le_bytes());
    hash.update(seconds().unwrap_or(0).to_le_bytes());
    hash.update(seed);
    let mut nonce = [0; 16];
    for (to, from) in nonce.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    nonce
}

fn fill(random: &mut [u8; 32]) -> bool {
    let Ok(source) = table::any_interface::<RngProtocol>(&RngProtocol::GUID) else {
        return false;
    };
    let source: NonNull<RngProtocol> = source;
    // SAFETY: the interface was just located; `random` has room for its length; no algorithm
    // asked for means the firmware's own choice.
    let status = unsafe {
        (source.as_ref().get_rng)(source.as_ptr(), ptr::null(), random.len(), random.as_mut_ptr())
    };
    table::checked(status).is_ok()
}

/// The clock, in seconds since 1970 as it shows them. Only differences mean something.
pub fn seconds() -> Option<u64> {
    let time = runtime::get_time().ok()?;
    clock::seconds(
        (time.year(), time.month(), time.day()),
        (time.hour(), time.minute(), time.second()),
    )
}
