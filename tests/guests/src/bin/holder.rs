//! Takes the vacancy of the key `slow`, sets the key `held`, and waits until the key `go` is set. Then it ends as its
//! argument says: `panic`, `exit`, `drop`, `fill` or `spin`.

use larder::{Cache, Duration, Entry};

fn main() {
    let cache = Cache::default().expect("a default cache");
    let Ok(Entry::Vacant(vacancy)) = cache.entry("slow") else { panic!("`slow` already has a value") };
    cache.set_bytes("held", b"").expect("can store");
    while cache.get_bytes("go").expect("can read").is_none() {}
    match std::env::args().nth(1).as_deref() {
        Some("panic") => panic!("on request"),
        Some("exit") => std::process::exit(3),
        Some("drop") => drop(vacancy),
        Some("fill") => assert_eq!(vacancy.fill(b"held's", Duration::Default), Ok(true)),
        Some("spin") => loop {
            std::hint::spin_loop();
        },
        other => panic!("unknown argument: {other:?}"),
    }
}
