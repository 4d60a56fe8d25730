//! `image-builder`: builds releases, disks and lock files; pushes images and takes them apart.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use image_builder::disk::Begins;
use image_builder::extract::{self, Part};
use image_builder::push::{self, Scheme};
use image_builder::{build, disk, progress, secure_boot};
use partition_layout::guid::Guid;
use update_manifest::digest::Digest;
use update_manifest::sign::SigningKey;

/// Exit code: something failed.
const FAILED: u8 = 111;

/// Builds Bascule releases from a spec and a lock file.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build a release: slot image, signed container image, recovery image, loader.
    Build(BuildArgs),
    /// Make the disk of a machine that has never run, with a release in slot A.
    Disk(DiskArgs),
    /// Take a release apart, from an OCI layout or a slot image, checking every digest.
    Extract(ExtractArgs),
    /// Push a release and its signature to a registry.
    Push(PushArgs),
    /// Resolve the packages anew; without --update, only say what the lock holds.
    Lock(LockArgs),
    /// Make a signing key and its public half.
    Keygen(KeygenArgs),
}

#[derive(Args)]
struct BuildArgs {
    /// Spec of the image.
    spec: PathBuf,
    /// Folder with the device's programs.
    #[arg(long)]
    binaries: PathBuf,
    /// Loader, a UEFI program.
    #[arg(long)]
    loader: PathBuf,
    /// Key that signs the container image.
    #[arg(long)]
    key: PathBuf,
    /// Secure Boot key: one for each --sb-cert, or one for all.
    #[arg(long, requires = "sb_cert")]
    sb_key: Vec<PathBuf>,
    /// Secure Boot certificate. Given several times, each signs: the old and the new one while
    /// keys change.
    #[arg(long, requires = "sb_key")]
    sb_cert: Vec<PathBuf>,
    /// Output folder.
    #[arg(long)]
    out: PathBuf,
    /// Release number instead of the spec's.
    #[arg(long)]
    release: Option<u64>,
    /// Version instead of the spec's.
    #[arg(long)]
    os_version: Option<String>,
    /// zstd level of the layer.
    #[arg(long, default_value_t = 19)]
    zstd_level: i32,
    /// Folder with `cmdline` and `modules`.
    #[arg(long, default_value = "kernel")]
    kernel: PathBuf,
    /// Folder with the service files.
    #[arg(long, default_value = "os-init/services")]
    services: PathBuf,
    /// Archive to take packages from instead of the machine's.
    #[arg(long)]
    mirror: Option<String>,
}

#[derive(Args)]
struct DiskArgs {
    /// Output folder of a build.
    release: PathBuf,
    /// Configuration for the first boot.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Size of the disk: bytes, or with K, M, G.
    #[arg(long, default_value = "8G", value_parser = size)]
    size: u64,
    /// Logical sector size in bytes.
    #[arg(long, default_value_t = 512)]
    sector_size: u32,
    /// Identifier of the disk; without it, derived from release, configuration and size.
    #[arg(long, value_name = "UUID", value_parser = disk_id)]
    disk_id: Option<Guid>,
    /// Begin on trial, with an update's tries, instead of as the default.
    #[arg(long)]
    trial: bool,
    /// Form of the image.
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    format: Format,
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Raw,
    Qcow2,
}

#[derive(Args)]
struct ExtractArgs {
    /// OCI layout, output folder of a build, or slot image (a file, or a slot's partition). An
    /// image in a registry becomes a layout with `skopeo copy docker://… oci:DIR`.
    source: PathBuf,
    /// Folder for the parts; nothing in it is overwritten.
    #[arg(long)]
    out: PathBuf,
    /// Parts to write; without it, all.
    #[arg(long, value_enum, value_delimiter = ',')]
    part: Vec<Part>,
    /// Print what the release says of itself as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct PushArgs {
    /// Output folder of a build.
    release: PathBuf,
    /// `registry/repository:tag`.
    reference: String,
    /// Speak plain HTTP.
    #[arg(long)]
    plain_http: bool,
}

#[derive(Args)]
struct LockArgs {
    /// Spec whose lock files are meant.
    #[arg(default_value = "image-builder/specs/cloud.toml")]
    spec: PathBuf,
    /// Write the lock files.
    #[arg(long)]
    update: bool,
    /// Archive to ask instead of the machine's.
    #[arg(long)]
    mirror: Option<String>,
}

#[derive(Args)]
struct KeygenArgs {
    /// File for the key; its public half goes beside it, ending in `.pub`.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 100 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image-builder: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Build(args) => {
            let built = build::build(&build::Request {
                spec: args.spec,
                binaries: args.binaries,
                loader: args.loader,
                key: args.key,
                kernel: args.kernel,
                services: args.services,
                secure_boot: secure_boot::pairs(&args.sb_key, &args.sb_cert)?,
                out: args.out,
                release: args.release,
                version: args.os_version,
                level: args.zstd_level,
                mirror: args.mirror,
            })?;
            println!("{}", built.digest);
            Ok(())
        }
        Command::Disk(args) => make_disk(args),
        Command::Extract(args) => take_apart(&args),
        Command::Push(args) => {
            let scheme = if args.plain_http { Scheme::Plain } else { Scheme::Tls };
            let bar = progress::bytes("push", 0);
            let shown = bar.clone();
            let told = move |sent, size| {
                shown.set_length(size);
                shown.set_position(sent);
            };
            let digest = push::push(&args.release, &args.reference, scheme, None, told)?;
            bar.finish_and_clear();
            println!("{digest}");
            Ok(())
        }
        Command::Lock(args) => lock(&args),
        Command::Keygen(args) => keygen(&args.out),
    }
}

fn make_disk(args: DiskArgs) -> Result<()> {
    let report = args.release.join("build.json");
    let text = fs::read_to_string(&report).with_context(|| format!("read {}", report.display()))?;
    let report: serde_json::Value = serde_json::from_str(&text).context("read build.json")?;
    let digest = report.get("digest").and_then(serde_json::Value::as_str).and_then(Digest::parse);
    let recipe = disk::Recipe {
        release: args.release,
        manifest_digest: digest.context("build.json names no image digest")?.0,
        config: args.config,
        size: args.size,
        sector_size: args.sector_size,
        disk_id: args.disk_id,
        begins: if args.trial { Begins::OnTrial } else { Begins::Default },
    };
    let format = match args.format {
        Format::Raw => disk::Format::Raw,
        Format::Qcow2 => disk::Format::Qcow2,
    };
    disk::make(&recipe, format, &args.out)
}

fn take_apart(args: &ExtractArgs) -> Result<()> {
    let named = args.part.iter().copied();
    let parts =
        if args.part.is_empty() { Part::ALL.into_iter().collect() } else { named.collect() };
    let facts = extract::extract(&args.source, &parts, &args.out)?;
    if args.json {
        println!("{facts:#}");
    } else {
        println!("{}", facts["slot"]["sha256"].as_str().unwrap_or_default());
    }
    Ok(())
}

fn lock(args: &LockArgs) -> Result<()> {
    if args.update {
        let (packages, tools) = build::update_locks(&args.spec, args.mirror.as_deref())?;
        println!("{packages} packages and {tools} tool packages pinned");
        return Ok(());
    }
    let spec = image_builder::spec::Spec::read(&args.spec)?;
    for lock in [&spec.lock, &spec.tools_lock] {
        for pinned in image_builder::lock::read(lock)? {
            println!("{} {}", pinned.name, pinned.version);
        }
    }
    Ok(())
}

fn keygen(out: &Path) -> Result<()> {
    ensure!(!out.exists(), "{} exists: a key is never overwritten", out.display());
    let mut entropy = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut entropy))
        .context("read random bytes for the key")?;
    let said = |error| anyhow::anyhow!("make a key: {error}");
    let key = SigningKey::from_entropy(&entropy).map_err(said)?;
    let private = key.to_pem().map_err(said)?;
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .with_context(|| format!("create {}", out.display()))?;
    std::io::Write::write_all(&mut file, private.as_bytes()).context("write the key")?;
    let public = out.with_extension("pub");
    fs::write(&public, key.public_pem().map_err(said)?)
        .with_context(|| format!("write {}", public.display()))
}

fn disk_id(text: &str) -> Result<Guid> {
    let id = Guid::parse(text).with_context(|| format!("{text} is no UUID"))?;
    ensure!(id != Guid::ZERO, "a disk needs an identifier that is not zero");
    Ok(id)
}

fn size(text: &str) -> Result<u64> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'K')) => (&text[..at], 10),
        Some((at, 'M')) => (&text[..at], 20),
        Some((at, 'G')) => (&text[..at], 30),
        Some(_) => (text, 0),
        None => bail!("no size"),
    };
    let number: u64 = digits.parse().with_context(|| format!("size {text}"))?;
    number.checked_mul(1 << shift).with_context(|| format!("size {text}"))
}
