//! The asynchronous functions.

use wasip3::clocks::monotonic_clock::wait_for;

wit_bindgen::generate!({
    inline: "
        package test:concurrent;

        interface functions {
            /// Waits for this many milliseconds, and returns the name.
            later: async func(name: string, milliseconds: u64) -> string;
            half: async func(n: u32) -> result<u32, string>;
        }

        world plugin {
            export functions;
        }
    ",
});

struct Functions;

impl exports::test::concurrent::functions::Guest for Functions {
    async fn later(name: String, milliseconds: u64) -> String {
        wait_for(milliseconds.saturating_mul(1_000_000)).await;
        name
    }

    async fn half(n: u32) -> Result<u32, String> {
        if n.is_multiple_of(2) { Ok(n / 2) } else { Err(format!("{n} is odd")) }
    }
}

export!(Functions);
