//! Power cuts on the disk of a real machine: records a life, rebuilds the disk at its flushes.

fn main() -> anyhow::Result<()> {
    vm_tests::prove::recording::Recording::of_update().map(drop)
}
