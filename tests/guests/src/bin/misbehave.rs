//! Fails or exceeds a limit, as its first argument says.

use std::hint::black_box;
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
        other => panic!("unknown argument: {other:?}"),
    }
}

#[expect(unconditional_recursion, reason = "it must exhaust the stack")]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth.wrapping_add(1)))).wrapping_add(1)
}
