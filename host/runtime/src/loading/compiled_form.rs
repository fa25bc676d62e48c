//! The compiled form of a plugin, held once: on Linux in a file in memory, which wasmtime maps instead of copying it.

// Decision: docs/decisions/0067-the-compiled-form-is-held-once.md

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// How much is copied at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// A compiled plugin on its way from the compiler or from disk to wasmtime.
#[derive(Debug)]
pub(crate) struct CompiledForm {
    held: Held,
    len: u64,
}

#[derive(Debug)]
enum Held {
    /// A file in memory, without a name. Its position is its end.
    File(File),
    /// On other systems, or if such a file cannot be created or written, as under `ulimit -f 0`.
    Bytes(Vec<u8>),
}

impl CompiledForm {
    /// Reads a stream to its end, or `max` bytes of it.
    ///
    /// # Errors
    ///
    /// That of a read, or [`io::ErrorKind::OutOfMemory`].
    pub(crate) fn read(stream: impl Read, max: u64) -> io::Result<Self> {
        let mut form = Self { held: memory_file().map_or(Held::Bytes(Vec::new()), Held::File), len: 0 };
        let mut stream = stream.take(max);
        let mut chunk = vec![0; CHUNK];
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => return Ok(form),
                Ok(read) => form.push(chunk.get(..read).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Held::File(file) = &mut self.held {
            if io::Write::write_all(file, bytes).is_ok() {
                self.len = self.len.saturating_add(count(bytes));
                return Ok(());
            }
            self.held = Held::Bytes(self.bytes()?.into_owned());
        }
        if let Held::Bytes(held) = &mut self.held {
            held.try_reserve(bytes.len())?;
            held.extend_from_slice(bytes);
            self.len = self.len.saturating_add(count(bytes));
        }
        Ok(())
    }

    /// The size in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Calls a function with each part, in order.
    ///
    /// # Errors
    ///
    /// That of the function, or of a read.
    pub(super) fn for_each(&self, mut part: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match &self.held {
            Held::Bytes(bytes) => part(bytes),
            Held::File(file) => {
                let mut chunk = vec![0; CHUNK];
                let mut offset = 0_u64;
                while offset < self.len {
                    let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(CHUNK).min(CHUNK);
                    let next = chunk.get_mut(..left).unwrap_or_default();
                    read_at(file, next, offset)?;
                    part(next)?;
                    offset = offset.saturating_add(count(next));
                }
                Ok(())
            }
        }
    }

    /// Seals the file, so that no process can change it, and returns a path at which this process can open it. `None` if
    /// there is no file, or no path to it.
    pub(super) fn sealed_file(&self) -> Option<PathBuf> {
        match &self.held {
            Held::File(file) => sealed(file),
            Held::Bytes(_) => None,
        }
    }

    /// All bytes, which are copied if they are in a file.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::OutOfMemory`], or that of a read.
    pub(super) fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        if let Held::Bytes(bytes) = &self.held {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut all = Vec::new();
        all.try_reserve_exact(usize::try_from(self.len).unwrap_or(usize::MAX))?;
        self.for_each(|part| {
            all.extend_from_slice(part);
            Ok(())
        })?;
        Ok(Cow::Owned(all))
    }
}

impl From<Vec<u8>> for CompiledForm {
    fn from(bytes: Vec<u8>) -> Self {
        Self { len: count(&bytes), held: Held::Bytes(bytes) }
    }
}

fn count(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(target_os = "linux")]
fn memory_file() -> Option<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    memfd_create("larder-compiled", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).ok().map(File::from)
}

#[cfg(target_os = "linux")]
fn sealed(file: &File) -> Option<PathBuf> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals};

    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    if !fcntl_get_seals(file).ok()?.contains(seals) {
        fcntl_add_seals(file, seals).ok()?;
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    path.exists().then_some(path)
}

#[cfg(not(target_os = "linux"))]
fn memory_file() -> Option<File> {
    None
}

#[cfg(not(target_os = "linux"))]
fn sealed(_file: &File) -> Option<PathBuf> {
    None
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// There is no such file on this system.
#[cfg(not(unix))]
fn read_at(_file: &File, _bytes: &mut [u8], _offset: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n % 251) as u8).collect()
    }

    fn parts(form: &CompiledForm) -> Vec<u8> {
        let mut all = Vec::new();
        form.for_each(|part| {
            all.extend_from_slice(part);
            Ok(())
        })
        .unwrap();
        all
    }

    #[test]
    fn what_was_read_is_what_is_held() {
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7] {
            let expected = bytes(len);
            for form in [CompiledForm::read(&expected[..], u64::MAX).unwrap(), expected.clone().into()] {
                assert_eq!(form.len(), len as u64);
                assert!(parts(&form) == expected && form.bytes().unwrap() == expected, "{len}");
            }
        }
        assert_eq!(CompiledForm::read(&bytes(100)[..], 60).unwrap().len(), 60);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn no_process_can_change_a_sealed_file() {
        let expected = bytes(2 * CHUNK);
        let form = CompiledForm::read(&expected[..], u64::MAX).unwrap();
        let path = form.sealed_file().expect("this system has files in memory");
        assert_eq!(form.sealed_file(), Some(path.clone()), "a second time as well");
        assert_eq!(std::fs::read(&path).unwrap(), expected);
        let refused =
            File::options().write(true).open(&path).and_then(|mut file| io::Write::write_all(&mut file, b"x"));
        assert!(refused.is_err() && std::fs::read(&path).unwrap() == expected);
    }

    /// As under `ulimit -f`.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_cannot_be_written_is_replaced_by_bytes() {
        let expected = bytes(CHUNK);
        let mut form = CompiledForm::read(&expected[..], u64::MAX).unwrap();
        form.sealed_file().unwrap();
        form.push(b"more").unwrap();
        assert!(matches!(form.held, Held::Bytes(_)));
        assert_eq!(parts(&form), [&expected[..], b"more"].concat());
        assert_eq!(form.sealed_file(), None);
    }
}
