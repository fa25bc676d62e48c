//! The machine sleeps, and Linux's monotonic clock stands still meanwhile. Durations go on.

#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;

use larder_tests::{Client, Larder, ServeProcess, TEST_TIMEOUT, guest};

/// How often the test looks whether an entry has expired.
const VISITS: u32 = 300;

/// Replaces the function of the C library that reads a clock. From the moment when the file in `SLEEP` exists, the clocks
/// that stand still while a machine sleeps stand still; the others go on.
const CLOCKS: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    static struct timespec slept[16];
    long result = syscall(SYS_clock_gettime, clock, time);
    int stops = clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_MONOTONIC_RAW;
    if (stops && access(getenv("SLEEP"), F_OK) == 0) {
        if (slept[clock].tv_sec == 0) slept[clock] = *time;
        *time = slept[clock];
    }
    return (int)result;
}
"#;

fn build_clocks(folder: &Path) -> std::path::PathBuf {
    let (source, library) = (folder.join("clocks.c"), folder.join("clocks.so"));
    std::fs::write(&source, CLOCKS).unwrap();
    // The linker that Rust needs is a C compiler.
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

#[tokio::test]
async fn an_entry_in_ram_expires_while_the_machine_sleeps() {
    let config = "[caches.c]\ntype = \"ram\"\ndefault_expire = \"1s\"\n[sandbox]\ntimeout = \"1h\"\n";
    let larder = Larder::serve().config(config).arg(guest("http"));
    let (clocks, sleep) = (build_clocks(larder.folder()), larder.folder().join("sleep"));
    let host = ServeProcess::start_with(larder.env("LD_PRELOAD", clocks).env("SLEEP", &sleep));
    let client = Client::connect(host.address()).await;
    // Each visit stores the entry anew, so each key is visited once before the sleep and once during it.
    let visit = async |n: u32| client.get(&format!("/visit/key{n}")).await.unwrap().body;
    for n in 0..VISITS {
        assert_eq!(visit(n).await, "1");
    }
    std::fs::write(&sleep, "").unwrap();
    for n in 0..VISITS {
        if visit(n).await == "1" {
            return;
        }
        tokio::time::sleep(TEST_TIMEOUT / VISITS).await;
    }
    panic!("entries of 1 s are still there after {TEST_TIMEOUT:?} of sleep");
}
