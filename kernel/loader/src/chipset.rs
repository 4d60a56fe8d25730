//! The chipset watchdogs that the loader can arm: their numbers, without touching hardware.
//!
//! A chipset watchdog also ends a processor that stands still after an exception, which the
//! firmware's own watchdog does not. It runs on into the kernel, so it may only be armed when
//! the kernel has its driver: else a healthy machine would be reset.

/// From the start of a kernel image until os-init holds the watchdog, in seconds.
pub const START_S: u32 = 120;

/// PCI id of Intel's 6300ESB watchdog timer.
pub const I6300ESB: u32 = 0x25ab_8086;

/// The 6300ESB: two stages that count milliseconds one after the other; the second resets.
pub mod i6300esb {
    /// Configuration space, two bytes: interrupts off, millisecond steps, reset enabled.
    pub const CONFIG: u8 = 0x60;
    /// What goes there.
    pub const CONFIG_RESET: u16 = 0x0003;
    /// Configuration space, one byte: bit 1 lets it run; bit 0 would lock it for good.
    pub const LOCK: u8 = 0x68;
    /// What goes there.
    pub const LOCK_RUN: u8 = 0x02;
    /// Memory: first stage.
    pub const TIMER_1: usize = 0x00;
    /// Memory: second stage.
    pub const TIMER_2: usize = 0x04;
    /// Memory: reload, two bytes, which also takes the unlock sequence.
    pub const RELOAD: usize = 0x0c;
    /// Written to [`RELOAD`] before each register.
    pub const UNLOCK: [u16; 2] = [0x80, 0x86];
    /// Reload, without the bit that would clear what an earlier timeout left for the kernel.
    pub const RELOAD_NOW: u16 = 0x0100;

    /// The value of each stage for `seconds` in all. The timer counts 1,024 to a second.
    pub fn stage(seconds: u32) -> u32 {
        const STAGE_MAX: u32 = 0x000f_ffff;
        seconds.saturating_mul(512).min(STAGE_MAX)
    }
}

/// Intel's TCO timer in a south bridge whose registers lie as in the ICH9.
pub mod tco {
    /// LPC bridges: QEMU's q35 and its real model. Later chipsets keep their registers elsewhere.
    pub const BRIDGES: [u32; 4] = [0x2918_8086, 0x2916_8086, 0x2914_8086, 0x2912_8086];
    /// Configuration space of the bridge: base of the power management ports.
    pub const PMBASE: u8 = 0x40;
    /// Configuration space of the bridge: base of the chipset's memory registers.
    pub const RCBA: u8 = 0xf0;
    /// From the power management base to the TCO registers.
    pub const BASE_OFFSET: u16 = 0x60;
    /// Port: reload on any write.
    pub const RELOAD: u16 = 0x00;
    /// Port, two bytes: bit 11 halts the timer.
    pub const CONTROL_1: u16 = 0x08;
    /// That bit.
    pub const HALT: u16 = 1 << 11;
    /// Port, two bytes: ten bits of 0.6 seconds each.
    pub const TIMER: u16 = 0x12;
    /// Memory: general control and status; bit 5 set means that no reset follows a timeout.
    pub const GCS: usize = 0x3410;
    /// That bit.
    pub const NO_REBOOT: u32 = 1 << 5;

    /// The timer's value for `seconds` in all: it resets at its second timeout.
    pub fn ticks(seconds: u32) -> u16 {
        const TICKS_MIN: u32 = 4;
        const TICKS_MAX: u32 = 0x3ff;
        let ticks = (seconds / 2).saturating_mul(10) / 6;
        u16::try_from(ticks.clamp(TICKS_MIN, TICKS_MAX)).unwrap_or(0x3ff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_half_the_time() {
        assert_eq!(i6300esb::stage(30), 15_360);
        assert_eq!(i6300esb::stage(u32::MAX), 0xf_ffff);
    }

    #[test]
    fn ticks_cover_half_the_time_and_fit_the_register() {
        assert_eq!(tco::ticks(120), 100);
        assert_eq!(tco::ticks(0), 4);
        assert_eq!(tco::ticks(u32::MAX), 0x3ff);
    }
}
