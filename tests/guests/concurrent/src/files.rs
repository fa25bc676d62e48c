//! What the command does with files of WASI 0.3, below the first directory of the run.

use futures_util::FutureExt as _;
use futures_util::future::{join, join_all};
use wasip3::clocks::monotonic_clock::now;
use wasip3::filesystem::preopens;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};
use wasip3::{wit_bindgen::StreamReader, wit_stream};

type Fallible<T> = Result<T, ErrorCode>;

const CHUNK: usize = 4096;

/// Does what the words say, and returns what to print.
pub(crate) async fn run(words: &[&str]) -> String {
    let (root, _name) = preopens::get_directories().into_iter().next().expect("a directory");
    match words {
        ["roots"] => preopens::get_directories().into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(" "),
        ["list"] => said(list(&root).await),
        // Opens listings and reads none of them.
        ["leave", times] => {
            let listings: Vec<_> = (0..times.parse().expect("a number")).map(|_| root.read_directory()).collect();
            format!("{} left", listings.len())
        }
        ["write", name, text] => said(write(&root, name, text).await),
        ["append", name, text] => said(append(&root, name, text).await),
        ["read", name] => said(read(&root, name).await),
        ["copy", from, to] => said(copy(&root, from, to).await),
        ["read-directory", name] => said(read_as_file(&root, name).await),
        ["slip"] => until_error(async |n| slip(&root, n).await).await,
        ["link", name] => {
            until_error(async |n| root.link_at(PathFlags::empty(), (*name).to_owned(), &root, n.to_string()).await)
                .await
        }
        ["cancel", name, times] => {
            let times = times.parse().expect("a number");
            for _ in 0..times {
                // The call begins and is then cancelled, unless it has already ended.
                let _ended = root.stat_at(PathFlags::empty(), (*name).to_owned()).now_or_never();
            }
            said(root.stat_at(PathFlags::empty(), (*name).to_owned()).await.map(|_| format!("{times} cancelled")))
        }
        ["far", name] => far(&root, name).await,
        ["fill", name] => fill(&root, name).await,
        ["alternate", times] => alternate(&root, times.parse().expect("a number")).await,
        ["litter"] => until_error(async |n| create(&root, &n.to_string()).await.map(drop)).await,
        ["nest"] => until_error(async |n| root.create_directory_at(n.to_string()).await).await,
        ["tie"] => until_error(async |n| root.symlink_at("target".to_owned(), n.to_string()).await).await,
        ["extend", name, size] => said(extend(&root, name, size.parse().expect("a size")).await),
        ["open", name] => {
            let mut open = Vec::new();
            until_error(async |_| open_for(&root, name, DescriptorFlags::READ).await.map(|file| open.push(file))).await
        }
        ["listings"] => {
            let mut open = Vec::new();
            until_error(async |_| {
                open.push(root.read_directory());
                Ok(())
            })
            .await
        }
        ["writers", name] => {
            let file = create(&root, name).await.expect("a file");
            let mut open = Vec::new();
            until_error(async |_| {
                let (writer, reader) = wit_stream::new();
                open.push((writer, file.write_via_stream(reader, 0)));
                Ok(())
            })
            .await
        }
        ["streams", name] => {
            let file = open_for(&root, name, DescriptorFlags::READ).await.expect("a file");
            let mut open = Vec::new();
            until_error(async |_| {
                open.push(file.read_via_stream(0));
                Ok(())
            })
            .await
        }
        ["reread", name, times] => said(reread(&root, name, times.parse().expect("a number")).await),
        ["ask", name, times] => {
            let times = times.parse().expect("a number");
            let asked = (0..times).map(|_| root.stat_at(PathFlags::empty(), (*name).to_owned()));
            format!("{} of {times}", join_all(asked).await.into_iter().filter(Result::is_ok).count())
        }
        ["ask-long", size, times] => {
            let (size, times) = (size.parse().expect("a size"), times.parse().expect("a number"));
            let asked = (0..times).map(|_| root.stat_at(PathFlags::empty(), "x".repeat(size)));
            let is_too_long = |found: &Fallible<_>| matches!(found, Err(ErrorCode::NameTooLong));
            format!("{} of {times}", join_all(asked).await.iter().filter(|found| is_too_long(found)).count())
        }
        other => format!("unknown: {other:?}"),
    }
}

fn said(outcome: Fallible<String>) -> String {
    outcome.unwrap_or_else(|error| format!("{error:?}"))
}

async fn open_for(root: &Descriptor, name: &str, flags: DescriptorFlags) -> Fallible<Descriptor> {
    root.open_at(PathFlags::SYMLINK_FOLLOW, name.to_owned(), OpenFlags::empty(), flags).await
}

async fn create(root: &Descriptor, name: &str) -> Fallible<Descriptor> {
    root.open_at(PathFlags::empty(), name.to_owned(), OpenFlags::CREATE, DescriptorFlags::WRITE).await
}

/// A stream of a text.
async fn send(text: &str, to: impl AsyncFnOnce(StreamReader<u8>) -> Fallible<()>) -> Fallible<String> {
    let (mut writer, reader) = wit_stream::new();
    let written = async {
        let left = writer.write_all(text.as_bytes().to_vec()).await;
        drop(writer);
        left.len()
    };
    let (left, outcome) = join(written, to(reader)).await;
    outcome?;
    Ok(format!("{} written", text.len().saturating_sub(left)))
}

async fn write(root: &Descriptor, name: &str, text: &str) -> Fallible<String> {
    let file = create(root, name).await?;
    send(text, async |data| file.write_via_stream(data, 0).await).await
}

async fn append(root: &Descriptor, name: &str, text: &str) -> Fallible<String> {
    let file = open_for(root, name, DescriptorFlags::WRITE).await?;
    send(text, async |data| file.append_via_stream(data).await).await
}

async fn read(root: &Descriptor, name: &str) -> Fallible<String> {
    read_file(&open_for(root, name, DescriptorFlags::READ).await?).await
}

async fn read_file(file: &Descriptor) -> Fallible<String> {
    let (stream, ended) = file.read_via_stream(0);
    let bytes = stream.collect().await;
    ended.await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn read_as_file(root: &Descriptor, name: &str) -> Fallible<String> {
    let flags = OpenFlags::DIRECTORY;
    let directory = root.open_at(PathFlags::empty(), name.to_owned(), flags, DescriptorFlags::READ).await?;
    read_file(&directory).await
}

/// The bytes do not enter the plugin.
async fn copy(root: &Descriptor, from: &str, to: &str) -> Fallible<String> {
    let (from, to) = (open_for(root, from, DescriptorFlags::READ).await?, create(root, to).await?);
    let (stream, ended) = from.read_via_stream(0);
    to.write_via_stream(stream, 0).await?;
    ended.await?;
    Ok("copied".to_owned())
}

async fn list(root: &Descriptor) -> Fallible<String> {
    let (stream, ended) = root.read_directory();
    let mut names: Vec<_> = stream.collect().await.into_iter().map(|entry| entry.name).collect();
    ended.await?;
    names.sort();
    Ok(names.join(" "))
}

/// Reads and writes at an offset that no file has.
async fn far(root: &Descriptor, name: &str) -> String {
    let (file, to) =
        (open_for(root, name, DescriptorFlags::READ).await, open_for(root, name, DescriptorFlags::WRITE).await);
    let (file, to) = (file.expect("a file"), to.expect("a file"));
    let (stream, ended) = file.read_via_stream(u64::MAX);
    let read = (stream.collect().await.len(), ended.await);
    let written = send("text", async |data| to.write_via_stream(data, u64::MAX).await).await;
    format!("{read:?} {written:?}")
}

/// Writes to a file until that fails.
async fn fill(root: &Descriptor, name: &str) -> String {
    let file = create(root, name).await.expect("a new file");
    let (mut writer, reader) = wit_stream::new();
    let writing = async {
        while writer.write_all(vec![b'x'; CHUNK]).await.is_empty() {}
        drop(writer);
    };
    let ((), outcome) = join(writing, async { file.write_via_stream(reader, 0).await }).await;
    let size = file.stat().await.expect("a size").size;
    format!("{size} bytes: {outcome:?}")
}

/// Writes 100 bytes to each of two files in turns.
async fn alternate(root: &Descriptor, times: usize) -> String {
    let (a, b) = (create(root, "a").await.expect("a new file"), create(root, "b").await.expect("a new file"));
    let ((writer_a, reader_a), (writer_b, reader_b)) = (wit_stream::new(), wit_stream::new());
    let mut writers = [writer_a, writer_b];
    let writing = async move {
        for n in 0..times {
            for writer in &mut writers {
                if !writer.write_all(vec![b'x'; 100]).await.is_empty() {
                    return format!("{n} times");
                }
            }
        }
        format!("{times} times")
    };
    let outcomes =
        join(async { a.write_via_stream(reader_a, 0).await }, async { b.write_via_stream(reader_b, 0).await });
    join(writing, outcomes).await.0
}

async fn extend(root: &Descriptor, name: &str, size: u64) -> Fallible<String> {
    create(root, name).await?.set_size(size).await?;
    Ok("extended".to_owned())
}

/// Reads the first byte of a file many times, one after the other, and leaves each stream before its end.
async fn reread(root: &Descriptor, name: &str, times: usize) -> Fallible<String> {
    let file = open_for(root, name, DescriptorFlags::READ).await?;
    for _ in 0..times {
        let (mut stream, ended) = file.read_via_stream(0);
        let (_status, first) = stream.read(Vec::with_capacity(1)).await;
        assert_eq!(first.len(), 1);
        drop(stream);
        ended.await?;
    }
    Ok(format!("{times} times"))
}

/// Opens a file that is there, or creates it, and renames the one that is there before the call goes on.
async fn slip(root: &Descriptor, n: u64) -> Fallible<()> {
    let renamed = async {
        spin();
        let renamed = root.rename_at("slip".to_owned(), root, n.to_string()).await;
        spin();
        renamed
    };
    let (created, _renamed) = join(create(root, "slip"), renamed).await;
    created.map(drop)
}

/// Long enough for a call about a file, without giving the host a turn.
fn spin() {
    let begun = now();
    while now().saturating_sub(begun) < 1_000_000 {}
}

/// Repeats a call until it fails. Returns how often it succeeded, and the error.
async fn until_error(mut call: impl AsyncFnMut(u64) -> Fallible<()>) -> String {
    let mut succeeded = 0_u64;
    loop {
        match call(succeeded).await {
            Ok(()) => succeeded = succeeded.saturating_add(1),
            Err(error) => return format!("{succeeded}: {error:?}"),
        }
    }
}
