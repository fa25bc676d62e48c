//! The calls that docs/caching.md and docs/migrating.md show, as one plugin.

use std::time::Duration;

use larder::{Cache, Entry, Error};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = open().ok_or("no cache")?;
    cache.clear_all()?;
    durations(&cache)?;
    println!("{}", report(&cache)?);
    println!("{}", rates(&cache)?);
    println!("{}", fresh_report(&cache)?);
    println!("{}", wstd::runtime::block_on(page(&cache))?);
    println!("{:?} {:?}", last_posts(&cache, 1)?, last_posts(&cache, 2)?);
    batch(&cache)?;
    thumbnail(&cache)?;
    forget(&cache)?;
    Ok(())
}

fn open() -> Option<Cache> {
    match Cache::open("valkey") {
        Ok(cache) => Some(cache),
        Err(Error::NoSuchCache) => Cache::default().ok(),
        Err(error) => {
            eprintln!("continuing without a cache: {error}");
            None
        }
    }
}

fn durations(cache: &Cache) -> Result<(), Error> {
    cache.set("greeting", "hello")?;
    cache.set_with_duration("greeting", "hello", Duration::from_millis(1500))?;
    cache.set_with_duration("greeting", "hello", larder::Duration::Milliseconds(1500))?;
    cache.set_with_duration("greeting", "hello", larder::Duration::Default)?;
    cache.set_with_duration("greeting", "hello", larder::Duration::Unlimited)?;

    let greeting: Option<String> = cache.get("greeting")?;
    println!("{}", greeting.unwrap_or_default());
    Ok(())
}

fn report(cache: &Cache) -> Result<String, Error> {
    cache.get_or_set("report", Duration::from_secs(60), expensive_report)
}

fn expensive_report() -> String {
    "expensive".to_owned()
}

/// The report of the last minute. If it is older, that of the last hour while one caller computes the next one.
fn fresh_report(cache: &Cache) -> Result<String, Error> {
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    cache.get_or_refresh("fresh_report", minute, hour, expensive_report)
}

fn rates(cache: &Cache) -> Result<String, Box<dyn std::error::Error>> {
    cache.try_get_or_set("rates", Duration::from_secs(300), || {
        let text = std::fs::read_to_string("/data/rates.json")?;
        Ok(text)
    })
}

async fn page(cache: &Cache) -> Result<String, Error> {
    cache.get_or_set_async("page", Duration::from_secs(30), async || fetch().await).await
}

async fn fetch() -> String {
    "a page".to_owned()
}

/// A value that depends on an argument has the argument in its key.
fn last_posts(cache: &Cache, page: u32) -> Result<Vec<String>, Error> {
    cache.get_or_set(format!("last_posts:{page}"), Duration::from_secs(30), || select_posts(page))
}

fn select_posts(page: u32) -> Vec<String> {
    vec![format!("a post of page {page}")]
}

fn batch(cache: &Cache) -> Result<(), Error> {
    cache.set_many(&[("stock:1", 12), ("stock:2", 0)], Duration::from_secs(60))?;
    let stock: Vec<Option<u32>> = cache.get_many(&["stock:1", "stock:2", "stock:3"])?;
    println!("{stock:?}");
    Ok(())
}

fn thumbnail(cache: &Cache) -> Result<Vec<u8>, Error> {
    match cache.entry("thumbnail:7")? {
        Entry::Occupied(image) => Ok(image),
        Entry::Vacant(vacancy) => {
            let image = vec![0x89, b'P', b'N', b'G'];
            let stored = vacancy.fill(&image, Duration::from_secs(3600))?;
            println!("stored: {stored}");
            Ok(image)
        }
    }
}

fn forget(cache: &Cache) -> Result<(), Error> {
    let was_there = cache.clear("greeting")?;
    let stock = cache.clear_pattern("stock:*")?;
    let rest = cache.clear_all()?;
    println!("{was_there} {stock} {rest}");
    Ok(())
}
