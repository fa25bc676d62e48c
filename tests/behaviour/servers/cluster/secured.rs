//! Clusters whose nodes require a password or a user, and speak TLS.

use std::sync::Arc;

use larder_tests::documents::rights_after;
use larder_tests::{Authority, Cluster, Kind, Larder};
use tokio::sync::Mutex;

use super::steady::{
    assert_a_lease_moves_with_its_slot, assert_a_slot_that_has_moved_is_served_by_its_new_node,
    assert_a_value_is_computed_and_stored_in_a_slot_that_moves,
    assert_clears_in_a_slot_that_moves_reach_both_nodes_and_count_each_key_once,
    assert_reads_and_writes_work_while_a_slot_moves,
};
use super::{Keys, Shared, assert_a_failover_keeps_all_keys, assert_present};
use crate::backends::view;

/// A cluster, and the lines for a cache's table that it accepts and refuses.
struct Secured {
    cluster: Cluster,
    accepted: String,
    refused: Vec<String>,
    /// Has the files of the certificates.
    _authority: Option<Authority>,
}

/// Nodes with a password and TLS, also among themselves. Their certificate is for this name, by which they name each
/// other if it is not an address.
fn with_tls_and_a_password(kind: Kind, name: &str) -> Option<Mutex<Secured>> {
    let authority = Authority::new();
    let tls = authority.server_options(&authority.issue(name), false);
    let mut options = vec!["--requirepass", "s3cret-word", "--masterauth", "s3cret-word"];
    options.extend(["--tls-cluster", "yes", "--tls-replication", "yes"]);
    if name != "127.0.0.1" {
        options.extend(["--cluster-announce-hostname", name, "--cluster-preferred-endpoint-type", "hostname"]);
    }
    options.extend(tls.iter().map(String::as_str));
    let cluster = Cluster::start_with(kind, &options)?;
    let tls = format!("tls = true\nca_file = \"{}\"\n", authority.ca_file().display());
    let accepted = format!("{tls}password = \"s3cret-word\"\n");
    let refused = ["", "password = \"s3cret-guess\"\n"].map(|password| format!("{tls}{password}"));
    Some(Mutex::new(Secured { cluster, accepted, refused: refused.into(), _authority: Some(authority) }))
}

/// Nodes with a user that has the rights in the guide, on the keys of the tests, and no others.
fn with_a_restricted_user(kind: Kind) -> Option<Mutex<Secured>> {
    let rights =
        [rights_after("A user with restricted rights (ACL) needs"), rights_after("rights also needs")].concat();
    let mut options = vec!["--requirepass", "s3cret-word", "--masterauth", "s3cret-word"];
    options.extend(["--user", "worker", "on", ">s3cret-worker", "~cache:*", "resetchannels", "-@all"]);
    options.extend(rights.iter().map(String::as_str));
    let cluster = Cluster::start_with(kind, &options)?;
    let user = |name: &str, password: &str| format!("username = \"{name}\"\npassword = \"{password}\"\n");
    let accepted = user("worker", "s3cret-worker");
    let refused = vec![user("worker", "s3cret-word"), user("workex", "s3cret-worker"), String::new()];
    Some(Mutex::new(Secured { cluster, accepted, refused, _authority: None }))
}

impl Secured {
    fn keys(&self) -> Keys<'_> {
        // The keys that the restricted user may access.
        Keys { cluster: &self.cluster, prefix: "cache", options: &self.accepted }
    }
}

async fn keys_are_stored_read_and_cleared_on_all_nodes(secured: Arc<Mutex<Secured>>) {
    let secured = secured.lock().await;
    let keys = secured.keys();
    let cache = view(&keys.cache().await);
    let names: Vec<String> = (0..100).map(|n| format!("key{n}")).collect();
    keys.set_all(&cache, &names).await;
    assert_present(&cache, &names).await;
    assert_eq!(cache.clear_pattern("key?").await, Ok(10));
    assert_eq!(cache.clear_all().await, Ok(90));
}

async fn reads_and_writes_work_while_a_slot_moves(secured: Arc<Mutex<Secured>>) {
    assert_reads_and_writes_work_while_a_slot_moves(&secured.lock().await.keys()).await;
}

async fn a_lease_moves_with_its_slot(secured: Arc<Mutex<Secured>>) {
    assert_a_lease_moves_with_its_slot(&secured.lock().await.keys()).await;
}

async fn a_value_is_computed_and_stored_in_a_slot_that_moves(secured: Arc<Mutex<Secured>>) {
    assert_a_value_is_computed_and_stored_in_a_slot_that_moves(&secured.lock().await.keys()).await;
}

async fn clears_in_a_slot_that_moves_reach_both_nodes_and_count_each_key_once(secured: Arc<Mutex<Secured>>) {
    let secured = secured.lock().await;
    assert_clears_in_a_slot_that_moves_reach_both_nodes_and_count_each_key_once(&secured.keys()).await;
}

async fn a_slot_that_has_moved_is_served_by_its_new_node(secured: Arc<Mutex<Secured>>) {
    assert_a_slot_that_has_moved_is_served_by_its_new_node(&secured.lock().await.keys()).await;
}

async fn an_agreed_failover_keeps_all_keys(secured: Arc<Mutex<Secured>>) {
    assert_a_failover_keeps_all_keys(&secured.lock().await.keys());
}

async fn wrong_credentials_are_refused_and_not_logged(secured: Arc<Mutex<Secured>>) {
    let secured = secured.lock().await;
    for refused in &secured.refused {
        let config = format!("{}{refused}", secured.cluster.cache("c"));
        let run = Larder::run("script").config(&config).env("LARDER_LOG", "trace").fail(1);
        assert!(run.stderr.contains("larder: cache `c`: "), "{}", run.stderr);
        assert!(!run.stderr.contains("s3cret"), "{}", run.stderr);
    }
}

/// Makes a test of each fact for each cluster. The facts of one cluster share it, one after the other; the failover has
/// a primary of its own.
macro_rules! over_every_secured_cluster {
    ($($name:ident: $start:expr,)+) => {
        $(
            mod $name {
                use super::*;

                static CLUSTER: Shared<Mutex<Secured>> = Shared::new();

                over_every_secured_cluster! { @facts $start;
                    keys_are_stored_read_and_cleared_on_all_nodes,
                    reads_and_writes_work_while_a_slot_moves,
                    a_lease_moves_with_its_slot,
                    a_value_is_computed_and_stored_in_a_slot_that_moves,
                    clears_in_a_slot_that_moves_reach_both_nodes_and_count_each_key_once,
                    a_slot_that_has_moved_is_served_by_its_new_node,
                    an_agreed_failover_keeps_all_keys,
                    wrong_credentials_are_refused_and_not_logged,
                }
            }
        )+
    };
    (@facts $start:expr; $($fact:ident,)+) => {
        $(
            #[tokio::test]
            async fn $fact() {
                if let Some(secured) = CLUSTER.get(|| $start) {
                    super::$fact(secured).await;
                }
            }
        )+
    };
}

over_every_secured_cluster! {
    tls_valkey: with_tls_and_a_password(Kind::Valkey, "127.0.0.1"),
    tls_redis: with_tls_and_a_password(Kind::Redis, "127.0.0.1"),
    tls_new_valkey_with_host_names: with_tls_and_a_password(Kind::ValkeyWithIfeq, "localhost"),
    user_valkey: with_a_restricted_user(Kind::Valkey),
    user_redis: with_a_restricted_user(Kind::Redis),
    user_new_valkey: with_a_restricted_user(Kind::ValkeyWithIfeq),
}
