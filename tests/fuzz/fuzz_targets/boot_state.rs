//! The slot rules on any record that decodes: no panic, and a loader's plan always ends.
#![no_main]

use bascule_fuzz::with_checksum;
use libfuzzer_sys::fuzz_target;
use partition_layout::boot_state::{Blame, Choice, Event, ImageFacts, LoaderPlan, Start, step};
use partition_layout::record::{Cause, RECORD_SIZE, Record};
use partition_layout::slot::Slot;

fuzz_target!(|data: &[u8]| {
    let Some((script, data)) = data.split_at_checked(16) else { return };
    let sealed = with_checksum(data, RECORD_SIZE, b"BASCREC1\x01\x00\x00\x02");
    let Ok(mut record) = Record::decode(&sealed) else { return };
    let mut plan = LoaderPlan::new(&record, Start { nonce: [1; 16], rtc_s: u64::from(script[0]) });
    let mut answers = 0;
    loop {
        answers += 1;
        assert!(answers < 12, "the plan does not end");
        match plan.choose() {
            Choice::Start { slot, record: next, must_be_durable } => {
                if must_be_durable && script[1] & 1 != 0 {
                    plan.not_writable();
                } else {
                    plan.load_failed(slot, Cause::Refused);
                }
                record = next;
            }
            Choice::Recovery { .. } => {}
            Choice::Firmware => break,
        }
    }
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(&sealed[216..232]);
    for byte in script {
        let running = if byte & 0x80 == 0 { Slot::A } else { Slot::B };
        let event = match byte & 0x0F {
            0 => Event::GateOpen,
            1 => Event::Confirm,
            2 => Event::GateFailed { blame: Blame::Slot },
            3 => Event::GateFailed { blame: Blame::State },
            4 => Event::VerityError,
            5 => Event::Overdue,
            6 => Event::CleanStop,
            7 => Event::Disarm,
            8 => Event::Seal(ImageFacts { release: 3, secver: 1, digest }),
            9 => Event::Arm,
            10 => Event::Rollback,
            11 => Event::Force { digest },
            12 => Event::AskReboot,
            13 => Event::Started { nonce: [*byte; 16], watchdog: 1 },
            14 => Event::Scrubbed,
            _ => Event::RaiseFloor { secver: u32::from(*byte) },
        };
        if let Ok(next) = step(&record, running, event) {
            record = Record::decode(&next.record.encode()).expect("a step gives a valid record");
        }
    }
});
