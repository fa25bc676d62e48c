//! The node addresses in the configuration.

use larder_tests::{Cluster, Kind, Larder, Server};

use crate::backends::over_every_kind;

/// A cache whose cluster has these ports.
fn cache(kind: Kind, ports: &[u16]) -> String {
    let nodes: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    format!("[caches.c]\ntype = \"{}\"\ncluster = [{}]\n", kind.type_name(), nodes.join(", "))
}

/// A port that no server listens on.
const DEAD: u16 = 1;

async fn a_single_server_is_refused(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let run = Larder::run("script").config(&cache(kind, &[server.port()])).fail(1);
    assert!(run.error_line().ends_with("it is no node of a cluster"), "{}", run.stderr);
}

async fn a_dead_node_is_left_out_if_another_one_answers(kind: Kind) {
    let Some(cluster) = Cluster::start(kind) else { return };
    let check = Larder::new(["check"]).config(&cache(kind, &[DEAD, cluster.nodes[2].port()])).succeed();
    assert!(check.stdout.contains(kind.name()) && check.stdout.contains("cluster 127.0.0.1:1,"), "{check:#?}");
}

async fn the_message_for_a_cluster_without_a_live_node_names_its_address(kind: Kind) {
    let run = Larder::run("script").config(&cache(kind, &[DEAD])).fail(1);
    let complaint = run.error_line();
    assert!(complaint.contains("cache `c`: cannot reach") && complaint.contains("127.0.0.1:1"), "{}", run.stderr);
}

over_every_kind! {
    a_single_server_is_refused,
    a_dead_node_is_left_out_if_another_one_answers,
    the_message_for_a_cluster_without_a_live_node_names_its_address,
}
