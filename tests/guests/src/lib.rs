//! Functions shared by the plugins that execute operations given as text.

use std::time::Duration as StdDuration;

use larder::{Cache, Duration, Error};

/// Executes `get K`, `get-many K …`, `set K V`, `slow K V MS`, `clear K`, `clear-pattern P` or `clear-all`, and returns the
/// result as text. `slow` is a get-or-set that computes `V` for `MS` milliseconds.
pub fn execute(cache: &Cache, words: &[&str]) -> Result<String, Error> {
    Ok(match words {
        ["get", key] => format_value(cache.get_bytes(key)?),
        ["get-many", keys @ ..] => {
            cache.get_many_bytes(keys)?.into_iter().map(format_value).collect::<Vec<_>>().join(" ")
        }
        ["set", key, value] => cache.set_bytes(key, value.as_bytes()).map(|()| "ok".to_owned())?,
        ["slow", key, value, ms] => {
            let pause = StdDuration::from_millis(ms.parse().expect("a number of milliseconds"));
            let mut is_computed = false;
            let value = cache.get_or_set(key, Duration::Default, || {
                std::thread::sleep(pause);
                is_computed = true;
                (*value).to_owned()
            })?;
            format!("{} {value}", if is_computed { "computed" } else { "received" })
        }
        ["clear", key] => cache.clear(key)?.to_string(),
        ["clear-pattern", pattern] => cache.clear_pattern(pattern)?.to_string(),
        ["clear-all"] => cache.clear_all()?.to_string(),
        other => panic!("no such operation: {other:?}"),
    })
}

/// Formats the result of a read: `hit VALUE` or `miss`.
pub fn format_value(value: Option<Vec<u8>>) -> String {
    value.map_or("miss".to_owned(), |value| format!("hit {}", String::from_utf8_lossy(&value)))
}

/// Formats an error: `error VARIANT`, with what the variant holds.
pub fn format_error(error: &Error) -> String {
    let variant = match error {
        Error::NoSuchCache => "NoSuchCache".to_owned(),
        Error::AccessDenied => "AccessDenied".to_owned(),
        Error::InvalidArgument(rule) => format!("InvalidArgument({rule:?})"),
        Error::ValueTooLarge(max) => format!("ValueTooLarge({max})"),
        Error::Timeout => "Timeout".to_owned(),
        Error::Unavailable => "Unavailable".to_owned(),
        Error::Other(message) => format!("Other({message:?})"),
        Error::Codec(message) => format!("Codec({message:?})"),
        other => format!("unknown: {other}"),
    };
    format!("error {variant}")
}

/// Traps, so that no destructor runs.
pub fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}
