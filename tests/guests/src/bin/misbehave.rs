//! Fails or exceeds a limit, as its first argument says.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::time::Duration;

use larder::{Cache, Entry, Error};
use larder_test_guests::trap;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["allocate"] => {
            let mut held = Vec::new();
            loop {
                held.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
        ["spin"] => loop {
            black_box(());
        },
        ["read"] => {
            let mut line = String::new();
            let _ended = std::io::stdin().read_line(&mut line);
            panic!("standard input came to an end");
        }
        ["sleep"] => {
            std::thread::sleep(Duration::from_secs(3600));
            panic!("an hour has passed");
        }
        ["panic"] => panic!("on request"),
        ["recurse"] => {
            println!("{}", recurse(1));
            Ok(())
        }
        ["fail"] => Err(Error::NoSuchCache),
        ["exit", status] => std::process::exit(status.parse().unwrap_or(99)),
        ["trap-with-vacancy", key] => match Cache::default()?.entry(key)? {
            Entry::Vacant(_held) => trap(),
            Entry::Occupied(_) => panic!("the key already has a value"),
        },
        ["trap"] => trap(),
        // Takes the vacancy of a key, allocates 32 MiB, prints this many bytes, and ends before they are written.
        ["leave", key, bytes] => {
            let Entry::Vacant(vacancy) = Cache::default()?.entry(key)? else { panic!("the key already has a value") };
            let memory = black_box(vec![1_u8; 32 << 20]);
            let stdout = wasip2::cli::stdout::get_stdout();
            let mut left: usize = bytes.parse().expect("a number");
            while left > 0 {
                stdout.subscribe().block();
                let permit = stdout.check_write().expect("stdout is open");
                let part = left.min(usize::try_from(permit).unwrap_or(usize::MAX));
                stdout.write(&vec![b'x'; part]).expect("within what is permitted");
                left = left.saturating_sub(part);
            }
            Cache::default()?.set_bytes("left", b"")?;
            std::mem::forget((vacancy, memory));
            Ok(())
        }
        // Writes to a file until that fails.
        ["fill", path] => {
            let mut file = File::create(path).expect("a new file");
            let (written, error) = until_error(|| file.write_all(&[b'x'; 4096]));
            println!("{} bytes: {error}", written.saturating_mul(4096));
            Ok(())
        }
        // Writes 100 bytes to each of two files in turns, this many times or until that fails.
        ["alternate", directory, times] => {
            let mut files = ["a", "b"].map(|name| File::create(format!("{directory}/{name}")).expect("a new file"));
            let times: usize = times.parse().expect("a number");
            let is_written = |_: &usize| files.iter_mut().all(|file| file.write_all(&[b'x'; 100]).is_ok());
            println!("{} times", (0..times).take_while(is_written).count());
            Ok(())
        }
        // Creates empty files until that fails.
        ["litter", directory] => {
            let mut n = 0_u64;
            let (created, error) = until_error(|| {
                n = n.saturating_add(1);
                File::create(format!("{directory}/{n}"))
            });
            println!("{created} files: {error}");
            Ok(())
        }
        // Creates directories until that fails.
        ["nest", directory] => {
            let mut n = 0_u64;
            let (created, error) = until_error(|| {
                n = n.saturating_add(1);
                std::fs::create_dir(format!("{directory}/{n}"))
            });
            println!("{created} directories: {error}");
            Ok(())
        }
        // Creates a file of this size without writing to it.
        ["extend", path, size] => {
            let file = File::create(path).expect("a new file");
            match file.set_len(size.parse().expect("a size")) {
                Ok(()) => println!("extended"),
                Err(error) => println!("{error}"),
            }
            Ok(())
        }
        // Opens a file until that fails.
        ["open", path] => {
            let mut open = Vec::new();
            let (opened, error) = until_error(|| File::open(path).map(|file| open.push(file)));
            println!("{opened} opened: {error}");
            Ok(())
        }
        // Lists a directory many times at once.
        ["list", directory, times] => {
            let times = times.parse().expect("a number");
            let listings: Vec<_> = (0..times).map(|_| std::fs::read_dir(directory).expect("a directory")).collect();
            println!("{}", listings.into_iter().map(Iterator::count).sum::<usize>());
            Ok(())
        }
        other => panic!("unknown argument: {other:?}"),
    }
}

/// Repeats a call until it fails. Returns how often it succeeded, and the error.
fn until_error<T>(mut call: impl FnMut() -> io::Result<T>) -> (u64, io::Error) {
    let mut succeeded = 0_u64;
    loop {
        match call() {
            Ok(_) => succeeded = succeeded.saturating_add(1),
            Err(error) => return (succeeded, error),
        }
    }
}

#[expect(unconditional_recursion, reason = "it must exhaust the stack")]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth.wrapping_add(1)))).wrapping_add(1)
}
