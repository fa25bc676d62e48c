//! Compiled plugins on disk, so that the next start need not compile them.

// Decision: docs/decisions/0059-compiled-plugins-are-kept-in-files-of-our-own.md

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use wasmtime::Engine;

use super::{CompiledForm, trusted_folder};
use crate::cache::small_file::open_without_waiting;

/// The environment variable that names the folder, or is `off`.
const VARIABLE: &str = "LARDER_COMPILED";

/// The size of all files together. The least recently used ones are deleted.
const MAX_TOTAL: u64 = 512 << 20;

/// The first bytes of a file: the format and its version.
const MAGIC: [u8; 8] = *b"larder\x01\n";

/// The magic, and the checksum as a little-endian number.
const HEAD: usize = 12;

/// The extension of a file that is being written.
const UNFINISHED: &str = "tmp";

/// The age at which a file counts as used again, or as left behind by a process that was killed.
const HOUR: Duration = Duration::from_secs(3600);

/// The folder of compiled plugins.
#[derive(Debug)]
pub(super) struct CompiledFolder {
    path: PathBuf,
    /// True once a write has failed, so that a full disk causes one warning.
    has_failed: AtomicBool,
}

/// The name of a compiled plugin: the hash of the component, and of all that its compiled form depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    pub(super) fn new(engine: &Engine, component: &[u8]) -> Self {
        let mut hasher = ToSha256(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.0.update(component);
        Self(hasher.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Passes what is hashed on to SHA-256.
struct ToSha256(Sha256);

impl Hasher for ToSha256 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Not used: the digest is.
    fn finish(&self) -> u64 {
        0
    }
}

impl CompiledFolder {
    /// Opens the folder that [`VARIABLE`] names, or the one in the user's cache folder. Returns `None` if it is `off`,
    /// or, with a warning, if the folder cannot be used.
    pub(super) fn open() -> Option<Self> {
        let named = named_folder()?;
        match trusted_folder::open(&named) {
            Ok(path) => Some(Self { path, has_failed: AtomicBool::new(false) }),
            Err(reason) => {
                tracing::warn!("cannot keep compiled plugins in `{}`: {reason}", named.display());
                None
            }
        }
    }

    /// Reads a compiled plugin of at most `max` bytes. `None` if there is none, or if its file is damaged.
    pub(super) fn read(&self, name: &Name, max: u64) -> Option<CompiledForm> {
        let path = self.path.join(&name.0);
        let mut file = open_without_waiting(&path).ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || metadata.len() > max.saturating_add(HEAD as u64) {
            return None;
        }
        let mut head = [0; HEAD];
        file.read_exact(&mut head).ok()?;
        let compiled = CompiledForm::read(&mut file, max).ok()?;
        if head != self::head(name, &compiled).ok()? {
            tracing::debug!("`{}` is damaged, so the plugin is compiled again", path.display());
            return None;
        }
        if metadata.modified().ok().and_then(|used| used.elapsed().ok()).is_some_and(|age| age > HOUR) {
            // Best effort: a file that seems unused is only deleted earlier.
            let _kept = File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        }
        Some(compiled)
    }

    /// Writes a compiled plugin. A failure causes one warning and has no other effect.
    pub(super) fn write(&self, name: &Name, compiled: &CompiledForm) {
        if let Err(error) = self.try_write(name, compiled)
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("cannot keep compiled plugins in `{}`: {error}", self.path.display());
        }
    }

    fn try_write(&self, name: &Name, compiled: &CompiledForm) -> io::Result<()> {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        self.make_room(compiled.len())?;
        if compiled.len() > MAX_TOTAL {
            return Ok(());
        }
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.path.join(format!("{}-{}-{number}.{UNFINISHED}", name.0, std::process::id()));
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&unfinished).and_then(|mut file| {
            file.write_all(&head(name, compiled)?)?;
            compiled.for_each(|part| file.write_all(part))?;
            drop(file);
            // Readers see the whole file or none. A file that a crash of the machine damages fails its checksum.
            fs::rename(&unfinished, self.path.join(&name.0))
        });
        if written.is_err() {
            let _absent = fs::remove_file(&unfinished);
        }
        written
    }

    /// Deletes the least recently used files until there is room, and files that were never finished.
    fn make_room(&self, needed: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if is_unfinished(&path) && used.elapsed().is_ok_and(|age| age > HOUR) {
                let _gone = fs::remove_file(&path);
            } else if metadata.is_file() && is_ours(&path) {
                files.push((used, metadata.len(), path));
            }
        }
        files.sort();
        let mut total = files.iter().fold(needed, |total, (_, size, _)| total.saturating_add(*size));
        for (_, size, path) in files {
            if total <= MAX_TOTAL {
                break;
            }
            // Another process may have deleted it.
            fs::remove_file(path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
            total = total.saturating_sub(size);
        }
        Ok(())
    }
}

/// The start of the file of a compiled plugin. Its checksum covers the name, so that no file is taken for another.
fn head(name: &Name, compiled: &CompiledForm) -> io::Result<[u8; HEAD]> {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(name.0.as_bytes());
    compiled.for_each(|part| {
        checksum.update(part);
        Ok(())
    })?;
    let [a, b, c, d] = checksum.finalize().to_le_bytes();
    let [m0, m1, m2, m3, m4, m5, m6, m7] = MAGIC;
    Ok([m0, m1, m2, m3, m4, m5, m6, m7, a, b, c, d])
}

/// True for the name of a compiled plugin: other files in the folder are left alone.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == UNFINISHED)
}

fn named_folder() -> Option<PathBuf> {
    let absolute = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    match std::env::var_os(VARIABLE) {
        Some(off) if off == "off" => None,
        Some(folder) if !folder.is_empty() => std::path::absolute(folder).ok(),
        _ => absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .map(|base| base.join("larder").join("compiled")),
    }
}
