//! A plugin that computes a missing value with an async closure, on the executor of wstd.

#![allow(missing_docs, reason = "the macro of the executor generates an undocumented function")]

use std::time::Duration;

use larder::Cache;

#[wstd::main]
async fn main() -> Result<(), larder::Error> {
    let cache = Cache::default()?;
    for round in 1..=2 {
        let weather: String = cache
            .get_or_set_async("weather", Duration::from_secs(30), async || {
                println!("asking the weather service ...");
                ask_weather_service().await
            })
            .await?;
        println!("round {round}: {weather}");
    }
    Ok(())
}

/// Simulates a slow request to another service.
async fn ask_weather_service() -> String {
    wstd::task::sleep(wstd::time::Duration::from_millis(100)).await;
    "sunny, 21 °C".to_owned()
}
