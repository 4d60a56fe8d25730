//! The updater's memory does not follow the size of the image: one is four times the other.

use serde_json::Value;
use vm_tests::template::Template;
use vm_tests::{artifacts, guest, registry::Registry};

const RSS_BYTES_MAX: u64 = 48 << 20;
/// Room for the table of frames and the allocator's mood.
const RSS_BYTES_APART: u64 = 8 << 20;

fn peak_rss(release: &str) -> anyhow::Result<u64> {
    let registry = Registry::start(&format!("size-{release}"))?;
    registry.publish(&artifacts::release(release)?)?;
    let machine = Template::of_release("v1")?.start(&format!("size-{release}"))?;
    machine.route_registry(Some(registry.port()))?;
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    let peak = answer.get("updater_peak_rss_bytes").and_then(Value::as_u64);
    peak.ok_or_else(|| anyhow::anyhow!("no peak in {answer}"))
}

#[test]
fn memory_is_bounded_and_the_same_for_two_sizes() -> anyhow::Result<()> {
    let (small, big) = (peak_rss("small")?, peak_rss("v2")?);
    println!("peak RSS {small} and {big} bytes");
    assert!(small <= RSS_BYTES_MAX && big <= RSS_BYTES_MAX, "{small} {big}");
    assert!(big.abs_diff(small) <= RSS_BYTES_APART, "{small} {big}");
    Ok(())
}
