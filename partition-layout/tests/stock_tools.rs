//! Stock tools agree with what we write: `veritysetup` (cryptsetup-bin), `sgdisk` (gdisk), `tar`
//! and `zstd`. `cargo xtask setup` installs them.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

use partition_layout::disk::Disk;
use partition_layout::gpt::{self, Copy, Table};
use partition_layout::guid::{self, Guid};
use partition_layout::layout::{FRESH, MIB, STATE_NAME};
use partition_layout::verity::{TreeBuilder, VerityTable, hex, superblock, tree_size};
use partition_layout::{frames, slot_image};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder that is gone after the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is only disk space.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a tool; its output, when it is content.
fn run(tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool)
        .args(arguments)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("start {tool}: {error}; run cargo xtask setup"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {arguments:?}: {text}{errors}");
    text
}

/// Blocks that differ from each other.
fn content(blocks: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(blocks).unwrap() * 4096];
    for (block, number) in bytes.chunks_exact_mut(4096).zip(0_u64..) {
        block[..8].copy_from_slice(&number.to_le_bytes());
        block[4095] = 0xEE;
    }
    bytes
}

#[test]
fn veritysetup_makes_the_same_superblock_tree_and_root() {
    let folder = Folder::new("verity");
    let uuid = Guid::parse("01020304-0506-0708-090a-0b0c0d0e0f10").unwrap();
    // UUIDs in the superblock are plain big-endian bytes.
    let uuid_bytes: [u8; 16] = std::array::from_fn(|index| index as u8 + 1);
    // One block, one level, one full, one more, three levels.
    for blocks in [1, 2, 128, 129, 128 * 128 + 1] {
        let salt: [u8; 32] = std::array::from_fn(|index| (index as u64 ^ blocks) as u8);
        let data = content(blocks);
        let mut builder = TreeBuilder::new(salt);
        // In pieces that are no power of two.
        for piece in data.chunks(3 * 4096) {
            builder.update(piece);
        }
        let tree = builder.finish();
        assert_eq!(tree.bytes.len() as u64, tree_size(blocks));
        let path = folder.file("image");
        fs::write(&path, &data).unwrap();
        let offset = data.len().to_string();
        let file = path.to_str().unwrap();
        let uuid = format!("--uuid={uuid}");
        let (salt_option, offset) =
            (format!("--salt={}", hex(&salt)), format!("--hash-offset={offset}"));
        let blocks_option = format!("--data-blocks={blocks}");
        let told = run(
            "veritysetup",
            &["format", &uuid, &salt_option, &offset, &blocks_option, file, file],
        );
        let root = told.lines().find_map(|line| line.strip_prefix("Root hash:")).unwrap().trim();
        assert_eq!(root, hex(&tree.root), "{blocks} blocks");
        let theirs = fs::read(&path).unwrap();
        let ours = [data, superblock(uuid_bytes, blocks, &salt), tree.bytes].concat();
        assert!(theirs == ours, "{blocks} blocks: the bytes differ");
        run("veritysetup", &["verify", &offset, file, file, root]);
        // What the kernel is told agrees with what veritysetup tells it.
        let table =
            VerityTable { data_blocks: blocks, hash_start: blocks + 1, root: tree.root, salt };
        let target = table.target("/dev/x");
        assert_eq!(
            target,
            format!(
                "1 /dev/x /dev/x 4096 4096 {blocks} {} sha256 {root} {}",
                blocks + 1,
                hex(&salt)
            )
        );
    }
}

#[test]
fn one_flipped_bit_changes_the_root() {
    let data = content(300);
    let root = |data: &[u8]| {
        let mut builder = TreeBuilder::new([1; 32]);
        builder.update(data);
        builder.finish().root
    };
    for at in [0, 4096 * 128 + 5, 4096 * 300 - 1] {
        let mut altered = data.clone();
        altered[at] ^= 0x10;
        assert_ne!(root(&altered), root(&data));
    }
}

/// A disk in a sparse file.
struct FileDisk(File);

impl Disk for FileDisk {
    type Error = io::Error;

    fn sector_size(&self) -> u32 {
        512
    }

    fn size(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, at)
    }

    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, at)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn id(number: u8) -> Guid {
    Guid([number; 16])
}

#[test]
fn sgdisk_finds_nothing_wrong_when_fresh_with_state_and_grown() {
    let folder = Folder::new("gpt");
    let path = folder.file("disk");
    let name = path.to_str().unwrap();
    let size = 6000 * MIB;
    let file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    file.set_len(size).unwrap();
    let mut disk = FileDisk(file);
    let mut table = Table::new(id(1), 512, size).unwrap();
    for (number, partition) in (2..).zip(FRESH) {
        table =
            table.append(partition.kind, id(number), partition.name, Some(partition.size)).unwrap();
    }
    disk.write(0, &table.protective_mbr()).unwrap();
    table.store(&mut disk).unwrap();
    assert!(run("sgdisk", &["-v", name]).contains("No problems found"));
    assert_eq!(gpt::read(&mut disk).unwrap(), (table.clone(), Copy::Primary));

    let table = table.append(guid::STATE, id(9), STATE_NAME, None).unwrap();
    table.store(&mut disk).unwrap();
    assert!(run("sgdisk", &["-v", name]).contains("No problems found"));
    let listed = run("sgdisk", &["-i", "5", name]);
    assert!(listed.contains("6BB7CE69-2753-41C2-B99F-DC5DE9E2B28D"), "{listed}");
    assert!(listed.contains(STATE_NAME), "{listed}");

    let larger = size + 2048 * MIB;
    disk.0.set_len(larger).unwrap();
    let grown = table.grown(larger, guid::STATE).unwrap();
    assert!(table.grown(larger, guid::SLOT_B).is_none(), "only the last partition grows");
    assert!(grown.grown(larger, guid::STATE).is_none(), "nothing to grow twice");
    disk.write(0, &grown.protective_mbr()).unwrap();
    grown.store(&mut disk).unwrap();
    assert!(run("sgdisk", &["-v", name]).contains("No problems found"));
    let (read, _) = gpt::read(&mut disk).unwrap();
    let state = |table: &Table| table.find(guid::STATE).unwrap().clone();
    assert_eq!(state(&read).first, state(&table).first);
    assert_eq!(state(&read).sectors() - state(&table).sectors(), 2048 * MIB / 512);
    assert_eq!(read.find(guid::SLOT_A), table.find(guid::SLOT_A));
}

#[test]
fn tar_and_zstd_open_the_layer() {
    let folder = Folder::new("layer");
    let slot = content(300);
    assert!((slot.len() as u64).is_multiple_of(slot_image::BLOCK));
    let head = frames::tar_header(slot.len() as u64).unwrap();
    let frame_size = usize::try_from(frames::FRAME_SIZE).unwrap();
    let plain: Vec<&[u8]> = std::iter::once(&head[..])
        .chain(slot.chunks(frame_size))
        .chain(std::iter::once(&[0; frames::TAIL_SIZE][..]))
        .collect();
    let mut layer = Vec::new();
    let mut seek = Vec::new();
    for part in plain {
        let frame = compress(part);
        seek.push((u32::try_from(frame.len()).unwrap(), u32::try_from(part.len()).unwrap()));
        layer.extend(frame);
    }
    layer.extend(frames::seek_table(&seek));
    let path = folder.file("layer.tar.zst");
    fs::write(&path, &layer).unwrap();
    let name = path.to_str().unwrap();
    run("tar", &["--zstd", "-xf", name, "-C", folder.0.to_str().unwrap()]);
    assert!(fs::read(folder.file(frames::FILE_NAME)).unwrap() == slot);
    let listed = run("zstd", &["-lv", name]);
    assert!(listed.contains("# Zstandard Frames: 4"), "{listed}");
    assert!(listed.contains("# Skippable Frames: 1"), "{listed}");
    // The annotations lead to the same frames.
    let table = frames::FrameTable {
        head: seek[0].0.into(),
        slot: seek[1..seek.len() - 1].iter().map(|(size, _)| *size).collect(),
        tail: seek[seek.len() - 1].0.into(),
    };
    for (index, piece) in slot.chunks(frame_size).enumerate() {
        let start = usize::try_from(table.offset(index).unwrap()).unwrap();
        let end = usize::try_from(table.offset(index + 1).unwrap()).unwrap();
        assert!(decompress(&layer[start..end]) == piece, "frame {index}");
    }
}

fn compress(plain: &[u8]) -> Vec<u8> {
    through("zstd", &["-q", "-c", "--check"], plain)
}

fn decompress(frame: &[u8]) -> Vec<u8> {
    through("zstd", &["-q", "-d", "-c"], frame)
}

fn through(tool: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {tool}: {error}; run cargo xtask setup"));
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success());
    output.stdout
}
