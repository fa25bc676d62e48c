//! The attribute `cached`, on the in-memory host. `guest-sdk/macros/src/tests.rs` tests its messages.

use std::cell::Cell;
use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use larder::{Cache, testing};

const SECOND: Duration = Duration::from_secs(1);

thread_local! {
    /// How often the cached functions of a test have run.
    static RUNS: Cell<u32> = const { Cell::new(0) };
    static ERRORS: Cell<u32> = const { Cell::new(0) };
}

/// Counts a run, and returns how many there were.
fn run() -> u32 {
    RUNS.set(RUNS.get() + 1);
    RUNS.get()
}

fn keys() -> Vec<String> {
    testing::cache("default").keys()
}

/// Runs a future that never waits.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits"),
    }
}

#[larder::cached(duration = "60s")]
fn sum(a: u32, b: u32) -> u32 {
    run();
    a + b
}

#[test]
fn a_function_runs_once_for_the_same_arguments_until_its_value_expires() {
    assert_eq!([sum(1, 2), sum(1, 2), sum(2, 1), sum(1, 2)], [3; 4]);
    assert_eq!(RUNS.get(), 2);
    testing::advance(60 * SECOND);
    assert_eq!((sum(1, 2), RUNS.get()), (3, 3));
}

#[test]
fn a_key_is_the_path_and_the_json_of_the_arguments() {
    sum(1, 2);
    assert_eq!(keys(), ["cached::sum:[1,2]"]);
    assert_eq!(testing::cache("default").duration_left(&keys()[0]), Some(larder::Duration::Milliseconds(60_000)));
    assert_eq!(Cache::default().unwrap().clear_pattern("cached::sum:*"), Ok(1));
    sum(1, 2);
    assert_eq!(RUNS.get(), 2);
}

/// Two types and a module with functions of the same name.
#[allow(dead_code, reason = "only functions of the types are called")]
mod shop {
    use super::run;

    pub(crate) struct Fruit<T>(std::marker::PhantomData<T>);
    pub(crate) enum Vegetable {}

    impl<T> Fruit<T> {
        #[larder::cached(duration = "60s")]
        pub(crate) fn price() -> u32 {
            run()
        }
    }

    impl Vegetable {
        #[larder::cached(duration = "60s")]
        pub(crate) fn price() -> u32 {
            run()
        }
    }

    #[larder::cached(duration = "60s")]
    pub(crate) async fn price() -> u32 {
        run()
    }
}

#[larder::cached(duration = "60s")]
fn price() -> u32 {
    run()
}

#[larder::cached(duration = "60s")]
fn size<T>() -> usize {
    run();
    size_of::<T>()
}

#[test]
fn functions_with_the_same_name_and_generic_ones_with_other_types_have_other_keys() {
    #[larder::cached(duration = "60s")]
    fn inner() -> u32 {
        run()
    }
    fn other() -> u32 {
        #[larder::cached(duration = "60s")]
        fn inner() -> u32 {
            run()
        }
        inner()
    }
    let of_fruit = [shop::Fruit::<u8>::price(), shop::Fruit::<u16>::price()];
    let others = [shop::Vegetable::price(), price(), ready(shop::price()), inner(), other()];
    assert_eq!((of_fruit, others), ([1, 2], [3, 4, 5, 6, 7]));
    assert_eq!([size::<u8>(), size::<u64>(), size::<u8>()], [1, 8, 1]);
    assert_eq!(RUNS.get(), 9);
    assert!(keys().contains(&"cached::shop::price:[]".to_owned()), "{:?}", keys());
}

#[larder::cached(duration = "60s")]
fn length(text: &str) -> usize {
    run();
    text.len()
}

#[test]
fn a_key_that_the_cache_would_refuse_has_a_digest_of_the_arguments() {
    let fits = "a".repeat(1024 - "cached::length:[\"\"]".len());
    let longer = fits.clone() + "a";
    for text in [fits.as_str(), &longer, "\u{7f}", "\n"] {
        assert_eq!([length(text), length(text)], [text.len(); 2]);
    }
    assert_eq!(RUNS.get(), 4);
    let (digests, written): (Vec<_>, Vec<_>) = keys().into_iter().partition(|key| key.contains(":sha256:"));
    let mut expected = [format!("cached::length:[\"{fits}\"]"), "cached::length:[\"\\n\"]".to_owned()];
    expected.sort();
    assert_eq!(written, expected);
    // `printf '["\177"]' | sha256sum`
    let of_delete = "cached::length:sha256:2366f354a28f19c40b4994ae5a341137807c954180c52cbc9d56a75722dcdeed";
    assert!(digests.len() == 2 && digests.contains(&of_delete.to_owned()), "{digests:?}");
}

#[larder::cached(duration = SECOND, stale = larder::Duration::Milliseconds(2000), cache = "users", key = "user:{id:>3}:{{}}")]
fn user(id: u32, connection: &mut Vec<u32>) -> u32 {
    connection.push(id);
    run()
}

#[test]
fn a_key_may_be_a_format_string_and_durations_may_be_expressions() {
    let mut connection = Vec::new();
    assert_eq!([user(7, &mut connection), user(7, &mut connection), user(8, &mut connection)], [1, 1, 2]);
    assert_eq!(connection, [7, 8]);
    assert_eq!(testing::cache("users").keys(), ["user:  7:{}", "user:  8:{}"]);
    assert_eq!(testing::cache("users").duration_left("user:  7:{}"), Some(larder::Duration::Milliseconds(3000)));
    assert!(keys().is_empty());
}

struct Repository {
    name: String,
    loaded: Vec<u32>,
}

impl Repository {
    #[larder::cached(duration = "60s", key = format!("{}:{id}", self.name))]
    fn load(&mut self, id: u32) -> String {
        self.loaded.push(id);
        format!("{id} of {}", self.name)
    }

    #[larder::cached(duration = "60s", key = "named")]
    async fn into_name(self) -> String {
        self.name
    }
}

#[test]
fn a_method_is_cached_under_its_key() {
    let mut repository = Repository { name: "posts".to_owned(), loaded: Vec::new() };
    assert_eq!(
        [repository.load(1), repository.load(1), repository.load(2)],
        ["1 of posts", "1 of posts", "2 of posts"]
    );
    assert_eq!(repository.loaded, [1, 2]);
    assert_eq!(ready(repository.into_name()), "posts");
    assert_eq!(keys(), ["named", "posts:1", "posts:2"]);
}

/// The connection has no encoding, and the closure none either.
struct Connection;

#[larder::cached(duration = "60s", skip(connection, log))]
fn load(id: u32, connection: &Connection, log: impl Fn(u32)) -> u32 {
    let Connection = connection;
    log(id);
    run()
}

#[test]
fn skipped_arguments_are_not_in_the_key() {
    assert_eq!(load(1, &Connection, |_| ()), 1);
    assert_eq!(load(2, &Connection, |id| assert_eq!(id, 2)), 2);
    assert_eq!(keys().len(), 2);
    assert!(keys().iter().all(|key| key.ends_with(":[1]") || key.ends_with(":[2]")), "{:?}", keys());
}

#[larder::cached(duration = "60s")]
fn pattern((a, b): (u32, u32), mut list: Vec<u32>, _: bool, text: impl Display + serde::Serialize) -> String {
    run();
    list.push(a * b);
    format!("{list:?} {text}")
}

#[test]
fn arguments_may_be_patterns_mutable_unnamed_and_of_an_opaque_type() {
    for _ in 0..2 {
        assert_eq!(pattern((2, 3), vec![1], true, "x"), "[1, 6] x");
    }
    assert_eq!(pattern((2, 3), vec![1], false, "x"), "[1, 6] x");
    assert_eq!(RUNS.get(), 2);
    assert!(keys().iter().any(|key| key.ends_with(":[[2,3],[1],true,\"x\"]")), "{:?}", keys());
}

type Outcome<T> = Result<T, String>;

#[larder::cached(duration = "60s", key = "parsed:{text}")]
fn parsed(text: &str) -> Outcome<u32> {
    run();
    if text.is_empty() {
        return Err("nothing to read".to_owned());
    }
    let number: u32 = text.parse().map_err(|_| format!("{text} is not a number"))?;
    Ok(number)
}

#[test]
fn only_ok_is_stored_whatever_the_result_is_called_and_however_the_body_returns() {
    for _ in 0..2 {
        assert_eq!(parsed("7"), Ok(7));
        assert_eq!(parsed("x"), Err("x is not a number".to_owned()));
        assert_eq!(parsed(""), Err("nothing to read".to_owned()));
    }
    assert_eq!(RUNS.get(), 5);
    assert_eq!(Cache::default().unwrap().get("parsed:7"), Ok(Some(7)));
    assert_eq!(keys(), ["parsed:7"]);
}

#[larder::cached(duration = "60s")]
fn perhaps(number: u32) -> Option<u32> {
    run();
    let even = number.is_multiple_of(2).then_some(number)?;
    Some(even)
}

#[test]
fn none_is_a_value() {
    assert_eq!([perhaps(1), perhaps(1), perhaps(2), perhaps(2)], [None, None, Some(2), Some(2)]);
    assert_eq!(RUNS.get(), 2);
}

fn count_error(error: String) {
    assert_eq!(error, "down");
    ERRORS.set(ERRORS.get() + 1);
}

#[larder::cached(duration = "1s", stale = "10s", key = "source", on_error = count_error)]
fn source(answer: Option<u32>) -> Result<u32, String> {
    run();
    answer.ok_or_else(|| "down".to_owned())
}

#[test]
fn a_refresh_that_fails_returns_the_stale_value_until_its_hard_end() {
    assert_eq!(source(None), Err("down".to_owned()));
    assert_eq!(source(Some(1)), Ok(1));
    assert_eq!(source(None), Ok(1));
    assert_eq!((RUNS.get(), ERRORS.get()), (2, 0));
    testing::advance(SECOND);
    // The first one tries, and then there is a pause of a second.
    assert_eq!([source(None), source(None)], [Ok(1), Ok(1)]);
    assert_eq!((RUNS.get(), ERRORS.get()), (3, 1));
    testing::advance(9 * SECOND);
    assert_eq!((source(None), ERRORS.get()), (Ok(1), 2));
    testing::advance(SECOND);
    assert_eq!((source(None), ERRORS.get()), (Err("down".to_owned()), 2));
    assert_eq!(source(Some(2)), Ok(2));
}

#[larder::cached(duration = "1s", stale = "10s", key = "number")]
fn number() -> u32 {
    run()
}

#[test]
fn a_refresh_stores_the_next_value() {
    assert_eq!([number(), number()], [1, 1]);
    testing::advance(SECOND);
    assert_eq!([number(), number()], [2, 2]);
    testing::advance(11 * SECOND);
    assert_eq!(number(), 3);
}

#[larder::cached(duration = "1s", stale = "10s", on_error = count_error)]
async fn fetched(answer: Result<u32, String>) -> Result<u32, String> {
    run();
    let number = std::future::ready(answer).await?;
    Ok(number)
}

#[larder::cached(duration = "60s")]
async fn fetched_text(of: &str) -> String {
    run();
    std::future::ready(of.to_uppercase()).await
}

#[test]
fn async_functions_are_cached_alike() {
    assert_eq!([ready(fetched_text("a")), ready(fetched_text("a"))], ["A", "A"]);
    assert_eq!(RUNS.get(), 1);
    let down = || Err("down".to_owned());
    assert_eq!([ready(fetched(down())), ready(fetched(down()))], [down(), down()]);
    assert_eq!([ready(fetched(Ok(5))), ready(fetched(Ok(5)))], [Ok(5), Ok(5)]);
    assert_eq!((RUNS.get(), ERRORS.get()), (4, 0));
}

#[larder::cached(duration = "60s", cache = "elsewhere")]
fn counted() -> u32 {
    run()
}

#[larder::cached(duration = larder::Duration::Milliseconds(0))]
fn never_stored(_map: std::collections::BTreeMap<(u32, u32), u32>) -> u32 {
    run()
}

#[test]
fn a_failure_of_the_cache_is_none_of_the_function() {
    testing::caches(["default"]);
    assert_eq!([counted(), counted()], [1, 2]);
    testing::caches(["elsewhere"]);
    testing::cache("elsewhere").access(testing::Access::ReadOnly);
    assert_eq!(counted(), 3);
    testing::cache("elsewhere").access(testing::Access::ReadWrite).on_outage(testing::OnOutage::Error);
    testing::outage(testing::Outage::Timeout);
    assert_eq!(counted(), 4);
    testing::recover();
    assert_eq!([counted(), counted()], [5, 5]);
    // An argument without an encoding as JSON, and a duration that is refused.
    testing::reset();
    assert_eq!(never_stored([((1, 2), 3)].into()), 6);
    assert_eq!([never_stored([].into()), never_stored([].into())], [7, 8]);
    assert!(keys().is_empty());
}

#[larder::cached(duration = "60s")]
fn fibonacci(n: u32) -> u64 {
    run();
    if n < 2 { n.into() } else { fibonacci(n - 1) + fibonacci(n - 2) }
}

#[test]
fn a_function_may_call_itself() {
    assert_eq!(fibonacci(80), 23_416_728_348_467_685);
    assert_eq!(RUNS.get(), 81);
}

#[test]
fn a_value_of_another_type_is_computed_again() {
    Cache::default().unwrap().set("number", "text").unwrap();
    assert_eq!([number(), number()], [1, 1]);
}
