//! Clusters whose nodes ask who comes, and speak TLS.

use larder_tests::{Authority, Cluster, Kind, Larder};

use super::{
    a_slot_on_its_way_is_served_from_both_sides, assert_all_is_well, assert_present, cache, session, set_all,
    work_until_all_is_well,
};
use crate::backends::{view, within};
use larder_tests::documents::rights_after;

/// Keys on all nodes, a slot that moves, a failover; and who may not come in.
async fn is_one_cache(cluster: Cluster, known: String, unknown: Vec<String>) {
    let plain = view(&cache(&cluster, &known).await);
    let keys: Vec<String> = (0..100).map(|n| format!("key{n}")).collect();
    set_all(&cluster, &plain, &keys).await;
    assert_present(&plain, &keys).await;
    assert_eq!(plain.clear_pattern("key?").await, Ok(10));
    assert_eq!(plain.clear_all().await, Ok(90));
    a_slot_on_its_way_is_served_from_both_sides(&cluster, &known).await;
    let others = tokio::task::spawn_blocking(move || {
        let mut session = session(&cluster, &format!("{known}on_outage = \"error\"\n"));
        assert_all_is_well(&mut session);
        cluster.fail_over(2);
        work_until_all_is_well(&mut session);
        session.succeed();
        for unknown in unknown {
            let config = format!("{}{unknown}", cluster.cache("c"));
            let run = Larder::run("script").config(&config).env("LARDER_LOG", "trace").fail(1);
            assert!(run.stderr.contains("larder: cache `c`: "), "{}", run.stderr);
            assert!(!run.stderr.contains("s3cret"), "{}", run.stderr);
        }
    });
    within(others).await.unwrap();
}

/// The nodes ask for a password and speak TLS, also among themselves. Their certificate is for this name, by which they
/// call each other where it is one.
async fn is_one_cache_over_tls_with_a_password(kind: Kind, name: &str) {
    let authority = Authority::new();
    let tls = authority.server_options(&authority.issue(name), false);
    let mut options = vec!["--requirepass", "s3cret-word", "--masterauth", "s3cret-word"];
    options.extend(["--tls-cluster", "yes", "--tls-replication", "yes"]);
    if name != "127.0.0.1" {
        options.extend(["--cluster-announce-hostname", name, "--cluster-preferred-endpoint-type", "hostname"]);
    }
    options.extend(tls.iter().map(String::as_str));
    let Some(cluster) = Cluster::start_with(kind, &options) else { return };
    let tls = format!("tls = true\nca_file = \"{}\"\n", authority.ca_file().display());
    let known = format!("{tls}password = \"s3cret-word\"\n");
    let unknown = ["", "password = \"s3cret-guess\"\n"].map(|password| format!("{tls}{password}"));
    is_one_cache(cluster, known, unknown.into()).await;
}

#[tokio::test]
async fn a_cluster_of_valkey_is_one_cache_over_tls_with_a_password() {
    is_one_cache_over_tls_with_a_password(Kind::Valkey, "127.0.0.1").await;
}

#[tokio::test]
async fn a_cluster_of_redis_is_one_cache_over_tls_with_a_password() {
    is_one_cache_over_tls_with_a_password(Kind::Redis, "127.0.0.1").await;
}

#[tokio::test]
async fn a_cluster_whose_nodes_have_names_is_one_cache_over_tls() {
    is_one_cache_over_tls_with_a_password(Kind::ValkeyWithIfeq, "localhost").await;
}

/// The user has the rights that the guide names, on the keys of the cache, and no others.
async fn is_one_cache_to_a_user_of_the_access_list(kind: Kind) {
    let rights =
        [rights_after("A user with restricted rights (ACL) needs"), rights_after("rights also needs")].concat();
    let mut options = vec!["--requirepass", "s3cret-word", "--masterauth", "s3cret-word"];
    options.extend(["--user", "worker", "on", ">s3cret-worker", "~cache:*", "resetchannels", "-@all"]);
    options.extend(rights.iter().map(String::as_str));
    let Some(cluster) = Cluster::start_with(kind, &options) else { return };
    let user = |name: &str, password: &str| format!("username = \"{name}\"\npassword = \"{password}\"\n");
    let unknown = [user("worker", "s3cret-word"), user("workex", "s3cret-worker"), String::new()];
    is_one_cache(cluster, user("worker", "s3cret-worker"), unknown.into()).await;
}

#[tokio::test]
async fn a_cluster_of_valkey_is_one_cache_to_a_user_of_the_access_list() {
    is_one_cache_to_a_user_of_the_access_list(Kind::Valkey).await;
}

#[tokio::test]
async fn a_cluster_of_redis_is_one_cache_to_a_user_of_the_access_list() {
    is_one_cache_to_a_user_of_the_access_list(Kind::Redis).await;
}

#[tokio::test]
async fn a_cluster_of_a_newer_valkey_is_one_cache_to_a_user_of_the_access_list() {
    is_one_cache_to_a_user_of_the_access_list(Kind::ValkeyWithIfeq).await;
}
