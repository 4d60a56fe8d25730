//! Block device ioctls, from `linux/fs.h` and `linux/blkpg.h`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileTypeExt as _;

#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

#[repr(C)]
struct BlkpgArgument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut BlkpgPartition,
}

const ADD_PARTITION: i32 = 1;
const RESIZE_PARTITION: i32 = 3;

/// The logical sector size in bytes; 512 for a regular file.
///
/// # Errors
/// The kernel's.
pub fn sector_size(file: &File) -> io::Result<u32> {
    if !file.metadata()?.file_type().is_block_device() {
        return Ok(512);
    }
    let mut size: nix::libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int to the pointer, which is to a live int of ours.
    unsafe { raw::blksszget(file.as_raw_fd(), &raw mut size) }?;
    u32::try_from(size).map_err(|_| io::Error::other(format!("sector size {size}")))
}

/// Makes the kernel read the partition table again; refused while a partition is in use.
///
/// # Errors
/// The kernel's; `EBUSY` when a partition is in use.
pub fn reread_table(disk: &File) -> io::Result<()> {
    // SAFETY: BLKRRPART takes no argument.
    unsafe { raw::blkrrpart(disk.as_raw_fd()) }?;
    Ok(())
}

/// Tells the kernel of a partition that was added to the table. Offsets in bytes.
///
/// # Errors
/// The kernel's; `EBUSY` when it knows that number already.
pub fn add_partition(disk: &File, number: u32, start: u64, length: u64) -> io::Result<()> {
    change_partition(disk, ADD_PARTITION, number, start, length)
}

/// Tells the kernel that a partition has grown; it may be mounted. Offsets in bytes.
///
/// # Errors
/// The kernel's.
pub fn resize_partition(disk: &File, number: u32, start: u64, length: u64) -> io::Result<()> {
    change_partition(disk, RESIZE_PARTITION, number, start, length)
}

fn change_partition(
    disk: &File,
    operation: i32,
    number: u32,
    start: u64,
    length: u64,
) -> io::Result<()> {
    let fits = |value: u64| i64::try_from(value).map_err(io::Error::other);
    let mut partition = BlkpgPartition {
        start: fits(start)?,
        length: fits(length)?,
        number: i32::try_from(number).map_err(io::Error::other)?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let argument = BlkpgArgument {
        operation,
        flags: 0,
        length: i32::try_from(size_of::<BlkpgPartition>()).map_err(io::Error::other)?,
        data: &raw mut partition,
    };
    // SAFETY: both structures have the layout of linux/blkpg.h and outlive the call; `length` is
    // the size of what `data` points at.
    unsafe { raw::blkpg(disk.as_raw_fd(), &raw const argument) }?;
    Ok(())
}

/// The raw calls, as `nix` makes them: each is `unsafe` and wrapped above.
#[allow(missing_docs)]
mod raw {
    use super::BlkpgArgument;

    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), nix::libc::c_int);
    nix::ioctl_none!(blkrrpart, 0x12, 95);
    nix::ioctl_write_ptr_bad!(blkpg, nix::request_code_none!(0x12, 105), BlkpgArgument);
}
