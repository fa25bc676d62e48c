//! Several `larder` processes and one server.
//!
//! - `ending`: how the computing process ends, and which process computes next.
//! - `once`: one of all processes computes.
//! - `outage`: the server crashes, restarts or hangs during a computation.
//! - `invalidated`: a set or clear by one process invalidates a computation in another.
//! - `support`: servers and users without client tracking, and the commands that waiting costs.
//! - `waits`: a slow computation, a wait that times out, and reads of a key that is being computed.

mod ending;
mod invalidated;
mod once;
mod outage;
mod support;
mod waits;

use std::time::Instant;

use larder_tests::{Kind, Larder, LarderProcess, Server, wait_for};
use redis::TypedCommands;

/// A lease that would last for a minute, so that a vacancy which is passed on sooner was given back.
const LONG_LEASE: &str = "lease = \"60s\"\n";

/// Does a check with a server of each kind, all at the same time, as most of it is waiting.
fn on_every_server(check: impl Fn(Server) + Sync) {
    std::thread::scope(|scope| {
        for kind in Kind::ALL {
            let check = &check;
            // A panic names the thread, and so the server.
            let thread = std::thread::Builder::new().name(format!("{kind:?}"));
            thread.spawn_scoped(scope, move || Server::start(kind).into_iter().for_each(check)).unwrap();
        }
    });
}

/// The server's cache with more keys in TOML. Where they do not say otherwise nothing but an event ends a wait, and no
/// answer comes too late on a busy machine.
fn config(server: &Server, more: &str) -> String {
    let patience = ["timeout = \"20s\"\n", "wait = \"10m\"\n", "lease = \"10s\"\n"]
        .into_iter()
        .filter(|line| !more.contains(line.split('"').next().unwrap()));
    format!("{}{more}{}", server.cache("c"), patience.collect::<String>())
}

/// A process whose plugin executes the operations that the test sends.
fn session(server: &Server, more: &str) -> LarderProcess {
    let sandbox = "[sandbox]\ntimeout = \"10m\"\n";
    Larder::run("session").config(&(config(server, more) + sandbox)).start()
}

fn sessions(count: usize, server: &Server, more: &str) -> Vec<LarderProcess> {
    (0..count).map(|_| session(server, more)).collect()
}

fn ask(session: &mut LarderProcess, operation: &str) -> String {
    session.write_line(operation);
    session.read_line()
}

/// Processes that have sent `take k` and wait for the value, which another process computes.
fn waiting(count: usize, server: &Server, more: &str) -> Vec<LarderProcess> {
    let mut waiters = sessions(count, server, more);
    waiters.iter_mut().for_each(|waiter| waiter.write_line("take k"));
    wait_until_waiting(server, count);
    waiters
}

/// Waits until this number of processes wait for a value that another process computes.
///
/// A process that waits reads the remaining time of the lease, and sends no other command before it reads it again. No
/// other call does this. So `PTTL` is the last command on the connections of waiting processes alone. By then the server
/// also tracks the key for them.
fn wait_until_waiting(server: &Server, processes: usize) {
    let mut client = server.client();
    wait_for("processes to wait for another's computation", || {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut client).unwrap();
        (list.lines().filter(|client| client.contains(" cmd=pttl ")).count() == processes).then_some(())
    });
}

/// The next answer of any process, with its index.
fn next_answer(processes: &mut [LarderProcess]) -> (usize, String) {
    wait_for("one of the processes to answer", || {
        let mut answers = processes.iter_mut().map(LarderProcess::try_read_line).enumerate();
        answers.find_map(|(n, answer)| Some((n, answer?)))
    })
}

/// Waits until one waiter of `k` has received the vacancy, while the others wait for its fill. Returns the time.
fn one_computes_for_all(server: &Server, waiters: &mut [LarderProcess]) -> Instant {
    let (heir, answer) = next_answer(waiters);
    let since = Instant::now();
    assert_eq!(answer, "vacant");
    wait_until_waiting(server, waiters.len() - 1);
    assert_eq!(ask(&mut waiters[heir], "fill k heir's"), "filled true");
    for (_, waiter) in waiters.iter_mut().enumerate().filter(|(n, _)| *n != heir) {
        assert_eq!(waiter.read_line(), "hit heir's");
    }
    assert_eq!(stored(server, "k").as_deref(), Some("heir's"));
    since
}

/// The value of a key on the server.
fn stored(server: &Server, key: &str) -> Option<String> {
    server.client().get(format!("cache:{key}")).unwrap()
}

/// Asserts that one of the `slow` calls computed the value, which is stored, and that all others received it.
fn assert_one_computed(server: &Server, key: &str, answers: &[String]) {
    // The SDK stores it as JSON.
    let value = stored(server, key).unwrap();
    let value = value.trim_matches('"');
    let count = |word: &str| answers.iter().filter(|answer| **answer == format!("{word} {value}")).count();
    assert_eq!((count("computed"), count("received")), (1, answers.len() - 1), "{key} is {value}: {answers:#?}");
}

fn is_outage(answer: &str) -> bool {
    ["error Timeout", "error Unavailable"].contains(&answer)
}
