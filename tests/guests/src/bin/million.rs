//! Stores a million values of 1 KiB, prints `done`, and waits for a line on standard input before it ends.

use larder::{Cache, Error};

fn main() -> Result<(), Error> {
    let cache = Cache::default()?;
    let mut value = [0; 1024];
    for n in 0_u32..1_000_000 {
        value[..4].copy_from_slice(&n.to_le_bytes());
        cache.set_bytes(format!("key:{n}"), &value)?;
    }
    let last = cache.get_bytes("key:999999")?;
    assert!(last.is_some_and(|found| found == value), "the newest value is missing");
    println!("done");
    let mut line = String::new();
    let _ended = std::io::stdin().read_line(&mut line);
    Ok(())
}
