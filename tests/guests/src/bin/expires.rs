//! Stores a value for two seconds, and reads it until it has expired.

use std::time::{Duration, Instant};

use larder::{Cache, Error};

fn main() -> Result<(), Error> {
    let cache = Cache::default()?;
    cache.set_with_duration("temp", "value", Duration::from_secs(2))?;
    cache.set("stays", "value")?;
    assert_eq!(cache.get::<String>("temp")?.as_deref(), Some("value"));
    let started = Instant::now();
    while cache.get::<String>("temp")?.is_some() {
        assert!(started.elapsed() < Duration::from_secs(20), "the value did not expire after its two seconds");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(started.elapsed() > Duration::from_secs(1), "the value expired after {:?}", started.elapsed());
    assert!(!cache.clear("temp")?, "an expired value cannot be cleared");
    assert_eq!(cache.get::<String>("stays")?.as_deref(), Some("value"));
    println!("expired");
    Ok(())
}
