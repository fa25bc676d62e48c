//! What the attribute [`cached`](crate::cached) expands to. Not for use by hand, and without a stable form.

use std::future::Future;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::cache::{Vacancy, store};
use crate::refresh::{LookedUp, Refresh, settle};
use crate::{Cache, Duration, Error};

/// The longest key in bytes.
const MAX_KEY: usize = 1024;

/// One call of a cached function.
#[derive(Debug)]
pub struct Call<'a> {
    /// The name of the cache. `None` means the default cache.
    pub cache: Option<&'a str>,
    /// `None` if the arguments have no encoding.
    pub key: Option<String>,
    /// How long a value is fresh.
    pub duration: Duration,
    /// How long it is served after that.
    pub stale: Option<Duration>,
}

/// What the cache has for a call.
struct Found<T> {
    /// A value that may be returned: at once if there is no vacancy, else if the computation fails.
    value: Option<T>,
    vacancy: Option<Vacancy>,
}

impl Call<'_> {
    /// Looks the value up. A failure of the cache is that of no value: the function computes it, and stores nothing.
    fn look_up<T: DeserializeOwned>(&self) -> Found<T> {
        let found = || -> Result<LookedUp<T>, Error> {
            let key = self.key.as_ref().ok_or_else(|| Error::Codec("the arguments have no encoding".to_owned()))?;
            let cache = self.cache.map_or_else(Cache::default, Cache::open)?;
            match self.stale {
                Some(stale) => cache.look_up(key, stale),
                None => cache.lookup(key).map(LookedUp::from),
            }
        };
        let (value, vacancy) = match found() {
            Ok(LookedUp::Found(value)) => (Some(value), None),
            Ok(LookedUp::Stale(value, vacancy)) => (Some(value), Some(vacancy)),
            Ok(LookedUp::Missing(vacancy)) => (None, Some(vacancy)),
            Err(_) => (None, None),
        };
        Found { value, vacancy }
    }

    fn store<T: Serialize>(&self, vacancy: Option<Vacancy>, value: &T) {
        match (vacancy, self.stale) {
            (Some(vacancy), Some(stale)) => Refresh::new(vacancy, self.duration, stale).offer(value),
            (Some(vacancy), None) => store(vacancy, value, self.duration),
            (None, _) => {}
        }
    }
}

/// The return type of a cached function. Its methods are those of [`CachedValue`], except for a `Result`, whose own come
/// first.
#[derive(Debug)]
pub struct Returns<T>(PhantomData<fn() -> T>);

impl<T> Returns<T> {
    /// The type alone.
    #[expect(clippy::new_without_default, reason = "only the attribute constructs it")]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T, E> Returns<Result<T, E>> {
    /// Calls a function that can fail. Only `Ok` is stored.
    ///
    /// # Errors
    ///
    /// The error of the function, if there is no stale value.
    pub fn run(self, call: Call<'_>, on_error: impl FnOnce(E), compute: impl FnOnce() -> Result<T, E>) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
    {
        match call.look_up() {
            Found { value: Some(value), vacancy: None } => Ok(value),
            Found { value, vacancy } => settle(compute(), value, on_error, |value| call.store(vacancy, value)),
        }
    }

    /// [`Returns::run`] for an async function.
    ///
    /// # Errors
    ///
    /// As [`Returns::run`].
    pub async fn run_async(
        self,
        call: Call<'_>,
        on_error: impl FnOnce(E),
        compute: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
    {
        match call.look_up() {
            Found { value: Some(value), vacancy: None } => Ok(value),
            Found { value, vacancy } => settle(compute().await, value, on_error, |value| call.store(vacancy, value)),
        }
    }
}

/// The methods of every other return type.
pub trait CachedValue<T>: Sized {
    /// Calls a function that cannot fail.
    fn run(self, call: Call<'_>, on_error: impl FnOnce(Infallible), compute: impl FnOnce() -> T) -> T;

    /// [`CachedValue::run`] for an async function.
    fn run_async(
        self,
        call: Call<'_>,
        on_error: impl FnOnce(Infallible),
        compute: impl AsyncFnOnce() -> T,
    ) -> impl Future<Output = T>;
}

/// The error of a function that cannot fail.
#[derive(Debug)]
pub enum Infallible {}

impl<T: Serialize + DeserializeOwned> CachedValue<T> for Returns<T> {
    fn run(self, call: Call<'_>, _: impl FnOnce(Infallible), compute: impl FnOnce() -> T) -> T {
        match call.look_up() {
            Found { value: Some(value), vacancy: None } => value,
            Found { vacancy, .. } => {
                let value = compute();
                call.store(vacancy, &value);
                value
            }
        }
    }

    async fn run_async(self, call: Call<'_>, _: impl FnOnce(Infallible), compute: impl AsyncFnOnce() -> T) -> T {
        match call.look_up() {
            Found { value: Some(value), vacancy: None } => value,
            Found { vacancy, .. } => {
                let value = compute().await;
                call.store(vacancy, &value);
                value
            }
        }
    }
}

/// The key of a function and its arguments: the function's path, a colon, and a JSON array of the arguments.
#[derive(Debug)]
pub struct Encoder<'a> {
    path: &'a str,
    /// The array without its end. `None` after an argument that JSON cannot represent.
    arguments: Option<Vec<u8>>,
}

impl<'a> Encoder<'a> {
    /// The key of a function, given the name of the type of a closure in it.
    pub fn new(closure: &'a str) -> Self {
        let mut path = closure;
        while let Some(outer) = path.strip_suffix("::{{closure}}") {
            path = outer;
        }
        Self { path, arguments: Some(b"[".to_vec()) }
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument<T: Serialize + ?Sized>(self, argument: &T) -> Self {
        let add = |mut json: Vec<u8>| {
            if json.len() > 1 {
                json.push(b',');
            }
            serde_json::to_writer(&mut json, argument).ok()?;
            Some(json)
        };
        Self { path: self.path, arguments: self.arguments.and_then(add) }
    }

    /// The key. A key that the cache would refuse has a digest of the arguments instead.
    pub fn key(self) -> Option<String> {
        let mut json = self.arguments?;
        json.push(b']');
        let json = String::from_utf8(json).ok()?;
        let key = format!("{}:{json}", self.path);
        let is_allowed = |key: &str| key.len() <= MAX_KEY && !key.bytes().any(|byte| byte.is_ascii_control());
        if is_allowed(&key) {
            return Some(key);
        }
        let digested = format!("{}:sha256:{}", self.path, digest(&json));
        Some(if is_allowed(&digested) { digested } else { format!("sha256:{}", digest(&key)) })
    }
}

/// The SHA-256 of a text, in hexadecimal. Other digests would let a client who chooses an argument choose which values
/// share a key.
fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
