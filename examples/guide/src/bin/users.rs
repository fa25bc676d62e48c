//! The first plugin that docs/caching.md shows.

use std::time::Duration;

use larder::Cache;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct User {
    name: String,
}

fn main() -> Result<(), larder::Error> {
    let cache = Cache::open("valkey")?;
    let john = User { name: "John".to_owned() };
    cache.set_with_duration("user:123", &john, Duration::from_secs(60))?;

    let found: Option<User> = cache.get("user:123")?;
    println!("{found:?}");
    Ok(())
}
