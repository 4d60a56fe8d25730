//! A whole build in order: packages, root, file system, kernel images, slot, container image.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use partition_layout::labels::ImageLabels;
use partition_layout::slot_image::{Trailer, WATCHDOG_I6300ESB};
use partition_layout::verity::VerityTable;
use serde_json::json;
use update_manifest::sign::SigningKey;

use crate::archive::{self, Archive};
use crate::erofs::{self, Tools};
use crate::initrd;
use crate::kernel::{self, Kernel};
use crate::libraries;
use crate::lock::{self, Pinned};
use crate::oci;
use crate::package;
use crate::pattern;
use crate::progress;
use crate::secure_boot::{KeyPair, Signer};
use crate::slot::{self, Facts};
use crate::spec::Spec;
use crate::system;
use crate::tree::{Node, Tree};
use crate::uki;

const STUB: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";
const BUSYBOX: &str = "usr/bin/busybox";
/// Level for the initrd: small enough, and the kernel unpacks every level alike.
const INITRD_LEVEL: i32 = 19;
/// What the design allows a slot image to be.
const SLOT_MAX: u64 = 2 << 30;

/// What a build takes.
#[derive(Debug, Clone)]
pub struct Request {
    /// The spec.
    pub spec: PathBuf,
    /// Folder with the device's programs.
    pub binaries: PathBuf,
    /// The loader.
    pub loader: PathBuf,
    /// Key that signs the container image, PEM.
    pub key: PathBuf,
    /// Folder of the kernel's command line and module list.
    pub kernel: PathBuf,
    /// Folder of the service files.
    pub services: PathBuf,
    /// Sign for Secure Boot, each; none: nothing is signed.
    pub secure_boot: Vec<KeyPair>,
    /// Output folder; made, and must be empty.
    pub out: PathBuf,
    /// Instead of the spec's release number.
    pub release: Option<u64>,
    /// Instead of the spec's version.
    pub version: Option<String>,
    /// zstd level of the layer.
    pub level: i32,
    /// Where packages come from; none: the machine's archive.
    pub mirror: Option<String>,
}

/// What a build made.
#[derive(Debug, Clone)]
pub struct Built {
    /// Digest of the container image.
    pub digest: String,
    /// Size of the slot image in bytes.
    pub slot_size: u64,
    /// Size of the container image's layer in bytes.
    pub layer_size: u64,
}

/// Builds a release.
///
/// # Errors
/// Anything that a build needs is missing, damaged or refused.
pub fn build(request: &Request) -> Result<Built> {
    let mut spec = Spec::read(&request.spec)?;
    spec.release = request.release.unwrap_or(spec.release);
    spec.version = request.version.clone().unwrap_or(spec.version);
    let key = fs::read_to_string(&request.key)
        .with_context(|| format!("read signing key {}", request.key.display()))?;
    let key = SigningKey::from_pem(&key)
        .map_err(|error| anyhow::anyhow!("signing key {}: {error}", request.key.display()))?;
    let out = &request.out;
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    let work = out.join("work");
    fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;

    let archive = Archive::of_machine(&archive::default_cache()?, request.mirror.as_deref())?;
    let refresh = format!("image-builder lock {} --update", request.spec.display());
    let tools = tools(&archive, &spec, &refresh)?;
    let mut root = unpack(&archive, &spec, &refresh)?;
    let stub = take(&mut root, STUB)?;
    let busybox = take(&mut root, BUSYBOX)?;
    root.remove(|path| path.starts_with("usr/lib/systemd/boot"));
    let kernel = kernel::take(&mut root)?;
    kernel::index(&mut root, &kernel.release, &work)?;
    system::complete(&mut root, &spec, request, &key)?;
    libraries::check(&root)?;

    let facts = facts(&spec);
    let images = Images::prepare(request, &spec, &root, kernel, stub, &work)?;
    let slot_path = out.join("slot.img");
    let uuid = slot::uuid_text(slot::uuid(&facts));
    say("erofs", &format!("{} MiB in {} paths", root.size() >> 20, root.nodes().count()));
    let data_size = erofs::make(&tools, &root, &uuid, spec.build_time, &slot_path)?;
    erofs::compare(&tools, &slot_path, &root, &work)?;
    let trailer = slot::finish(&slot_path, data_size, &facts, |table| images.uki(table))?;
    let slot_size = fs::metadata(&slot_path).context("look at the slot")?.len();
    ensure!(slot_size <= SLOT_MAX, "the slot image of {slot_size} bytes exceeds {SLOT_MAX}");
    say("slot", &format!("{slot_size} bytes, release {}", spec.release));

    write(&out.join("recovery.efi"), &images.recovery(&busybox)?)?;
    let loader = fs::read(&request.loader)
        .with_context(|| format!("read loader {}", request.loader.display()))?;
    write(&out.join("loader.efi"), &images.signed(&loader)?)?;
    let written = container_image(request, &spec, &slot_path, &trailer, &key)?;
    let built =
        Built { digest: written.digest.to_string(), slot_size, layer_size: written.layer_size };
    let report = json!({
        "digest": built.digest, "release": spec.release, "version": spec.version,
        "slot_size": slot_size, "layer_size": written.layer_size,
        "form_overhead": written.overhead, "uki_size": trailer.uki_size,
        "root_hash": partition_layout::verity::hex(&trailer.root_hash),
        "hash_offset": trailer.data_size, "secure_boot": !request.secure_boot.is_empty(),
    });
    write(&out.join("build.json"), &serde_json::to_vec_pretty(&report).context("report")?)?;
    fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    say("image", &format!("{} of {} bytes", built.digest, built.layer_size));
    Ok(built)
}

/// Resolves the spec's packages and tools anew and writes both lock files.
///
/// # Errors
/// The archive does not have one of them.
pub fn update_locks(spec: &Path, mirror: Option<&str>) -> Result<(usize, usize)> {
    let spec = Spec::read(spec)?;
    let archive = Archive::of_machine(&archive::default_cache()?, mirror)?;
    let left_out: BTreeSet<&str> =
        spec.leave_out.iter().flat_map(|it| it.packages.iter().map(String::as_str)).collect();
    let packages = archive.resolve(&spec.suites, &spec.packages, &left_out)?;
    let suite = [spec.tools_suite.clone()];
    let tools = archive.resolve(&suite, &spec.tools, &BTreeSet::new())?;
    lock::write(&spec.lock, &packages)?;
    lock::write(&spec.tools_lock, &tools)?;
    Ok((packages.len(), tools.len()))
}

fn tools(archive: &Archive, spec: &Spec, refresh: &str) -> Result<Tools> {
    let pinned = lock::read(&spec.tools_lock)?;
    let hash = archive::sha256(&spec.tools_lock)?;
    let target = archive.cache.join("tools").join(format!("build-{}", &hash[..16]));
    if !target.exists() {
        let files = archive.fetch(&pinned, refresh)?;
        let part = target.with_extension(format!("part-{}", std::process::id()));
        Tools::unpack(&files, &part)?;
        // Another build may have been faster; what it made is the same.
        if fs::rename(&part, &target).is_err() && !target.exists() {
            anyhow::bail!("keep the build tools as {}", target.display());
        }
    }
    Ok(Tools::at(&target))
}

fn unpack(archive: &Archive, spec: &Spec, refresh: &str) -> Result<Tree> {
    let pinned: Vec<Pinned> = lock::read(&spec.lock)?;
    let files = archive.fetch(&pinned, refresh)?;
    let patterns: Vec<&String> = spec.drop.iter().flat_map(|it| &it.paths).collect();
    let is_dropped = |path: &str| patterns.iter().any(|it| pattern::matches(it, path));
    let mut tree = Tree::new();
    let bar = progress::things("unpack", files.len() as u64);
    for file in &files {
        package::unpack(file, &mut tree, &is_dropped)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(tree)
}

fn take(tree: &mut Tree, path: &str) -> Result<Vec<u8>> {
    match tree.remove(|it| it == path).pop() {
        Some((_, Node::File(_, content))) => Ok(content.to_vec()),
        _ => anyhow::bail!("the packages hold no file {path}"),
    }
}

fn facts(spec: &Spec) -> Facts {
    Facts {
        release: spec.release,
        secver: spec.secver,
        version: spec.version.clone(),
        product: spec.product.clone(),
        arch: spec.arch.clone(),
        watchdogs: WATCHDOG_I6300ESB,
    }
}

/// What every kernel image of a build is made of.
struct Images<'a> {
    stub: Vec<u8>,
    kernel: Kernel,
    os_release: String,
    command_line: String,
    init: Vec<u8>,
    modules: Vec<(String, Vec<u8>)>,
    /// The part of the initrd that does not know the verity table, compressed.
    body: Vec<u8>,
    signer: Signer,
    work: &'a Path,
}

impl<'a> Images<'a> {
    fn prepare(
        request: &Request,
        spec: &Spec,
        root: &Tree,
        kernel: Kernel,
        stub: Vec<u8>,
        work: &'a Path,
    ) -> Result<Self> {
        let text = |name: &str| {
            let path = request.kernel.join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let modules = kernel::for_initrd(root, &kernel.release, &text("modules")?)?;
        let signer = Signer { pairs: request.secure_boot.clone(), time: spec.build_time };
        let mut images = Self {
            stub,
            os_release: String::from_utf8_lossy(root.content("usr/lib/os-release")?).into_owned(),
            command_line: kernel::command_line(&text("cmdline")?, &spec.cmdline),
            init: root.content("usr/lib/bascule/os-init")?.to_vec(),
            kernel,
            modules,
            body: Vec::new(),
            signer,
            work,
        };
        images.body = compress(&images.body().finish())?;
        Ok(images)
    }

    fn body(&self) -> initrd::Archive {
        let mut archive = initrd::Archive::default();
        for folder in ["/dev", "/proc", "/sys", "/run", "/sysroot"] {
            archive.folder(folder);
        }
        archive.file("/init", 0o755, &self.init);
        for (number, (name, content)) in self.modules.iter().enumerate() {
            archive.file(&format!("/modules/{number:03}-{name}"), 0o644, content);
        }
        archive
    }

    /// The slot's kernel image.
    fn uki(&self, table: &VerityTable) -> Result<Vec<u8>> {
        let mut head = initrd::Archive::default();
        head.file("/verity", 0o644, table.encode().as_bytes());
        head.file("/policy", 0o644, b"");
        let mut initrd = head.finish();
        initrd.extend_from_slice(&self.body);
        self.assemble(&initrd)
    }

    /// The recovery image: the same kernel and `/init`, and a shell in place of a root.
    fn recovery(&self, busybox: &[u8]) -> Result<Vec<u8>> {
        let mut archive = self.body();
        archive.file("/verity", 0o644, b"");
        archive.file("/bin/busybox", 0o755, busybox);
        self.assemble(&compress(&archive.finish())?)
    }

    fn assemble(&self, initrd: &[u8]) -> Result<Vec<u8>> {
        let image = uki::assemble(&uki::Parts {
            stub: &self.stub,
            os_release: &self.os_release,
            command_line: &self.command_line,
            kernel_release: &self.kernel.release,
            kernel: &self.kernel.image,
            initrd,
        })?;
        self.signed(&image)
    }

    fn signed(&self, program: &[u8]) -> Result<Vec<u8>> {
        self.signer.sign(program, self.work)
    }
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    zstd::bulk::compress(bytes, INITRD_LEVEL).context("compress the initrd")
}

fn container_image(
    request: &Request,
    spec: &Spec,
    slot: &Path,
    trailer: &Trailer,
    key: &SigningKey,
) -> Result<oci::Written> {
    let layout = request.out.join("oci");
    if layout.exists() {
        fs::remove_dir_all(&layout).with_context(|| format!("empty {}", layout.display()))?;
    }
    let size = fs::metadata(slot).context("look at the slot")?.len();
    let bar = progress::bytes("compress", size);
    let labels = ImageLabels {
        product: spec.product.clone(),
        kind: spec.kind.clone(),
        arch: spec.arch.clone(),
        release: spec.release,
        secver: spec.secver,
        min_from: spec.min_from,
        requires: spec.requires.clone(),
        version: spec.version.clone(),
        slot_size: size,
        slot_sha256: [0; 32],
        root_hash: trailer.root_hash,
    };
    let cache = archive::default_cache()?;
    let recipe = oci::Recipe {
        slot,
        labels,
        created: &updater::clock::utc(spec.build_time),
        level: request.level,
        cache: Some(&cache),
        key,
        reference: "bascule/os",
    };
    let written = oci::write(&recipe, &layout, &|done| bar.set_position(done))?;
    bar.finish_and_clear();
    Ok(written)
}

fn say(step: &str, what: &str) {
    eprintln!("{step}: {what}");
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}
