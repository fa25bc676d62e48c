//! The smallest plugin, which the README shows.

use std::time::Duration;

use larder::Cache;

fn main() -> Result<(), larder::Error> {
    let cache = Cache::default()?;
    let greeting: String = cache.get_or_set("greeting", Duration::from_secs(60), || "hello".to_owned())?;
    println!("{greeting}");
    Ok(())
}
