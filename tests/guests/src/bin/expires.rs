//! Stores a value for two seconds and looks at it until it is gone.

use std::time::{Duration, Instant};

use larder::{Cache, Error};

fn main() -> Result<(), Error> {
    let cache = Cache::default()?;
    cache.set_with_duration("temp", "value", Duration::from_secs(2))?;
    cache.set("stays", "value")?;
    assert_eq!(cache.get::<String>("temp")?.as_deref(), Some("value"));
    let started = Instant::now();
    while cache.get::<String>("temp")?.is_some() {
        assert!(started.elapsed() < Duration::from_secs(20), "the value outlives its two seconds");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(started.elapsed() > Duration::from_secs(1), "the value is gone after {:?}", started.elapsed());
    assert!(!cache.clear("temp")?, "what has expired is not there to be cleared");
    assert_eq!(cache.get::<String>("stays")?.as_deref(), Some("value"));
    println!("expired");
    Ok(())
}
