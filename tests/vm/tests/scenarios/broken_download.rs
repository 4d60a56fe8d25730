//! The registry drops the connection in the middle of the layer: the download goes on with a
//! range, and no byte of the slot is asked for twice that has arrived.

use fault_proxy::{Faults, Proxy};
use serde_json::Value;
use vm_tests::template::Template;
use vm_tests::{artifacts, guest, registry::Registry};

/// Where the first answers break off.
const CUT_AFTER: u64 = 8_000_000;
/// Frames that may be asked for again: the one that was cut, and one of read-ahead, each time.
const AGAIN_BYTES_MAX: u64 = 8 << 20;

#[test]
fn a_dropped_connection_goes_on_with_a_range() -> anyhow::Result<()> {
    let registry = Registry::start("dropped")?;
    registry.publish(&artifacts::release("small")?)?;
    let faults = Faults { cut_after: Some(CUT_AFTER), cuts: 3, ..Faults::default() };
    let proxy = Proxy::start("127.0.0.1:0", &format!("127.0.0.1:{}", registry.port()), faults)?;
    let machine = Template::of_release("v1")?.start("dropped")?;
    machine.route_registry(Some(proxy.address().port()))?;
    let (code, answer) = guest::osupdate(&machine, "apply", guest::APPLY)?;
    assert_eq!(code, 0, "{answer}");
    // The first request is for a range too: that from the beginning.
    let goes_on = |range: &String| !range.starts_with("bytes=0-");
    let seen = proxy.take_seen();
    let resumed = seen.iter().filter(|seen| seen.range.as_ref().is_some_and(goes_on)).count();
    assert!(resumed > 0, "no download went on");
    let layer =
        std::fs::metadata(vm_tests::release::Image::of(&artifacts::release("small")?)?.layer)?;
    let downloaded = answer.get("downloaded_bytes").and_then(Value::as_u64).unwrap_or(0);
    assert!(downloaded <= layer.len() + AGAIN_BYTES_MAX, "{downloaded} of {}", layer.len());
    Ok(())
}
