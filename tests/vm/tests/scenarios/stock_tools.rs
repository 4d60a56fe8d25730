//! What people already have opens and checks what we make.

use std::fs;

use anyhow::{Result, anyhow};
use partition_layout::slot_image::{TRAILER_SIZE, Trailer};
use partition_layout::verity::hex;
use vm_tests::artifacts;
use vm_tests::disk::{self, Extent};
use vm_tests::host_tool::{run as tool, show};
use vm_tests::machine::raw_copy;
use vm_tests::release::Image;

/// The ESP begins at 1 MiB on every disk of ours, and is this long.
const ESP: Extent = Extent { offset: 1 << 20, size: 512 << 20 };

#[test]
fn tables_file_systems_and_trees_are_as_stock_tools_want_them() -> Result<()> {
    let release = artifacts::release("v1")?;
    let folder = artifacts::work_dir().join("stock-tools");
    fs::create_dir_all(&folder)?;
    let raw = folder.join("disk.raw");
    raw_copy(&release.disk(), &raw)?;
    let said = tool("sgdisk", &["-v", &show(&raw)])?;
    assert!(said.contains("No problems found"), "{said}");

    let esp = folder.join("esp.img");
    fs::write(&esp, disk::read(&release.disk(), ESP)?)?;
    tool("fsck.vfat", &["-n", "-v", &show(&esp)])?;

    let bytes = fs::read(release.slot())?;
    let trailer = bytes.get(bytes.len().saturating_sub(TRAILER_SIZE)..).unwrap_or_default();
    let trailer = Trailer::decode(trailer).map_err(|why| anyhow!("trailer: {why:?}"))?;
    let (root, offset) = (hex(&trailer.root_hash), trailer.data_size);
    let slot = show(&release.slot());
    let option = format!("--hash-offset={offset}");
    tool("veritysetup", &["verify", &option, &slot, &slot, &root])?;

    let layer = Image::of(&release)?.layer;
    let unpacked = folder.join("unpacked");
    fs::create_dir_all(&unpacked)?;
    tool("tar", &["--zstd", "-xf", &show(&layer), "-C", &show(&unpacked)])?;
    let same = fs::read(unpacked.join("slot.img"))? == fs::read(release.slot())?;
    assert!(same, "tar unpacks the layer to the slot image");
    let signed = release.dir.join("recovery.efi");
    tool("sbverify", &["--cert", &show(&artifacts::key("sb.crt")?), &show(&signed)])?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}
