//! Arms the chipset's watchdog, through configuration ports every PC has.

use core::arch::asm;
use core::ptr;

use loader::chipset::{I6300ESB, START_S, i6300esb, tco};

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
const ENABLE: u32 = 0x8000_0000;
/// What a read gives where no device is.
const ABSENT: u32 = 0xffff_ffff;
/// Configuration space: command register, and its bit for memory access.
const COMMAND: u8 = 0x04;
const COMMAND_MEMORY: u16 = 1 << 1;
const BAR_0: u8 = 0x10;
/// A memory address in a base register, without its flags.
const MEMORY_MASK: u32 = 0xffff_fff0;

/// Arms a 6300ESB if the machine has one. True when it runs.
pub fn arm_i6300esb() -> bool {
    let Some(device) = Function::find(|id| id == I6300ESB) else {
        return false;
    };
    let bar = device.read32(BAR_0);
    // Bit 0 would be ports instead of memory; the timer has memory below 4 GiB.
    if bar & 1 != 0 || bar & MEMORY_MASK == 0 {
        return false;
    }
    device.write16(COMMAND, device.read16(COMMAND) | COMMAND_MEMORY);
    let base = (bar & MEMORY_MASK) as usize;
    device.write8(i6300esb::LOCK, 0);
    device.write16(i6300esb::CONFIG, i6300esb::CONFIG_RESET);
    let stage = i6300esb::stage(START_S);
    for timer in [i6300esb::TIMER_1, i6300esb::TIMER_2] {
        unlock(base);
        // SAFETY: the device's own registers, which the firmware maps at their address.
        unsafe { ptr::write_volatile((base + timer) as *mut u32, stage) };
    }
    unlock(base);
    // SAFETY: as above.
    unsafe { ptr::write_volatile((base + i6300esb::RELOAD) as *mut u16, i6300esb::RELOAD_NOW) };
    device.write8(i6300esb::LOCK, i6300esb::LOCK_RUN);
    device.read8(i6300esb::LOCK) & i6300esb::LOCK_RUN != 0
}

/// Stops a 6300ESB, if there is one.
pub fn disarm_i6300esb() {
    if let Some(device) = Function::find(|id| id == I6300ESB) {
        device.write8(i6300esb::LOCK, 0);
    }
}

fn unlock(base: usize) {
    for value in i6300esb::UNLOCK {
        // SAFETY: as for the timers.
        unsafe { ptr::write_volatile((base + i6300esb::RELOAD) as *mut u16, value) };
    }
}

/// Arms the TCO timer of a south bridge we know. True when it runs and would reset.
pub fn arm_tco() -> bool {
    let Some((bridge, base)) = tco_ports() else {
        return false;
    };
    let memory = (bridge.read32(tco::RCBA) & 0xffff_c000) as usize;
    if memory == 0 {
        return false;
    }
    let gcs = (memory + tco::GCS) as *mut u32;
    // SAFETY: the chipset's own registers at the address that the bridge decodes.
    unsafe {
        ptr::write_volatile(gcs, ptr::read_volatile(gcs) & !tco::NO_REBOOT);
        if ptr::read_volatile(gcs) & tco::NO_REBOOT != 0 {
            return false;
        }
    }
    write_port16(base + tco::TIMER, tco::ticks(START_S));
    write_port16(base + tco::RELOAD, 1);
    let control = base + tco::CONTROL_1;
    write_port16(control, read_port16(control) & !tco::HALT);
    read_port16(control) & tco::HALT == 0
}

/// Halts the TCO timer of a south bridge we know.
pub fn disarm_tco() {
    if let Some((_, base)) = tco_ports() {
        let control = base + tco::CONTROL_1;
        write_port16(control, read_port16(control) | tco::HALT);
    }
}

fn tco_ports() -> Option<(Function, u16)> {
    let bridge = Function::find(|id| tco::BRIDGES.contains(&id))?;
    let ports = (bridge.read32(tco::PMBASE) & 0xff80) as u16;
    (ports != 0).then_some((bridge, ports + tco::BASE_OFFSET))
}

/// One PCI function, by its place in the old configuration space.
#[derive(Clone, Copy)]
struct Function(u32);

impl Function {
    /// The first function whose vendor and device id `wanted` accepts.
    fn find(wanted: impl Fn(u32) -> bool) -> Option<Self> {
        for place in 0..256 * 32 {
            let first = Self(place << 11);
            let id = first.read32(0);
            if id == ABSENT {
                continue;
            }
            // Bit 23 of the header's word: the device has more functions than the first.
            let functions = if first.read32(0x0c) & (1 << 23) != 0 { 8 } else { 1 };
            for function in 0..functions {
                let function = Self(first.0 | function << 8);
                if wanted(function.read32(0)) {
                    return Some(function);
                }
            }
        }
        None
    }

    fn select(self, register: u8) {
        write_port32(CONFIG_ADDRESS, ENABLE | self.0 | u32::from(register & 0xfc));
    }

    fn read32(self, register: u8) -> u32 {
        self.select(register);
        read_port32(CONFIG_DATA)
    }

    fn read16(self, register: u8) -> u16 {
        self.select(register);
        read_port16(CONFIG_DATA + u16::from(register & 2))
    }

    fn read8(self, register: u8) -> u8 {
        self.select(register);
        read_port8(CONFIG_DATA + u16::from(register & 3))
    }

    fn write16(self, register: u8, value: u16) {
        self.select(register);
        write_port16(CONFIG_DATA + u16::from(register & 2), value);
    }

    fn write8(self, register: u8, value: u8) {
        self.select(register);
        write_port8(CONFIG_DATA + u16::from(register & 3), value);
    }
}

macro_rules! port {
    ($read:ident, $write:ident, $width:ty, $register:tt) => {
        fn $read(port: u16) -> $width {
            let value: $width;
            // SAFETY: reads one of the ports named above; it touches no memory.
            unsafe {
                asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                    options(nomem, nostack, preserves_flags));
            }
            value
        }

        #[allow(dead_code, reason = "each width is made as a pair")]
        fn $write(port: u16, value: $width) {
            // SAFETY: writes one of the ports named above; it touches no memory.
            unsafe {
                asm!(concat!("out dx, ", $register), in("dx") port, in($register) value,
                    options(nomem, nostack, preserves_flags));
            }
        }
    };
}

port!(read_port8, write_port8, u8, "al");
port!(read_port16, write_port16, u16, "ax");
port!(read_port32, write_port32, u32, "eax");
