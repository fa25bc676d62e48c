//! The calls that docs/migrating.md compares with those of a web framework's cache.

use std::time::Duration;

use larder::Cache;

fn main() -> Result<(), larder::Error> {
    let cache = Cache::default()?;
    let valkey = Cache::open("valkey")?;

    let name = "John".to_owned();
    cache.set("user:123", &name)?;
    cache.set_with_duration("user:123", &name, Duration::from_secs(60))?;
    cache.set_with_duration("user:123", &name, larder::Duration::Unlimited)?;
    let found: Option<String> = cache.get("user:123")?;
    println!("{found:?}");

    let posts: Vec<String> = cache.get_or_set("last_posts", Duration::from_secs(30), || select_posts(1))?;
    println!("{posts:?}");
    let posts: Vec<String> = wstd::runtime::block_on(fetched(&valkey))?;
    println!("{posts:?}");

    println!("{:?} {:?}", last_posts(2), user(123));

    println!("{}", cache.clear("user:123")?);
    println!("{}", cache.clear_pattern("last_*")?);
    println!("{}", valkey.clear_all()?);
    Ok(())
}

#[larder::cached(duration = "30s")]
fn last_posts(page: u32) -> Vec<String> {
    select_posts(page)
}

#[larder::cached(duration = "60s", stale = "1h", key = "user:{id}", cache = "valkey")]
fn user(id: u32) -> Result<String, String> {
    select_user(id).ok_or_else(|| format!("there is no user {id}"))
}

async fn fetched(valkey: &Cache) -> Result<Vec<String>, larder::Error> {
    valkey.get_or_set_async("last_posts", Duration::from_secs(30), async || fetch_posts().await).await
}

fn select_posts(page: u32) -> Vec<String> {
    vec![format!("a post of page {page}")]
}

fn select_user(id: u32) -> Option<String> {
    (id == 123).then(|| "John".to_owned())
}

async fn fetch_posts() -> Vec<String> {
    vec!["a post".to_owned()]
}
