//! Requests the URLs in its arguments, and prints each response.

use wstd::http::{Body, Client, Error, Request};

fn main() -> Result<(), Error> {
    wstd::runtime::block_on(fetch())
}

async fn fetch() -> Result<(), Error> {
    for url in std::env::args().skip(1) {
        match Client::new().send(Request::get(url).body(Body::empty())?).await {
            Ok(mut answer) => {
                let status = answer.status();
                println!("{} {}", status.as_u16(), answer.body_mut().str_contents().await?);
            }
            Err(error) => println!("{error:?}"),
        }
    }
    Ok(())
}
