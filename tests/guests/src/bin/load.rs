//! Sets and gets its own key for a number of seconds, and stores a record of each call in the cache `reports`.
//!
//! The arguments are the number of the instance and the seconds. A record has 13 bytes, with little-endian numbers:
//!
//! - the start of the call in milliseconds of Unix time (8 bytes)
//! - its duration in microseconds (4 bytes)
//! - its outcome (1 byte): `k` for success, `e` for an error of an outage, `l` for a lost acknowledged value, `w` for a
//!   wrong value, `x` for any other error

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use larder::{Cache, Error};

/// The most records of a report. More would exceed the size limit of a value.
const MOST_RECORDS: usize = 70_000;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let (name, seconds) = (number(), number());
    let (cache, reports) = (Cache::default()?, Cache::open("reports")?);
    let key = format!("load{name}");
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut records = Vec::new();
    // The last acknowledged write. Later writes may have been applied too.
    let mut acknowledged = 0_u64;
    let mut round = 0_u64;
    while Instant::now() < until && records.len() < MOST_RECORDS * 13 {
        round += 1;
        let value = format!("{name}:{round}");
        record(&mut records, || match cache.set_bytes(&key, value.as_bytes()) {
            Ok(()) => {
                acknowledged = round;
                b'k'
            }
            Err(error) => outage(&error),
        });
        record(&mut records, || match cache.get_bytes(&key) {
            Ok(None) if acknowledged == 0 => b'k',
            Ok(None) => b'l',
            Ok(Some(value)) => match std::str::from_utf8(&value).ok().and_then(|value| value.split_once(':')) {
                Some((of, _)) if of != name.to_string() => b'w',
                Some((_, found)) => match found.parse::<u64>() {
                    Ok(found) if found > round => b'w',
                    Ok(found) if found < acknowledged => b'l',
                    Ok(_) => b'k',
                    Err(_) => b'w',
                },
                None => b'w',
            },
            Err(error) => outage(&error),
        });
        std::thread::sleep(Duration::from_millis(2));
    }
    reports.set_bytes(&key, &records)
}

fn record(records: &mut Vec<u8>, call: impl FnOnce() -> u8) {
    let began = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    let started = Instant::now();
    let outcome = call();
    records.extend_from_slice(&began.to_le_bytes());
    records.extend_from_slice(&(started.elapsed().as_micros() as u32).to_le_bytes());
    records.push(outcome);
}

fn outage(error: &Error) -> u8 {
    match error {
        Error::Timeout | Error::Unavailable => b'e',
        _ => b'x',
    }
}
