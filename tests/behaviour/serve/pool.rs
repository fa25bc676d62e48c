//! An instance finds nothing of the one before it, whose memory, tables and stack it may get.

use std::fmt::Write;
use std::path::PathBuf;

use larder_host::runtime::{Outcome, Plugin, RunOptions, RuntimeOptions};
use larder_host::{Config, Runtime};
use proptest::prelude::*;
use proptest::test_runner::Config as Cases;
use tempfile::TempDir;

/// The parts of a component that an instance can change.
#[derive(Debug, Clone)]
struct Shape {
    /// Pages of 64 KiB at the start.
    pages: u32,
    /// Pages that the instance adds.
    grown: u32,
    /// Elements of the table at the start, and the number that the instance adds.
    elements: (u32, u32),
    globals: u32,
    /// The offsets of data in the memory.
    data: Vec<u32>,
    /// The instance writes one word in this many bytes.
    stride: u32,
    /// Has so much data that its memory comes from elsewhere, and as much of it in the memory.
    is_large: bool,
    /// Needs an engine of WASI 0.3.
    is_concurrent: bool,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let stride = prop_oneof![Just(8_u32), Just(4096), Just(8192), Just(20_000)];
    let data = proptest::collection::vec(0..60_000_u32, 0..4);
    let kind = (proptest::bool::weighted(0.3), proptest::bool::weighted(0.3));
    (1..24_u32, 0..4_u32, (1..9_500_u32, 0..600_u32), 0..6_u32, data, stride, kind).prop_map(
        |(pages, grown, elements, globals, data, stride, (is_large, is_concurrent))| {
            let pages = if is_large { pages + 16 } else { pages };
            Shape { pages, grown, elements, globals, data, stride, is_large, is_concurrent }
        },
    )
}

impl Shape {
    /// A component with two functions: `digest` is a number that depends on the whole memory, its size, the table and the
    /// globals, and `spoil` changes all of them.
    fn component(&self) -> String {
        let Self { pages, grown, elements: (elements, added), globals, data, stride, is_large, is_concurrent } = self;
        let asynchronous = if *is_concurrent { "(type (stream u8))" } else { "" };
        let (mut parts, mut mix, mut spoil) = (String::new(), String::new(), String::new());
        for offset in data {
            writeln!(parts, "(data (i32.const {offset}) \"the start of a memory\")").unwrap();
        }
        if *is_large {
            writeln!(parts, "(data (i32.const 0) \"{}\")", "mapped ".repeat(150_000)).unwrap();
        }
        for n in 0..*globals {
            writeln!(parts, "(global $g{n} (mut i64) (i64.const {n}))").unwrap();
            writeln!(mix, "(call $mix (global.get $g{n}))").unwrap();
            writeln!(spoil, "(global.set $g{n} (i64.const -1))").unwrap();
        }
        format!(
            r#"(component {asynchronous} (core module $m
  (memory {pages} 64) (table $t {elements} 10000 funcref) (func $secret) (elem declare func $secret)
  {parts}
  (global $sum (mut i64) (i64.const 1469598103934665603))
  (func $mix (param i64)
    (global.set $sum (i64.mul (i64.xor (global.get $sum) (local.get 0)) (i64.const 1099511628211))))
  (func (export "digest") (result i64) (local $at i32) (local $end i32)
    (local.set $end (i32.mul (memory.size) (i32.const 65536)))
    (loop $words
      (call $mix (i64.load (local.get $at)))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $words (i32.lt_u (local.get $at) (local.get $end))))
    (local.set $at (i32.const 0))
    (loop $elements
      (call $mix (i64.extend_i32_u (ref.is_null (table.get $t (local.get $at)))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $elements (i32.lt_u (local.get $at) (table.size $t))))
    (call $mix (i64.extend_i32_u (memory.size)))
    (call $mix (i64.extend_i32_u (table.size $t)))
    {mix}
    (global.get $sum))
  (func (export "spoil") (result i64) (local $at i32) (local $end i32)
    (drop (memory.grow (i32.const {grown})))
    (local.set $end (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 8)))
    (loop $words
      (i64.store (local.get $at) (i64.const 0x7365637265742121))
      (local.set $at (i32.add (local.get $at) (i32.const {stride})))
      (br_if $words (i32.lt_u (local.get $at) (local.get $end))))
    (drop (table.grow $t (ref.func $secret) (i32.const {added})))
    (table.fill $t (i32.const 0) (ref.func $secret) (table.size $t))
    {spoil}
    (i64.const 0)))
  (core instance $i (instantiate $m))
  (func (export "digest") (result u64) (canon lift (core func $i "digest")))
  (func (export "spoil") (result u64) (canon lift (core func $i "spoil"))))"#
        )
    }
}

/// A host with place for one instance, so that the next one gets the memory, the tables and the stack of the last one.
struct Host {
    tokio: tokio::runtime::Runtime,
    runtime: Runtime,
    folder: TempDir,
}

impl Host {
    fn new() -> Self {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut options = RuntimeOptions::default();
        options.instances = Some(1);
        let runtime = tokio.block_on(Runtime::with_options(Config::default(), options)).unwrap();
        Self { tokio, runtime, folder: tempfile::tempdir().unwrap() }
    }

    fn load(&self, name: &str, shape: &Shape) -> Plugin {
        let file: PathBuf = self.folder.path().join(name);
        std::fs::write(&file, wat::parse_str(shape.component()).unwrap()).unwrap();
        self.runtime.load(&file, Some(name)).unwrap()
    }

    fn call(&self, plugin: &Plugin, function: &str) -> String {
        match self.tokio.block_on(self.runtime.invoke(plugin, &RunOptions::default(), function)).unwrap() {
            Outcome::Returned(Ok(value)) => value,
            outcome => panic!("{outcome:?}"),
        }
    }
}

proptest! {
    #![proptest_config(Cases { cases: 24, failure_persistence: None, ..Cases::default() })]

    #[test]
    fn an_instance_starts_as_the_first_one_did_whatever_the_last_one_wrote(first in shapes(), second in shapes()) {
        let host = Host::new();
        let plugins = [host.load("first", &first), host.load("second", &second)];
        let untouched = plugins.each_ref().map(|plugin| host.call(plugin, "digest()"));
        for (spoiler, next) in [(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)] {
            host.call(&plugins[spoiler], "spoil()");
            prop_assert_eq!(&host.call(&plugins[next], "digest()"), &untouched[next], "{} after {}", next, spoiler);
        }
    }
}
