//! `wasi:filesystem/types` of WASI 0.3: the limits of WASI 0.2, and one on the calls that run at a time.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use wasmtime::component::{Access, Accessor, FutureConsumer, FutureReader, Linker, Resource, Source, StreamReader};
use wasmtime::{AsContextMut, StoreContextMut};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode as ErrorCode2;
use wasmtime_wasi::p3::bindings::filesystem::types::{
    Advice, DescriptorFlags, ErrorCode, HostDescriptorWithStore as Host, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p3::filesystem::{FilesystemError, FilesystemResult};

use super::concurrent_interface;
use super::files::{check_open_files, open_output};
use crate::plugin_state::PluginState;
use crate::sandbox::{FileCall, FileOutput, FileWriter, NEW_FILE, OpenStream};

type File = Resource<Descriptor>;
type Filesystem = Accessor<PluginState, WasiFilesystem>;
type Store<'a> = StoreContextMut<'a, PluginState>;

/// How a stream ended.
type Ended = Result<(), ErrorCode>;

/// The descriptors of a listing: the directory, and the same opened anew to be read.
const LISTING: usize = 2;

/// The longest path, in bytes, as Linux has it. A longer one would only fill the host's queue of calls.
const MAX_PATH: usize = 4096;

/// Defines a function that may run beside others, from the plugin's files, the arguments, and those of them that are paths.
macro_rules! define {
    ($interface:ident, $name:literal, $function:path, ($($argument:ident: $type:ty),*), [$($path:ident),*]) => {
        $interface.func_wrap_concurrent(
            concat!("[method]descriptor.", $name),
            |accessor, ($($argument,)*): ($($type,)*)| {
                Box::pin(async move {
                    let paths: &[&str] = &[$(&$path),*];
                    let Some(call) = begin(accessor, paths)? else { return Ok((Err(ErrorCode::NameTooLong),)) };
                    let call = call.await;
                    let outcome = $function(&files(accessor), $($argument),*).await;
                    call.end();
                    Ok((outcome.map_or_else(|error| error.downcast().map(Err), |value| Ok(Ok(value)))?,))
                })
            },
        )?
    };
}

pub(super) fn add_limits(linker: &mut Linker<PluginState>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(concurrent_interface!("filesystem/types"))?;
    interface.func_wrap("[method]descriptor.read-via-stream", |mut store, (file, offset): (File, u64)| {
        let open = open_stream(store.data_mut(), 1)?;
        let (stream, ended) = WasiFilesystem::read_via_stream(access(&mut store), file, offset)?;
        Ok(((stream, counted(&mut store, ended, open)?),))
    })?;
    interface.func_wrap("[method]descriptor.read-directory", |mut store, (directory,): (File,)| {
        let open = open_stream(store.data_mut(), LISTING)?;
        let (stream, ended) = WasiFilesystem::read_directory(access(&mut store), directory)?;
        Ok(((stream, counted(&mut store, ended, open)?),))
    })?;
    interface.func_wrap(
        "[method]descriptor.write-via-stream",
        |store, (file, data, offset): (File, StreamReader<u8>, u64)| write(store, file, data, Some(offset)),
    )?;
    interface.func_wrap("[method]descriptor.append-via-stream", |store, (file, data): (File, StreamReader<u8>)| {
        write(store, file, data, None)
    })?;
    define!(interface, "advise", Host::advise, (file: File, offset: u64, length: u64, advice: Advice), []);
    define!(interface, "sync-data", Host::sync_data, (file: File), []);
    define!(interface, "get-flags", Host::get_flags, (file: File), []);
    define!(interface, "get-type", Host::get_type, (file: File), []);
    define!(interface, "set-size", set_size, (file: File, size: u64), []);
    define!(
        interface,
        "set-times",
        Host::set_times,
        (file: File, accessed: NewTimestamp, modified: NewTimestamp),
        []
    );
    define!(interface, "sync", Host::sync, (file: File), []);
    define!(interface, "create-directory-at", create_directory_at, (directory: File, path: String), [path]);
    define!(interface, "stat", Host::stat, (file: File), []);
    define!(interface, "stat-at", Host::stat_at, (directory: File, follow: PathFlags, path: String), [path]);
    define!(
        interface,
        "set-times-at",
        Host::set_times_at,
        (directory: File, follow: PathFlags, path: String, accessed: NewTimestamp, modified: NewTimestamp),
        [path]
    );
    define!(
        interface,
        "link-at",
        link_at,
        (directory: File, follow: PathFlags, old: String, to: File, new: String),
        [old, new]
    );
    define!(
        interface,
        "open-at",
        open_at,
        (directory: File, follow: PathFlags, path: String, open: OpenFlags, flags: DescriptorFlags),
        [path]
    );
    define!(interface, "readlink-at", Host::readlink_at, (directory: File, path: String), [path]);
    define!(interface, "remove-directory-at", Host::remove_directory_at, (directory: File, path: String), [path]);
    define!(
        interface,
        "rename-at",
        Host::rename_at,
        (directory: File, old: String, to: File, new: String),
        [old, new]
    );
    define!(interface, "symlink-at", symlink_at, (directory: File, old: String, new: String), [old, new]);
    define!(interface, "unlink-file-at", Host::unlink_file_at, (directory: File, path: String), [path]);
    interface.func_wrap_concurrent("[method]descriptor.is-same-object", |accessor, (file, other): (File, File)| {
        Box::pin(async move {
            let held = accessor.with(|mut access| access.data_mut().files.hold_paths(0));
            let call = held.begin().await;
            let is_same = WasiFilesystem::is_same_object(&files(accessor), file, other).await?;
            call.end();
            Ok((is_same,))
        })
    })?;
    define!(interface, "metadata-hash", Host::metadata_hash, (file: File), []);
    define!(
        interface,
        "metadata-hash-at",
        Host::metadata_hash_at,
        (directory: File, follow: PathFlags, path: String),
        [path]
    );
    Ok(())
}

fn files(accessor: &Accessor<PluginState>) -> Filesystem {
    accessor.with_getter::<WasiFilesystem>(PluginState::filesystem)
}

fn access<'a>(store: &'a mut Store<'_>) -> Access<'a, PluginState, WasiFilesystem> {
    Access::<_, WasiFilesystem>::new(store.as_context_mut(), PluginState::filesystem)
}

/// Begins a call, whose paths are charged to the instance while it runs. `None` if one of them is too long.
fn begin(
    accessor: &Accessor<PluginState>,
    paths: &[&str],
) -> wasmtime::Result<Option<impl Future<Output = FileCall> + use<>>> {
    if paths.iter().any(|path| path.len() > MAX_PATH) {
        return Ok(None);
    }
    let bytes = paths.iter().map(|path| path.len()).sum();
    accessor.with(|mut access| {
        let state = access.data_mut();
        let held = state.files.hold_paths(bytes);
        if bytes > 0 {
            state.weigh()?;
        }
        Ok(Some(held.begin()))
    })
}

/// Takes bytes from the quota of the run.
fn take(files: &Filesystem, bytes: u64) -> FilesystemResult<()> {
    files
        .with(|mut access| access.data_mut().dir_quota.take(bytes))
        .map_err(|_full| ErrorCode::InsufficientSpace.into())
}

/// Counts a stream among the open files of the instance, of which it holds this many.
fn open_stream(state: &mut PluginState, descriptors: usize) -> wasmtime::Result<OpenStream> {
    check_open_files(state)?;
    let open = state.files.open(descriptors);
    state.weigh()?;
    Ok(open)
}

/// Counts a stream until it ends, which its future tells.
fn counted(
    store: &mut Store<'_>,
    ended: FutureReader<Ended>,
    open: OpenStream,
) -> wasmtime::Result<FutureReader<Ended>> {
    let (sender, receiver) = oneshot::channel();
    ended.pipe(store.as_context_mut(), Counted(Some((sender, open))))?;
    FutureReader::new(store, receiver)
}

/// Passes on how a stream ended.
struct Counted(Option<(oneshot::Sender<Ended>, OpenStream)>);

impl<D> FutureConsumer<D> for Counted {
    type Item = Ended;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        mut source: Source<'_, Ended>,
        _finish: bool,
    ) -> Poll<wasmtime::Result<()>> {
        let mut ended = None;
        source.read(store, &mut ended)?;
        if let (Some(ended), Some((sender, _open))) = (ended, self.0.take()) {
            // A plugin that has dropped the future does not want to know.
            let _dropped = sender.send(ended);
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes a stream to a file, from an offset or at its end.
fn write(
    mut store: Store<'_>,
    file: File,
    mut data: StreamReader<u8>,
    offset: Option<u64>,
) -> wasmtime::Result<(FutureReader<Ended>,)> {
    let (sender, ended) = oneshot::channel();
    match open_writer(store.data_mut(), file, offset)? {
        Ok(file) => data.pipe(&mut store, FileWriter::new(file, sender))?,
        Err(error) => {
            data.close(&mut store)?;
            // The receiver is below.
            let _sent = sender.send(Err(error));
        }
    }
    Ok((FutureReader::new(store, ended)?,))
}

fn open_writer(
    state: &mut PluginState,
    file: File,
    offset: Option<u64>,
) -> wasmtime::Result<Result<FileOutput, ErrorCode>> {
    check_open_files(state)?;
    match open_output(state, file, offset) {
        Ok(file) => {
            state.weigh()?;
            Ok(Ok(file))
        }
        Err(error) => Ok(Err(match error.downcast()? {
            ErrorCode2::BadDescriptor => ErrorCode::BadDescriptor,
            ErrorCode2::NotPermitted => ErrorCode::NotPermitted,
            _ => ErrorCode::Io,
        })),
    }
}

async fn set_size(files: &Filesystem, file: File, size: u64) -> FilesystemResult<()> {
    let before = WasiFilesystem::stat(files, borrow(&file)).await?.size;
    take(files, size.saturating_sub(before))?;
    WasiFilesystem::set_size(files, file, size).await
}

async fn create_directory_at(files: &Filesystem, directory: File, path: String) -> FilesystemResult<()> {
    take(files, NEW_FILE)?;
    WasiFilesystem::create_directory_at(files, directory, path).await
}

async fn symlink_at(files: &Filesystem, directory: File, old: String, new: String) -> FilesystemResult<()> {
    take(files, NEW_FILE)?;
    WasiFilesystem::symlink_at(files, directory, old, new).await
}

async fn link_at(
    files: &Filesystem,
    directory: File,
    follow: PathFlags,
    old: String,
    to: File,
    new: String,
) -> FilesystemResult<()> {
    take(files, NEW_FILE)?;
    WasiFilesystem::link_at(files, directory, follow, old, to, new).await
}

async fn open_at(
    files: &Filesystem,
    directory: File,
    follow: PathFlags,
    path: String,
    open: OpenFlags,
    flags: DescriptorFlags,
) -> FilesystemResult<File> {
    let opening = files.with(|mut access| {
        let state = access.data_mut();
        check_open_files(state).map(|()| state.files.open(1))
    });
    // Others may open at the same time.
    let _opening = opening.map_err(FilesystemError::trap)?;
    if !open.contains(OpenFlags::CREATE) || open.contains(OpenFlags::DIRECTORY) {
        return WasiFilesystem::open_at(files, directory, follow, path, open, flags).await;
    }
    if open.contains(OpenFlags::EXCLUSIVE) {
        if WasiFilesystem::stat_at(files, borrow(&directory), follow, path.clone()).await.is_ok() {
            return Err(ErrorCode::Exist.into());
        }
    } else {
        // Only a call that is charged may create: another task could rename the file after a look.
        let (there, writing) = (open & OpenFlags::TRUNCATE, writing(flags));
        match WasiFilesystem::open_at(files, borrow(&directory), follow, path.clone(), there, writing).await {
            Err(error) if matches!(error.downcast_ref(), Some(ErrorCode::NoEntry)) => {}
            opened => return opened,
        }
    }
    take(files, NEW_FILE)?;
    WasiFilesystem::open_at(files, directory, follow, path, open, flags).await
}

/// The flags that a file is opened with when it may be created.
fn writing(flags: DescriptorFlags) -> DescriptorFlags {
    let reading = if flags.contains(DescriptorFlags::WRITE) { DescriptorFlags::empty() } else { DescriptorFlags::READ };
    flags | reading | DescriptorFlags::WRITE
}

/// A handle that a call may use again.
fn borrow(file: &File) -> File {
    Resource::new_borrow(file.rep())
}
