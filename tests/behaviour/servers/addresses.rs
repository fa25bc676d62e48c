//! Names with several addresses, some of them dead, and names whose address changes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use larder_host::cache::tcp::Resolver;
use larder_host::cache::{Cache, Duration};
use larder_host::config::BackendConfig;
use larder_host::{Config, connect_cache};
use larder_tests::imitation::BlackHole;
use larder_tests::{Cluster, Kind, Sentinels, Server, TEST_TIMEOUT};

use crate::backends::{bytes, over_every_kind, view};

/// A port of loopback without a listener: it is reserved for a service that no machine runs.
const DEAD: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// The addresses of `cache.example.com`, which a test can change. Other names do not exist.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<SocketAddr>>>);

impl Names {
    fn new(addresses: &[SocketAddr]) -> Self {
        Self(Arc::new(Mutex::new(addresses.to_vec())))
    }

    fn set(&self, addresses: &[SocketAddr]) {
        *self.0.lock().unwrap() = addresses.to_vec();
    }

    /// Port 0 of an address stands for the port in the configuration.
    fn resolver(&self) -> Resolver {
        let names = self.clone();
        Resolver::from_fn(4, move |name, port| {
            if name != "cache.example.com" {
                return Err(std::io::Error::other(format!("no such name: {name}")));
            }
            let mut addresses = names.0.lock().unwrap().clone();
            addresses.iter_mut().filter(|address| address.port() == 0).for_each(|address| address.set_port(port));
            Ok(addresses)
        })
    }

    async fn connect(&self, toml: &str) -> Result<Arc<Cache>, String> {
        let mut config = Config::from_toml(toml).unwrap().caches.remove("c").unwrap();
        let BackendConfig::Server(options) = &mut config.backend else { panic!("{config:?}") };
        options.resolver = self.resolver();
        connect_cache("c", &config).await.map_err(|error| error.to_string())
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn black_hole() -> BlackHole {
    BlackHole::new(Ipv4Addr::new(127, 0, 0, 2).into())
}

/// The TOML of a cache on `cache.example.com`. The deadlines suit a busy machine.
fn toml(kind: Kind, port: u16) -> String {
    let server = format!("host = \"cache.example.com\"\nport = {port}\n");
    format!("[caches.c]\ntype = \"{}\"\n{server}timeout = \"20s\"\nconnect_timeout = \"60s\"\n", kind.type_name())
}

async fn assert_works(cache: &Arc<Cache>) {
    let cache = view(cache);
    for key in ["a", "b", "c", "d"] {
        assert_eq!(cache.set(key, bytes(key), Duration::Default).await, Ok(()));
        assert_eq!(cache.get(key).await, Ok(Some(bytes(key))));
    }
}

async fn a_server_is_reached_although_the_first_address_of_its_name_is_dead(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let hole = black_hole();
    for dead in [&[hole.address()][..], &[DEAD], &[hole.address(), DEAD, hole.address()]] {
        let names = Names::new(&[dead, &[local(server.port())]].concat());
        assert_works(&names.connect(&toml(kind, server.port())).await.unwrap()).await;
    }
}

async fn a_name_is_looked_up_for_each_connection(kind: Kind) {
    let (Some(mut first), Some(second)) = (Server::start(kind), Server::start(kind)) else { return };
    let names = Names::new(&[local(first.port())]);
    let cache = names.connect(&toml(kind, first.port())).await.unwrap();
    assert_works(&cache).await;
    // As after a failover that changes the name, or when a container gets another address.
    names.set(&[local(second.port())]);
    first.kill();
    let view = view(&cache);
    let deadline = tokio::time::Instant::now() + TEST_TIMEOUT;
    while view.set("k", bytes("v"), Duration::Default).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the new address is not used");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let stored = ::redis::TypedCommands::get(&mut second.client(), "cache:k").unwrap();
    assert_eq!(stored.as_deref(), Some("v"));
}

over_every_kind! {
    a_server_is_reached_although_the_first_address_of_its_name_is_dead,
    a_name_is_looked_up_for_each_connection,
}

/// The cache works if its nodes have a name whose first address is dead.
async fn assert_works_by_name(toml: &str) {
    let named = toml.replace("\"127.0.0.1:", "\"cache.example.com:");
    let hole = black_hole();
    let names = Names::new(&[hole.address(), local(0)]);
    let patient = "timeout = \"20s\"\nconnect_timeout = \"60s\"\n";
    assert_works(&names.connect(&format!("{named}{patient}")).await.unwrap()).await;
}

#[tokio::test]
async fn a_cluster_is_reached_although_the_first_address_of_its_seeds_is_dead() {
    let Some(cluster) = Cluster::start(Kind::Valkey) else { return };
    assert_works_by_name(&cluster.cache("c")).await;
}

#[tokio::test]
async fn a_primary_is_found_although_the_first_address_of_its_sentinels_is_dead() {
    let Some(watched) = Sentinels::start(Kind::Valkey) else { return };
    assert_works_by_name(&watched.cache("c")).await;
}

#[tokio::test]
async fn the_message_about_a_name_lists_its_addresses_with_their_reasons() {
    let hole = black_hole();
    let names = Names::new(&[hole.address(), DEAD]);
    let toml = toml(Kind::Valkey, 7000).replace("connect_timeout = \"60s\"", "connect_timeout = \"300ms\"");
    let refused = names.connect(&toml).await.unwrap_err();
    let start = "cache `c`: cannot reach Valkey at `cache.example.com:7000`: ";
    let reasons = refused.strip_prefix(start).unwrap_or_else(|| panic!("{refused}"));
    assert!(reasons.contains("127.0.0.1:1: Connection refused"), "{refused}");
    assert!(reasons.contains(&format!("{}: no answer within 300ms", hole.address())), "{refused}");
    names.set(&[]);
    assert_eq!(names.connect(&toml).await.unwrap_err(), format!("{start}the name has no address"));
    let unknown = toml.replace("cache.example.com", "other.example.com");
    assert!(names.connect(&unknown).await.unwrap_err().ends_with(": no such name: other.example.com"));
}
