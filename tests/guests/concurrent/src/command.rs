//! The command: what it does is its first argument.

use std::time::Duration;

use wasip3::cli::{environment, exit, stdout};
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::http::types::Fields;
use wasip3::random::random::get_random_bytes;
use wasip3::sockets::types::{IpAddressFamily, TcpSocket, UdpSocket};
use wasip3::{spawn_local, wit_bindgen, wit_stream};

use crate::files;

struct Command;

wasip3::cli::command::export!(Command);

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let argument = |index: usize| arguments.get(index).map_or("", String::as_str);
        let number = argument(2).parse::<u64>().unwrap_or(0);
        match argument(1) {
            "hello" => print("hello of 0.3\n").await,
            "exit" => exit::exit_with_code(u8::try_from(number).unwrap_or(1)),
            "fail" => return Err(()),
            "trap" => panic!("on purpose"),
            "spin" => loop {
                std::hint::spin_loop();
            },
            "yield" => loop {
                wit_bindgen::yield_async().await;
            },
            "sleep" => wait_for(number.saturating_mul(1_000_000)).await,
            // Nothing ever writes to it.
            "deadlock" => {
                let (_writer, mut reader) = wit_stream::new::<u8>();
                let _ended = reader.read(Vec::with_capacity(1)).await;
            }
            "eat" => {
                let mut eaten = Vec::new();
                loop {
                    eaten.push(vec![1_u8; 1 << 20]);
                }
            }
            "write" => loop {
                print(&"0123456789abcdef\n".repeat(1000)).await;
            },
            "background" => spawn_local(async {
                wait_for(50_000_000).await;
                print("after the call\n").await;
            }),
            // Through WASI 0.2, as the standard library does.
            "print" => println!("printed by 0.2"),
            "cache" => {
                let cache = larder::Cache::default().map_err(drop)?;
                let value: String =
                    cache.get_or_set("key", Duration::from_secs(60), || argument(2).to_owned()).map_err(drop)?;
                print(&format!("{value}\n")).await;
            }
            "random" => print(&format!("{}\n", get_random_bytes(number).len())).await,
            "files" => {
                let words: Vec<&str> = arguments.iter().skip(2).map(String::as_str).collect();
                print(&format!("{}\n", files::run(&words).await)).await;
            }
            // Through WASI 0.2.
            "entries" => println!("{}", std::fs::read_dir("/data").map_or(0, Iterator::count)),
            "sockets" => {
                let refused = [
                    TcpSocket::create(IpAddressFamily::Ipv4).is_err(),
                    UdpSocket::create(IpAddressFamily::Ipv4).is_err(),
                ];
                print(&format!("{refused:?}\n")).await;
            }
            "fields" => {
                let mut held = Vec::new();
                loop {
                    held.push(Fields::from_list(&[("x".to_owned(), vec![b'x'; 4000])]));
                }
            }
            "streams" => {
                let mut held = Vec::new();
                loop {
                    held.push(wit_stream::new::<u8>());
                }
            }
            other => {
                print(&format!("unknown: {other}\n")).await;
                return Err(());
            }
        }
        Ok(())
    }
}

/// Writes to the standard output of WASI 0.3.
async fn print(text: &str) {
    let (mut writer, reader) = wit_stream::new();
    let written = stdout::write_via_stream(reader);
    let (_left, _written) = futures_util::future::join(
        async {
            let left = writer.write_all(text.as_bytes().to_vec()).await;
            drop(writer);
            left
        },
        async { written.await },
    )
    .await;
}
