//! TCP connections to a host by its name. All addresses of the name are tried: the next one meanwhile, if one does not
//! answer (RFC 8305, "Happy Eyeballs").

// Decision: docs/decisions/0068-one-connector-tries-all-addresses-of-a-name.md

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration as StdDuration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::blocking::BlockingCalls;

/// The time that an address gets before the next one is tried too. The value that RFC 8305 recommends.
const ATTEMPT_DELAY: StdDuration = StdDuration::from_millis(250);

/// The least such time, if the time is short for the number of addresses. The least value that RFC 8305 allows.
const LEAST_ATTEMPT_DELAY: StdDuration = StdDuration::from_millis(10);

/// The maximum number of addresses of a name that are tried, and of those that a message lists.
const MAX_ADDRESSES: usize = 16;
const MAX_LISTED: usize = 4;

/// A time limit that starts when this is created.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit {
    limit: StdDuration,
    deadline: Instant,
}

impl TimeLimit {
    /// Starts a limit.
    pub fn new(limit: StdDuration) -> Self {
        let now = Instant::now();
        Self { limit, deadline: now.checked_add(limit).unwrap_or(now) }
    }

    /// The limit, for messages.
    pub fn limit(&self) -> StdDuration {
        self.limit
    }

    /// When the limit ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

type Lookup = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Looks up names and connects to their addresses. Nothing is cached: each connection looks its name up, so that it
/// follows a name that has a new address. Clones share the limit of lookups.
#[derive(Clone)]
pub struct Resolver {
    /// `None` asks the system.
    lookup: Option<Arc<Lookup>>,
    calls: BlockingCalls,
}

impl Resolver {
    /// Asks the system, in at most `max_lookups` lookups at a time: each occupies a thread that others need too, and
    /// continues after its caller has stopped waiting.
    pub fn system(max_lookups: usize) -> Self {
        Self { lookup: None, calls: BlockingCalls::new(max_lookups) }
    }

    /// Asks a function, which may block. It gets the name and the port.
    pub fn from_fn(
        max_lookups: usize,
        lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self { lookup: Some(Arc::new(lookup)), calls: BlockingCalls::new(max_lookups) }
    }

    /// Connects to the first address of `host` that accepts. An IPv6 address has no brackets.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the name has no address, or none of its addresses accepts in time.
    pub async fn connect(&self, host: &str, port: u16, time: TimeLimit) -> Result<TcpStream, ConnectError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            let address = SocketAddr::new(address, port);
            let stream = race(&[address], time, TcpStream::connect).await;
            return stream.map_err(|failed| ConnectError { is_literal: true, reason: Reason::Addresses(failed) });
        }
        let failed = |reason| ConnectError { is_literal: false, reason };
        let addresses = match timeout_at(time.deadline, self.look_up(host, port)).await {
            Ok(Ok(addresses)) if addresses.is_empty() => {
                return Err(failed(Reason::Lookup(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))));
            }
            Ok(Ok(addresses)) => interleaved(addresses),
            Ok(Err(error)) => return Err(failed(Reason::Lookup(error))),
            Err(_elapsed) => {
                let text = format!("the name lookup took longer than {:?}", time.limit);
                return Err(failed(Reason::Lookup(io::Error::new(io::ErrorKind::TimedOut, text))));
            }
        };
        race(&addresses, time, TcpStream::connect).await.map_err(|each| failed(Reason::Addresses(each)))
    }

    async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let (host, lookup) = (host.to_owned(), self.lookup.clone());
        let call = move || match lookup {
            Some(lookup) => lookup(&host, port),
            None => (host.as_str(), port).to_socket_addrs().map(Iterator::collect),
        };
        self.calls.run(call).await.flatten()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.lookup.is_some() { "Resolver(function)" } else { "Resolver(system)" })
    }
}

impl PartialEq for Resolver {
    /// True if both ask the system, or the same function.
    fn eq(&self, other: &Self) -> bool {
        match (&self.lookup, &other.lookup) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for Resolver {}

/// Why no address of a host could be connected to. Its text lists the addresses and the reasons.
#[derive(Debug)]
pub struct ConnectError {
    /// The host was given as an address, so the caller's message has it.
    is_literal: bool,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    Lookup(io::Error),
    Addresses(Vec<(SocketAddr, io::Error)>),
}

impl ConnectError {
    /// True if the name could not be looked up, or has no address.
    pub fn is_lookup(&self) -> bool {
        matches!(self.reason, Reason::Lookup(_))
    }

    /// True if an address refused the connection: nothing listens there.
    pub fn is_refused(&self) -> bool {
        let is_refused = |(_, error): &(SocketAddr, io::Error)| error.kind() == io::ErrorKind::ConnectionRefused;
        matches!(&self.reason, Reason::Addresses(each) if each.iter().any(is_refused))
    }

    /// The kind that the errors of all addresses have, or else that of the last one.
    pub fn kind(&self) -> io::ErrorKind {
        match &self.reason {
            Reason::Lookup(error) => error.kind(),
            Reason::Addresses(each) => each.last().map_or(io::ErrorKind::NotFound, |(_, error)| error.kind()),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Lookup(error) => fmt::Display::fmt(error, f),
            Reason::Addresses(each) if self.is_literal => match each.first() {
                Some((_, error)) => fmt::Display::fmt(error, f),
                None => Ok(()),
            },
            Reason::Addresses(each) => {
                for (nth, (address, error)) in each.iter().take(MAX_LISTED).enumerate() {
                    let separator = if nth == 0 { "" } else { "; " };
                    write!(f, "{separator}{address}: {error}")?;
                }
                match each.len().saturating_sub(MAX_LISTED) {
                    0 => Ok(()),
                    more => write!(f, "; and {more} more addresses"),
                }
            }
        }
    }
}

impl std::error::Error for ConnectError {}

/// The addresses in the system's order, except that the two families take turns (RFC 8305, section 4): if one family
/// has no route, the second attempt uses the other.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_first_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == is_first_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = Vec::new();
    loop {
        match (first.next(), second.next()) {
            (None, None) => break,
            pair => all.extend([pair.0, pair.1].into_iter().flatten()),
        }
    }
    all.truncate(MAX_ADDRESSES);
    all
}

/// Connects to the first address that accepts. The next address is tried as soon as one fails, or has not answered for
/// [`ATTEMPT_DELAY`]; the earlier attempts continue meanwhile.
///
/// # Errors
///
/// Each address with its reason.
async fn race<S, F: Future<Output = io::Result<S>>>(
    addresses: &[SocketAddr],
    time: TimeLimit,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<S, Vec<(SocketAddr, io::Error)>> {
    // An address that is tried last gets its share of the time too.
    let parts = u32::try_from(addresses.len()).unwrap_or(u32::MAX).saturating_add(1);
    let left = time.deadline.saturating_duration_since(Instant::now());
    let delay = left.checked_div(parts).unwrap_or_default().clamp(LEAST_ATTEMPT_DELAY, ATTEMPT_DELAY);
    let attempt = async |address| (address, connect(address).await);
    let mut running = FuturesUnordered::new();
    let mut waiting = addresses.iter();
    let mut failed = Vec::new();
    let mut next_start = Instant::now();
    loop {
        if Instant::now() >= next_start
            && let Some(address) = waiting.next()
        {
            running.push(attempt(*address));
            next_start = Instant::now().checked_add(delay).unwrap_or(time.deadline);
        }
        let until = if waiting.len() == 0 { time.deadline } else { next_start.min(time.deadline) };
        match timeout_at(until, running.next()).await {
            Ok(Some((_, Ok(stream)))) => return Ok(stream),
            Ok(Some((address, Err(error)))) => {
                failed.push((address, error));
                next_start = Instant::now();
            }
            Ok(None) if waiting.len() == 0 => return Err(failed),
            Ok(None) => next_start = Instant::now(),
            Err(_elapsed) if Instant::now() < time.deadline => {}
            Err(_elapsed) => {
                let silent = addresses.iter().filter(|address| !failed.iter().any(|(other, _)| other == *address));
                let silent: Vec<SocketAddr> = silent.copied().collect();
                let no_answer =
                    || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", time.limit));
                failed.extend(silent.into_iter().map(|address| (address, no_answer())));
                return Err(failed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use std::sync::Mutex;

    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: StdDuration = StdDuration::from_secs(2);

    /// What an address of a test does.
    #[derive(Debug, Clone, Copy)]
    enum Does {
        /// Accepts after this number of milliseconds.
        Accept(u64),
        /// Refuses after this number of milliseconds.
        Refuse(u64),
        /// Answers nothing, as when a firewall drops all packets.
        Nothing,
    }

    fn address(nth: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, nth], 6379))
    }

    /// Races addresses, of which the first one is number 0. Returns the number of the winner or the reasons, and the time
    /// in milliseconds. Must be called with paused time.
    async fn raced(limit: StdDuration, each: &[Does]) -> (Result<SocketAddr, Vec<String>>, u128) {
        let addresses: Vec<SocketAddr> = (0..).map(address).take(each.len()).collect();
        let plans: BTreeMap<SocketAddr, Does> = addresses.iter().copied().zip(each.iter().copied()).collect();
        let start = Instant::now();
        let connect = |address| {
            let plan = plans[&address];
            async move {
                let pause = |milliseconds| tokio::time::sleep(StdDuration::from_millis(milliseconds));
                match plan {
                    Does::Accept(after) => pause(after).await,
                    Does::Refuse(after) => {
                        pause(after).await;
                        return Err(io::ErrorKind::ConnectionRefused.into());
                    }
                    Does::Nothing => std::future::pending().await,
                }
                Ok(address)
            }
        };
        let winner = race(&addresses, TimeLimit::new(limit), connect).await;
        let reasons = |failed: Vec<(SocketAddr, io::Error)>| {
            failed.into_iter().map(|(address, error)| format!("{}: {error}", address.ip())).collect()
        };
        (winner.map_err(reasons), start.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_tried_while_one_does_not_answer() {
        assert_eq!(raced(LIMIT, &[Does::Accept(3)]).await, (Ok(address(0)), 3));
        assert_eq!(raced(LIMIT, &[Does::Nothing, Does::Accept(5)]).await, (Ok(address(1)), 255));
        let two_silent = [Does::Nothing, Does::Nothing, Does::Accept(5)];
        assert_eq!(raced(LIMIT, &two_silent).await, (Ok(address(2)), 505));
        // The first one still wins if it accepts before the second.
        assert_eq!(raced(LIMIT, &[Does::Accept(300), Does::Accept(100)]).await, (Ok(address(0)), 300));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_tried_as_soon_as_one_refuses() {
        assert_eq!(raced(LIMIT, &[Does::Refuse(1), Does::Refuse(1), Does::Accept(1)]).await, (Ok(address(2)), 3));
        // A refusal starts one attempt, not several.
        let refused_late = [Does::Nothing, Does::Refuse(10), Does::Accept(5), Does::Accept(0)];
        assert_eq!(raced(LIMIT, &refused_late).await, (Ok(address(2)), 265));
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_share_a_short_time() {
        let mut each = [Does::Nothing; 10];
        each[9] = Does::Accept(0);
        let (winner, elapsed) = raced(StdDuration::from_millis(220), &each).await;
        assert_eq!((winner, elapsed), (Ok(address(9)), 180));
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_has_its_reason() {
        let (reasons, elapsed) = raced(LIMIT, &[Does::Nothing, Does::Refuse(1)]).await;
        let expected = ["192.0.2.1: connection refused", "192.0.2.0: no answer within 2s"];
        assert_eq!((reasons, elapsed), (Err(expected.map(str::to_owned).to_vec()), 2000));
        let (reasons, elapsed) = raced(LIMIT, &[Does::Refuse(1), Does::Refuse(1)]).await;
        assert_eq!((reasons.unwrap_err().len(), elapsed), (2, 2));
    }

    #[test]
    fn the_families_take_turns() {
        let parsed = |text: &str| text.parse::<SocketAddr>().unwrap();
        let given = ["[2001:db8::1]:1", "[2001:db8::2]:1", "192.0.2.1:1", "[2001:db8::3]:1"].map(parsed);
        let expected = ["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1", "[2001:db8::3]:1"].map(parsed);
        assert_eq!(interleaved(given.to_vec()), expected);
        assert_eq!(interleaved((0..40).map(address).collect()).len(), MAX_ADDRESSES);
    }

    /// A port with a full queue of connections that are not accepted: the system drops further attempts.
    struct BlackHole {
        address: SocketAddr,
        _listener: TcpListener,
        _queued: Vec<tokio::task::JoinHandle<io::Result<TcpStream>>>,
    }

    impl BlackHole {
        async fn new(address: Ipv4Addr, port: u16) -> Self {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((address, port).into()).unwrap();
            let listener = socket.listen(0).unwrap();
            let address = listener.local_addr().unwrap();
            let mut queued = Vec::new();
            loop {
                let mut attempt = tokio::spawn(TcpStream::connect(address));
                let accepted = tokio::time::timeout(StdDuration::from_secs(1), &mut attempt).await;
                match accepted {
                    Ok(stream) => queued.push(tokio::spawn(async { stream.unwrap() })),
                    Err(_dropped) => break,
                }
            }
            Self { address, _listener: listener, _queued: queued }
        }
    }

    #[tokio::test]
    async fn a_name_is_reached_although_its_first_address_drops_packets() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = server.local_addr().unwrap().port();
        let hole = BlackHole::new(Ipv4Addr::new(127, 0, 0, 2), port).await;
        let table = vec![hole.address, server.local_addr().unwrap()];
        let resolver = Resolver::from_fn(1, move |_, _| Ok(table.clone()));
        let stream =
            resolver.connect("two.example.com", port, TimeLimit::new(StdDuration::from_secs(60))).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);
    }

    #[tokio::test]
    async fn a_message_lists_the_addresses_of_a_name_and_their_reasons() {
        let table = Mutex::new(Vec::from([[127, 0, 0, 1], [127, 0, 0, 2]]));
        let resolver = Resolver::from_fn(1, move |name, port| match name {
            "empty.example.com" => Ok(Vec::new()),
            "hangs.example.com" => {
                std::thread::sleep(StdDuration::from_millis(50));
                Ok(Vec::new())
            }
            _ => Ok(table.lock().unwrap().iter().map(|ip| SocketAddr::from((*ip, port))).collect()),
        });
        let text = async |host: &str| {
            let refused = resolver.connect(host, 1, TimeLimit::new(StdDuration::from_secs(60))).await;
            refused.unwrap_err().to_string()
        };
        let listed = text("two.example.com").await;
        assert!(listed.starts_with("127.0.0.1:1: ") && listed.contains("refused"), "{listed}");
        assert!(listed.contains("; 127.0.0.2:1: "), "{listed}");
        assert_eq!(text("empty.example.com").await, "the name has no address");
        // The address is in the caller's message.
        let literal = text("127.0.0.1").await;
        assert!(literal.starts_with("Connection refused"), "{literal}");
        let slow = resolver.connect("hangs.example.com", 1, TimeLimit::new(StdDuration::from_millis(1))).await;
        let slow = slow.unwrap_err();
        assert!(slow.is_lookup() && slow.kind() == io::ErrorKind::TimedOut, "{slow}");
        assert_eq!(slow.to_string(), "the name lookup took longer than 1ms");
    }
}
