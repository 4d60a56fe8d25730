//! The UEFI program on the ESP. It is written once for the life of a machine: an update never
//! replaces it, so what it does must be right for every release that will ever be in a slot.
//!
//! Reading order: [`firmware::start`] (what happens, in order), then the parts it uses.

#![cfg_attr(target_os = "uefi", no_std, no_main)]

#[cfg(target_os = "uefi")]
extern crate alloc;

#[cfg(target_os = "uefi")]
mod firmware;

#[cfg(target_os = "uefi")]
#[uefi::entry]
fn main() -> uefi::Status {
    firmware::start::run()
}

#[cfg(target_os = "uefi")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    firmware::start::after_panic(info)
}

#[cfg(not(target_os = "uefi"))]
fn main() {
    eprintln!("loader: this program runs under UEFI; build it for x86_64-unknown-uefi");
}
