//! The firmware's own watchdog. It ends a program that hangs with interrupts on, until the
//! kernel takes over; it does not end a processor that stands still after an exception.

use super::table;

/// While the loader reads and checks, in seconds. Armed anew as reading goes on.
pub const LOADING_S: usize = 300;
/// From the start of a kernel image until its stub ends the boot services, in seconds: a stub
/// measures and unpacks a few tens of megabytes.
pub const STARTING_S: usize = 120;
/// Codes up to 0xffff belong to the firmware.
const CODE: u64 = 0x1_0000;

/// Arms the watchdog, from now, best effort: a machine without one still boots.
pub fn arm(seconds: usize) {
    set(seconds);
}

/// Disarms it: whoever comes after us arms their own.
pub fn disarm() {
    set(0);
}

fn set(seconds: usize) {
    if let Some(boot) = table::boot() {
        // SAFETY: no data goes with the code.
        let _ = unsafe { (boot.set_watchdog_timer)(seconds, CODE, 0, core::ptr::null()) };
    }
}
