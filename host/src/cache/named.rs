//! One configured cache: a backend, and the policy that is the same for all of them.

use std::sync::Arc;
use std::time::Duration as StdDuration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::cache::flight::{Flights, Join, Owner, Vacancy, Wake};
use crate::cache::{CacheBackend, CacheError, Duration, Health, Key, Selection};

/// What the operator decided about a cache, whatever stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The duration of a value set without one; none for no expiry. Defaults to 300 s.
    pub default_expire: Option<StdDuration>,
    /// The longest duration of any value. Defaults to none, which is no bound.
    pub max_expire: Option<StdDuration>,
    /// The longest value in bytes. Defaults to 1 MiB.
    pub max_value_bytes: usize,
    /// How long a `get-or-set` waits for another caller's computation. Defaults to 5 s.
    pub wait: StdDuration,
    /// What a read answers while the server is out of reach. Defaults to a miss.
    pub on_outage: OnOutage,
}

/// What a read answers while the server is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnOutage {
    /// A miss, and a vacancy from `get-or-set`: plugins go on without the cache.
    #[default]
    Miss,
    /// The error.
    Error,
}

/// What a `get-or-set` found.
#[derive(Debug)]
pub enum Entry {
    /// The key's value.
    Occupied(Bytes),
    /// There is none, and the caller is the one to compute it.
    Vacant(Vacancy),
}

/// One configured cache.
#[derive(Debug)]
pub struct Cache {
    name: String,
    backend: Arc<dyn CacheBackend>,
    policy: Policy,
    flights: Arc<Flights>,
}

impl Cache {
    /// A cache by the operator's name.
    pub fn new(name: impl Into<String>, backend: Arc<dyn CacheBackend>, policy: Policy) -> Self {
        Self { name: name.into(), backend, policy, flights: Arc::default() }
    }

    /// The operator's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's value, or `None` on a miss.
    pub async fn get(&self, key: &Key) -> Result<Option<Bytes>, CacheError> {
        self.or_miss(self.backend.get(key).await, || None)
    }

    /// The values of many keys, in their order, in one round trip.
    pub async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, CacheError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.or_miss(self.backend.get_many(keys).await, || vec![None; keys.len()])
    }

    /// Stores a value.
    pub async fn set(&self, key: Key, value: Bytes, duration: Duration) -> Result<(), CacheError> {
        let duration = self.resolve(duration)?;
        self.check_value(&value)?;
        self.flights.overtake_keys([&key]).await;
        self.backend.set(key, value, duration).await
    }

    /// Stores many values for one duration, in one round trip.
    pub async fn set_many(&self, entries: Vec<(Key, Bytes)>, duration: Duration) -> Result<(), CacheError> {
        let duration = self.resolve(duration)?;
        entries.iter().try_for_each(|(_, value)| self.check_value(value))?;
        if entries.is_empty() {
            return Ok(());
        }
        self.flights.overtake_keys(entries.iter().map(|(key, _)| key)).await;
        self.backend.set_many(entries, duration).await
    }

    /// The key's value, or the vacancy to compute it. While a vacancy is out, other callers wait here.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] where `owner` holds the key's vacancy itself.
    pub async fn get_or_set(&self, key: &Key, owner: Owner) -> Result<Entry, CacheError> {
        let deadline = Instant::now().checked_add(self.policy.wait);
        loop {
            let since = self.flights.now();
            if let Some(value) = self.get(key).await? {
                return Ok(Entry::Occupied(value));
            }
            let woken = match self.flights.join(key, owner, since) {
                Join::Held => {
                    let rule = "key: this plugin instance holds its vacancy already";
                    return Err(CacheError::InvalidArgument(rule.to_owned()));
                }
                Join::Lead { vacancy, stale: false } => return Ok(Entry::Vacant(vacancy)),
                Join::Lead { vacancy, stale: true } => {
                    return Ok(match self.get(key).await? {
                        Some(value) => {
                            vacancy.retire();
                            Entry::Occupied(value)
                        }
                        None => Entry::Vacant(vacancy),
                    });
                }
                Join::Wait(woken) => woken,
            };
            let wake = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, woken).await,
                None => Ok(woken.await),
            };
            match wake {
                Ok(Ok(Wake::Value(value))) => return Ok(Entry::Occupied(value)),
                Ok(Ok(Wake::Vacancy(vacancy))) => return Ok(Entry::Vacant(vacancy)),
                // A fill that was cut off wakes nobody by name; its waiters look again too.
                Ok(Ok(Wake::LookAgain) | Err(_)) => {}
                // One more look: a value may be there though the one who computes it for us is not done.
                Err(_elapsed) => {
                    return Ok(match self.get(key).await? {
                        Some(value) => Entry::Occupied(value),
                        None => Entry::Vacant(self.flights.loose(key, owner)),
                    });
                }
            }
        }
    }

    /// Stores what a vacancy's holder computed, and says whether it did: not when the key was cleared or set since.
    ///
    /// # Errors
    ///
    /// On a value or duration that breaks a rule the vacancy is passed on, as if it had been dropped; so is one that
    /// another cache handed out, which is [`CacheError::InvalidArgument`].
    pub async fn fill(&self, vacancy: Vacancy, value: Bytes, duration: Duration) -> Result<bool, CacheError> {
        if !vacancy.belongs_to(&self.flights) {
            return Err(CacheError::InvalidArgument("vacancy: another cache handed it out".to_owned()));
        }
        let duration = self.resolve(duration)?;
        self.check_value(&value)?;
        vacancy.fill(value, async |key, value| self.backend.set_if_absent(key, value, duration).await).await
    }

    /// Removes one key and says whether it held a value.
    pub async fn clear(&self, key: &Key) -> Result<bool, CacheError> {
        self.flights.overtake_keys([key]).await;
        self.backend.clear(key).await
    }

    /// Removes the selected keys and says how many.
    pub async fn clear_matching(&self, selection: &Selection) -> Result<u64, CacheError> {
        self.flights.overtake_selection(selection).await;
        self.backend.clear_matching(selection).await
    }

    /// Reaches what stands behind the cache and says what it is.
    pub async fn check(&self) -> Result<Health, CacheError> {
        self.backend.check().await
    }

    /// Reads degrade: a miss for an outage, where the operator chose so.
    fn or_miss<T>(&self, outcome: Result<T, CacheError>, miss: impl FnOnce() -> T) -> Result<T, CacheError> {
        match outcome {
            Err(error) if error.is_outage() && self.policy.on_outage == OnOutage::Miss => {
                tracing::debug!(cache = self.name, "a miss instead of an error: {error}");
                Ok(miss())
            }
            outcome => outcome,
        }
    }

    /// The duration a backend gets.
    fn resolve(&self, duration: Duration) -> Result<Option<StdDuration>, CacheError> {
        let asked = match duration {
            Duration::Default => self.policy.default_expire,
            Duration::Milliseconds(0) => {
                return Err(CacheError::InvalidArgument("duration: must not be zero".to_owned()));
            }
            Duration::Milliseconds(milliseconds) => Some(StdDuration::from_millis(milliseconds)),
            Duration::Unlimited => None,
        };
        let bounded = match (asked, self.policy.max_expire) {
            (Some(asked), Some(max)) => Some(asked.min(max)),
            (asked, max) => asked.or(max),
        };
        Ok(bounded.map(|duration| duration.min(Duration::LONGEST)))
    }

    fn check_value(&self, value: &Bytes) -> Result<(), CacheError> {
        let (len, max) = (value.len(), self.policy.max_value_bytes);
        if len > max { Err(CacheError::ValueTooLarge { len, max }) } else { Ok(()) }
    }
}
