//! `wasi:filesystem/types`: the bytes written, the open files and the size of directory listings are limited.

use std::sync::Arc;

use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, Host as _, HostDescriptor as _, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::interface;
use crate::plugin_state::PluginState;
use crate::sandbox::{ChargedBlock, FileInput, FileOutput, Listing, NEW_FILE};

/// The maximum number of files and directories that an instance holds open. Each takes a file descriptor of the host.
const MAX_OPEN_FILES: usize = 256;

/// The memory of one entry of a directory listing besides its name, in bytes.
const LISTED: usize = 96;

type File = Resource<Descriptor>;

/// Defines an asynchronous function that takes the plugin's state and the arguments.
macro_rules! define {
    ($interface:ident, $name:literal, $function:path, ($($argument:ident: $type:ty),*)) => {
        $interface.func_wrap_async($name, |mut store, ($($argument,)*): ($($type,)*)| {
            Box::new(async move {
                let state = store.data_mut();
                let outcome = $function(state, $($argument),*).await;
                fs_result(state, outcome)
            })
        })?
    };
}

pub(super) fn add_limits(linker: &mut Linker<PluginState>) -> wasmtime::Result<()> {
    let mut interface = linker.instance(interface!("filesystem/types"))?;
    interface.resource("directory-entry-stream", ResourceType::host::<Listing>(), |mut store, listing| {
        store.data_mut().table.delete(Resource::<Listing>::new_own(listing))?;
        Ok(())
    })?;
    define!(interface, "[method]descriptor.read-directory", read_directory, (file: File));
    let next_entry = "[method]directory-entry-stream.read-directory-entry";
    interface.func_wrap_async(next_entry, |mut store, (listing,): (Resource<Listing>,)| {
        Box::new(async move {
            let next = store.data_mut().table.get_mut(&listing)?.entries.next();
            Ok((Ok::<_, ErrorCode>(next),))
        })
    })?;
    interface.func_wrap("[method]descriptor.read-via-stream", |mut store, (file, offset): (File, u64)| {
        let opened = read_via_stream(store.data_mut(), file, offset);
        fs_result(store.data_mut(), opened)
    })?;
    interface.func_wrap("[method]descriptor.write-via-stream", |mut store, (file, offset): (File, u64)| {
        let opened = output(store.data_mut(), file, Some(offset));
        fs_result(store.data_mut(), opened)
    })?;
    interface.func_wrap("[method]descriptor.append-via-stream", |mut store, (file,): (File,)| {
        let opened = output(store.data_mut(), file, None);
        fs_result(store.data_mut(), opened)
    })?;
    define!(interface, "[method]descriptor.write", write, (file: File, bytes: Vec<u8>, offset: u64));
    define!(interface, "[method]descriptor.set-size", set_size, (file: File, size: u64));
    define!(interface, "[method]descriptor.create-directory-at", create_directory_at, (file: File, path: String));
    define!(interface, "[method]descriptor.symlink-at", symlink_at, (file: File, old: String, new: String));
    define!(
        interface,
        "[method]descriptor.link-at",
        link_at,
        (file: File, flags: PathFlags, old: String, to: File, new: String)
    );
    define!(
        interface,
        "[method]descriptor.open-at",
        open_at,
        (file: File, follow: PathFlags, path: String, open: OpenFlags, flags: DescriptorFlags)
    );
    Ok(())
}

/// The result that the plugin gets, or a trap.
fn fs_result<T>(state: &mut PluginState, outcome: FsResult<T>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    Ok((match outcome {
        Ok(value) => Ok(value),
        Err(error) => Err(state.filesystem().convert_error_code(error)?),
    },))
}

/// Takes bytes from the quota of the run.
fn take(state: &PluginState, bytes: u64) -> FsResult<()> {
    state.dir_quota.take(bytes).map_err(|_full| ErrorCode::InsufficientSpace.into())
}

/// A handle that a call may use again.
fn borrow(file: &File) -> File {
    Resource::new_borrow(file.rep())
}

/// Charges a resource that was added to the table to the instance.
fn weigh(state: &mut PluginState) -> FsResult<()> {
    state.weigh().map_err(FsError::trap)
}

fn read_via_stream(state: &mut PluginState, file: File, offset: u64) -> FsResult<Resource<DynInputStream>> {
    let stream = state.filesystem().read_via_stream(file, offset)?;
    let stream = state.table.delete(stream)?;
    let (chunk, open) = (state.shares.chunk(), state.files.open(1));
    let stream: DynInputStream = Box::new(FileInput { stream, chunk, _open: open });
    let stream = state.table.push(stream)?;
    weigh(state)?;
    Ok(stream)
}

/// Opens a stream that writes to a file with limits, from an offset or at its end.
pub(super) fn open_output(state: &mut PluginState, file: File, offset: Option<u64>) -> FsResult<FileOutput> {
    let stream = match offset {
        Some(offset) => state.filesystem().write_via_stream(file, offset),
        None => state.filesystem().append_via_stream(file),
    }?;
    let stream = state.table.delete(stream)?;
    let (chunk, open) = (state.shares.chunk(), state.files.open(1));
    let position = offset.map(|offset| (offset, ChargedBlock::default()));
    Ok(FileOutput { stream, chunk, quota: Arc::clone(&state.dir_quota), position, _open: open })
}

fn output(state: &mut PluginState, file: File, offset: Option<u64>) -> FsResult<Resource<DynOutputStream>> {
    let stream: DynOutputStream = Box::new(open_output(state, file, offset)?);
    let stream = state.table.push(stream)?;
    weigh(state)?;
    Ok(stream)
}

async fn write(state: &mut PluginState, file: File, bytes: Vec<u8>, offset: u64) -> FsResult<u64> {
    let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    state.dir_quota.take_at(file.rep(), offset, len).map_err(|_full| FsError::from(ErrorCode::InsufficientSpace))?;
    state.filesystem().write(file, bytes, offset).await
}

async fn set_size(state: &mut PluginState, file: File, size: u64) -> FsResult<()> {
    let before = state.filesystem().stat(borrow(&file)).await?.size;
    take(state, size.saturating_sub(before))?;
    state.filesystem().set_size(file, size).await
}

async fn create_directory_at(state: &mut PluginState, file: File, path: String) -> FsResult<()> {
    take(state, NEW_FILE)?;
    state.filesystem().create_directory_at(file, path).await
}

async fn symlink_at(state: &mut PluginState, file: File, old: String, new: String) -> FsResult<()> {
    take(state, NEW_FILE)?;
    state.filesystem().symlink_at(file, old, new).await
}

async fn link_at(
    state: &mut PluginState,
    file: File,
    flags: PathFlags,
    old: String,
    to: File,
    new: String,
) -> FsResult<()> {
    take(state, NEW_FILE)?;
    state.filesystem().link_at(file, flags, old, to, new).await
}

/// Checks that the instance may open another file or stream.
///
/// # Errors
///
/// The trap, if it holds [`MAX_OPEN_FILES`].
pub(super) fn check_open_files(state: &mut PluginState) -> wasmtime::Result<()> {
    let descriptors = state.table.iter_mut().filter(|resource| resource.is::<Descriptor>()).count();
    if descriptors.saturating_add(state.files.count()) < MAX_OPEN_FILES {
        return Ok(());
    }
    Err(wasmtime::Error::msg(format!("it opened more than {MAX_OPEN_FILES} files at a time")))
}

async fn open_at(
    state: &mut PluginState,
    file: File,
    follow: PathFlags,
    path: String,
    open: OpenFlags,
    flags: DescriptorFlags,
) -> FsResult<File> {
    check_open_files(state).map_err(FsError::trap)?;
    if !open.contains(OpenFlags::CREATE) || open.contains(OpenFlags::DIRECTORY) {
        return state.filesystem().open_at(file, follow, path, open, flags).await;
    }
    if open.contains(OpenFlags::EXCLUSIVE) {
        if state.filesystem().stat_at(borrow(&file), follow, path.clone()).await.is_ok() {
            return Err(ErrorCode::Exist.into());
        }
    } else {
        // Only a call that is charged may create: another could remove the file after a look.
        let there = open & OpenFlags::TRUNCATE;
        let flags = writing(flags);
        match state.filesystem().open_at(borrow(&file), follow, path.clone(), there, flags).await {
            Err(error) if matches!(error.downcast_ref(), Some(ErrorCode::NoEntry)) => {}
            opened => return opened,
        }
    }
    take(state, NEW_FILE)?;
    state.filesystem().open_at(file, follow, path, open, flags).await
}

/// The flags that a file is opened with when it may be created.
fn writing(flags: DescriptorFlags) -> DescriptorFlags {
    let reading = if flags.contains(DescriptorFlags::WRITE) { DescriptorFlags::empty() } else { DescriptorFlags::READ };
    flags | reading | DescriptorFlags::WRITE
}

async fn read_directory(state: &mut PluginState, file: File) -> FsResult<Resource<Listing>> {
    let stream = state.filesystem().read_directory(file).await?;
    let max = state.shares.weighed();
    let mut entries = Vec::new();
    let mut weight = 0_usize;
    for entry in state.table.delete(stream)? {
        let entry = entry?;
        weight = weight.saturating_add(entry.name.len()).saturating_add(LISTED);
        if weight > max {
            break;
        }
        entries.push(entry);
    }
    let listing = state.table.push(Listing { entries: entries.into_iter(), weight })?;
    weigh(state)?;
    Ok(listing)
}
