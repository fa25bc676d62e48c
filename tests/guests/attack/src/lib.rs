//! A hostile plugin that interprets bytes as a sequence of calls of the interface, and of `wasi:keyvalue`, forged handles
//! included.

#![allow(missing_docs, unsafe_code, reason = "the generated exports are undocumented, and the plugin forges handles")]

mod foreign;

wit_bindgen::generate!({
    path: ["../../../wit", "../../../host/runtime/foreign-wit/keyvalue-draft2"],
    inline: "
        package test:hostile;

        world plugin {
            import larder:cache/cache@0.1.1;
            import wasi:keyvalue/store@0.2.0-draft2;
            import wasi:keyvalue/atomics@0.2.0-draft2;
            import wasi:keyvalue/batch@0.2.0-draft2;

            /// Makes the calls, and returns how many succeeded and how many failed.
            export attack: func(calls: list<u8>) -> tuple<u32, u32>;
        }
    ",
    generate_all,
});

use foreign::Foreign;
use larder::cache::cache::{Cache, Duration, Entry, Error, Vacancy, open, open_default};

struct Plugin;

/// The parts of keys and patterns: parts of globs, namespaces, prefixes and leases, and invalid ones.
const TEXTS: [&str; 24] = [
    "a",
    "b",
    "k:1",
    "*",
    "?",
    "[a-b]",
    "[^a]",
    "[",
    "\\",
    "a*b*",
    "**",
    "[é-z]",
    "[a-é]",
    "é",
    "\u{1f9c0}",
    "",
    "\u{1f}",
    "n\u{1f}a",
    "\0",
    "\u{7f}",
    "cache:a",
    "\n",
    "larder-lease:",
    "-]^",
];
const LEASE: &[u8] = b"\0larder-lease:";

/// The remaining input, which determines the calls. After its end all bytes are zero.
struct Bytes(std::vec::IntoIter<u8>);

impl Bytes {
    fn next(&mut self) -> u8 {
        self.0.next().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.next()))
    }

    /// Returns a key or pattern. Most are one of a few texts, so that calls share keys; others are built of parts, or too
    /// long.
    fn text(&mut self) -> String {
        let first = usize::from(self.next());
        match first {
            0..200 => TEXTS[first % TEXTS.len()].to_owned(),
            200..240 => (0..first % 7).map(|_| TEXTS[usize::from(self.next()) % TEXTS.len()]).collect(),
            240..250 => "*a".repeat(first * 2),
            _ => "k".repeat(1020 + first % 8),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.next() {
            n @ 0..200 => vec![n; usize::from(n)],
            200..230 => LEASE.to_vec(),
            230..250 => [LEASE, &[self.next()]].concat(),
            n => vec![n; usize::from(n) << 8],
        }
    }

    fn duration(&mut self) -> Duration {
        match self.next() % 6 {
            0 | 1 => Duration::Default,
            2 => Duration::Unlimited,
            3 => Duration::Milliseconds(u64::from(self.next())),
            4 => Duration::Milliseconds(u64::MAX),
            _ => Duration::Milliseconds(self.number()),
        }
    }

    /// Returns a batch, which rarely exceeds the limit.
    fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = match self.next() {
            255 => 1025,
            n => usize::from(n % 9),
        };
        (0..count).map(|_| one(self)).collect()
    }
}

struct Attack {
    bytes: Bytes,
    caches: Vec<Cache>,
    vacancies: Vec<Vacancy>,
    foreign: Foreign,
    results: u32,
    errors: u32,
}

impl Attack {
    fn count<T>(&mut self, outcome: Result<T, Error>) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.results += 1;
                Some(value)
            }
            Err(error) => {
                // The texts of errors are short, and never those of a driver.
                if let Error::InvalidArgument(text) | Error::Other(text) = error {
                    assert!(text.len() < 200, "{text}");
                }
                self.errors += 1;
                None
            }
        }
    }

    fn step(&mut self, call: u8) {
        if (8..16).contains(&call) {
            self.foreign.step(&mut self.bytes);
            return;
        }
        if call < 8 || self.caches.is_empty() {
            let outcome = if call.is_multiple_of(3) { open(&self.bytes.text()) } else { open_default() };
            if let Some(cache) = self.count(outcome) {
                self.caches.push(cache);
            } else if let Ok(cache) = open_default() {
                self.caches.push(cache);
            }
            return;
        }
        let chosen = usize::from(self.bytes.next()) % self.caches.len();
        let cache = &self.caches[chosen];
        let bytes = &mut self.bytes;
        match call {
            16..40 => {
                let outcome = cache.get(&bytes.text());
                self.count(outcome);
            }
            40..60 => {
                let outcome = cache.get_many(&bytes.many(Bytes::text));
                self.count(outcome);
            }
            60..90 => {
                let outcome = cache.set(&bytes.text(), &bytes.value());
                self.count(outcome);
            }
            90..110 => {
                let outcome = cache.set_with_duration(&bytes.text(), &bytes.value(), bytes.duration());
                self.count(outcome);
            }
            110..125 => {
                let entries = bytes.many(|bytes| (bytes.text(), bytes.value()));
                let outcome = cache.set_many(&entries, bytes.duration());
                self.count(outcome);
            }
            125..170 => {
                let outcome = cache.get_or_set(&bytes.text());
                if let Some(Entry::Vacant(vacancy)) = self.count(outcome) {
                    self.vacancies.push(vacancy);
                }
            }
            170..200 => {
                if let Some(vacancy) = self.vacancies.pop() {
                    let outcome = Vacancy::fill(vacancy, &bytes.value(), bytes.duration());
                    self.count(outcome);
                }
            }
            200..210 => drop(self.vacancies.pop()),
            210..220 => drop(self.caches.swap_remove(chosen)),
            220..232 => {
                let outcome = cache.clear(&bytes.text());
                self.count(outcome);
            }
            232..246 => {
                let outcome = cache.clear_pattern(&bytes.text());
                self.count(outcome);
            }
            246..250 => {
                let outcome = cache.clear_all();
                self.count(outcome);
            }
            // Forged handles. Using one traps, which ends the plugin and releases all that it holds.
            250 | 251 => {
                let forged = unsafe { Cache::from_handle(bytes.next().into()) };
                let outcome = forged.get(&bytes.text());
                self.count(outcome);
                std::mem::forget(forged);
            }
            252 => drop(unsafe { Cache::from_handle(bytes.number() as u32) }),
            253 => {
                let forged = unsafe { Vacancy::from_handle(bytes.next().into()) };
                let outcome = Vacancy::fill(forged, &bytes.value(), bytes.duration());
                self.count(outcome);
            }
            254 => drop(unsafe { Vacancy::from_handle(bytes.next().into()) }),
            // Opens more handles than the host allows.
            255 => {
                for _ in 0..1100 {
                    match open_default() {
                        Ok(cache) => self.caches.push(cache),
                        Err(error) => {
                            self.count::<()>(Err(error));
                            return;
                        }
                    }
                }
            }
            0..16 => {}
        }
    }
}

impl Guest for Plugin {
    fn attack(calls: Vec<u8>) -> (u32, u32) {
        let bytes = Bytes(calls.into_iter());
        let (caches, vacancies, foreign) = (Vec::new(), Vec::new(), Foreign::default());
        let mut attack = Attack { bytes, caches, vacancies, foreign, results: 0, errors: 0 };
        while let Some(call) = attack.bytes.0.next() {
            attack.step(call);
        }
        (attack.results + attack.foreign.results, attack.errors + attack.foreign.errors)
    }
}

export!(Plugin);
