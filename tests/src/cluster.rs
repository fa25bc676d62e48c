//! A cluster of real servers on loopback, whose nodes fail and whose slots move when a test says so.

use std::collections::BTreeSet;

use redis::{Commands, Connection, Value};

use crate::server::free_port;
use crate::{Kind, Server, wait_for};

/// How many primaries there are; each has one replica.
const PRIMARIES: usize = 3;

/// The slots of each primary, first and last.
const SLOTS: [(u16, u16); PRIMARIES] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// Three primaries and a replica of each, which end with this value.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes: first the primaries, then their replicas in the same order, as it all began.
    pub nodes: Vec<Server>,
    ids: Vec<String>,
}

impl Cluster {
    /// Starts a cluster, or none where the server is not installed.
    pub fn start(kind: Kind) -> Option<Self> {
        Self::start_with(kind, &[])
    }

    /// [`Cluster::start`] with more options for each node.
    pub fn start_with(kind: Kind, more: &[&str]) -> Option<Self> {
        let mut nodes = Vec::new();
        let mut buses = Vec::new();
        for _ in 0..PRIMARIES * 2 {
            let bus = free_port().to_string();
            let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", &bus];
            // Replicas need not wait for others to be better, or data to be fresh.
            let failover = ["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"];
            nodes.push(Server::start_with(kind, &[&options[..], &failover, more].concat())?);
            buses.push(bus);
        }
        let ids = nodes.iter().map(|node| ask(&mut node.client(), &["CLUSTER", "MYID"])).collect();
        let cluster = Self { nodes, ids };
        for (place, node) in cluster.nodes.iter().enumerate() {
            let mut client = node.client();
            ask::<()>(&mut client, &["CLUSTER", "SET-CONFIG-EPOCH", &(place + 1).to_string()]);
            if let Some((first, last)) = SLOTS.get(place) {
                ask::<()>(&mut client, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            }
            let first = &cluster.nodes[0];
            ask::<()>(&mut client, &["CLUSTER", "MEET", "127.0.0.1", &first.port().to_string(), &buses[0]]);
        }
        wait_for("the nodes to know each other", || {
            let knows_all = |node: &Server| {
                let nodes: String = ask(&mut node.client(), &["CLUSTER", "NODES"]);
                let has_name =
                    |line: &str| node.option("--cluster-announce-hostname").is_none_or(|name| line.contains(name));
                nodes.lines().count() == PRIMARIES * 2 && !nodes.contains("handshake") && nodes.lines().all(has_name)
            };
            cluster.nodes.iter().all(knows_all).then_some(())
        });
        for place in 0..PRIMARIES {
            let mut replica = cluster.nodes[PRIMARIES + place].client();
            ask::<()>(&mut replica, &["CLUSTER", "REPLICATE", &cluster.ids[place]]);
        }
        cluster.wait_until_whole();
        Some(cluster)
    }

    /// Waits until all nodes that run say that the cluster is whole, and each replica follows its primary.
    pub fn wait_until_whole(&self) {
        wait_for("the cluster to be whole", || {
            let is_whole = |node: &Server| {
                let Some(mut client) = node.try_client() else { return true };
                let state: String = ask(&mut client, &["CLUSTER", "INFO"]);
                let role: String = ask(&mut client, &["INFO", "replication"]);
                state.contains("cluster_state:ok") && (role.contains("role:master") || role.contains("link_status:up"))
            };
            self.nodes.iter().all(is_whole).then_some(())
        });
    }

    /// A cache's table in TOML, that names two of the nodes.
    pub fn cache(&self, name: &str) -> String {
        let kind = self.nodes[0].kind().type_name();
        let (one, two) = (self.nodes[1].port(), self.nodes[2].port());
        let host = self.nodes[0].option("--cluster-announce-hostname").unwrap_or("127.0.0.1");
        format!("[caches.{name}]\ntype = \"{kind}\"\ncluster = [\"{host}:{one}\", \"{host}:{two}\"]\n")
    }

    /// What each node that runs says of all, for the message of a test that fails.
    pub fn views(&self) -> String {
        let views = self.nodes.iter().filter_map(|node| {
            let view: String = ask(&mut node.try_client()?, &["CLUSTER", "NODES"]);
            Some(format!("\nas {} says:\n{view}", node.port()))
        });
        views.collect()
    }

    /// The slot of a key, as the servers say.
    pub fn slot(&self, key: &str) -> u16 {
        ask(&mut self.nodes[0].client(), &["CLUSTER", "KEYSLOT", key])
    }

    /// The primary that a slot began with.
    pub fn first_owner(&self, slot: u16) -> usize {
        SLOTS.iter().position(|(first, last)| (*first..=*last).contains(&slot)).unwrap()
    }

    /// Begins to move a slot: from now on new keys go to the other node.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        ask::<()>(&mut self.nodes[to].client(), &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]]);
        ask::<()>(&mut self.nodes[from].client(), &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]]);
    }

    /// Moves keys of a slot that is on its way.
    pub fn move_keys(&self, from: usize, to: usize, keys: &[String]) {
        let mut command = redis::cmd("MIGRATE");
        command.arg("127.0.0.1").arg(self.nodes[to].port()).arg("").arg(0).arg(10_000);
        if let Some(password) = self.nodes[to].option("--requirepass") {
            command.arg("AUTH").arg(password);
        }
        command.arg("KEYS").arg(keys);
        command.exec(&mut self.nodes[from].client()).unwrap();
    }

    /// The keys of a slot that a node has.
    pub fn keys_of(&self, node: usize, slot: u16) -> Vec<String> {
        ask(&mut self.nodes[node].client(), &["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "100000"])
    }

    /// Ends a move, and waits until all nodes know.
    ///
    /// What a node said before it was told may still be on its way to another, and undo what that one was told. So
    /// those that disagree are told again. And all must have heard of the epoch with which the slot was taken: a node that
    /// has not would take it back with a lower one, and what is on its way would undo that for good.
    pub fn end_move(&self, slot: u16, from: usize, to: usize) {
        let others = (0..PRIMARIES).filter(|node| *node != from && *node != to);
        let primaries: Vec<usize> = [to, from].into_iter().chain(others).collect();
        let (number, id) = (slot.to_string(), &self.ids[to]);
        let tell = |node: usize| {
            let command = ["CLUSTER", "SETSLOT", &number, "NODE", id];
            redis::cmd(command[0]).arg(&command[1..]).query::<()>(&mut self.nodes[node].client())
        };
        primaries.iter().for_each(|node| tell(*node).unwrap());
        let agrees = |node: &Server| owner(&mut node.client(), slot).as_ref() == Some(id);
        wait_for("the nodes to agree where a slot is", || {
            for &node in primaries.iter().filter(|node| !agrees(&self.nodes[**node])) {
                let _asked_again_next_time = tell(node);
            }
            let epochs: BTreeSet<_> = self.nodes.iter().map(|node| epoch(&mut node.client(), id)).collect();
            (epochs.len() == 1 && self.nodes.iter().all(agrees)).then_some(())
        });
    }

    /// Makes the replica of a primary the primary, in agreement, and waits for it.
    pub fn fail_over(&self, primary: usize) {
        let mut replica = self.nodes[PRIMARIES + primary].client();
        ask::<()>(&mut replica, &["CLUSTER", "FAILOVER"]);
        self.wait_for_takeover(primary);
    }

    /// Waits until the replica of a primary has taken over.
    pub fn wait_for_takeover(&self, primary: usize) {
        wait_for("the replica to take over", || {
            let mut replica = self.nodes[PRIMARIES + primary].client();
            let role: Vec<Value> = ask(&mut replica, &["ROLE"]);
            matches!(&role[0], Value::BulkString(role) if role == b"master").then_some(())
        });
        self.wait_until_whole();
    }

    /// Removes all keys.
    pub fn flush(&self) {
        for node in &self.nodes {
            // A replica refuses, and follows its primary.
            let _replica: Result<(), _> = node.client().flushall();
        }
    }
}

/// The id of the primary that has a slot, as a node says. Its port is not asked: through a socket nodes say that for plain
/// TCP.
fn owner(client: &mut Connection, slot: u16) -> Option<String> {
    let ranges: Vec<Vec<Value>> = ask(client, &["CLUSTER", "SLOTS"]);
    let range = ranges.iter().find(|range| match (&range[0], &range[1]) {
        (Value::Int(first), Value::Int(last)) => (*first..=*last).contains(&i64::from(slot)),
        _ => false,
    });
    match range.map(|range| &range[2]) {
        Some(Value::Array(node)) => Some(redis::from_redis_value_ref(&node[2]).unwrap()),
        _ => None,
    }
}

/// The epoch of a node's claims, as a node has heard of it.
fn epoch(client: &mut Connection, id: &str) -> Option<u64> {
    let nodes: String = ask(client, &["CLUSTER", "NODES"]);
    let line = nodes.lines().find(|line| line.starts_with(id))?;
    line.split(' ').nth(6)?.parse().ok()
}

fn ask<T: redis::FromRedisValue>(client: &mut Connection, command: &[&str]) -> T {
    redis::cmd(command[0]).arg(&command[1..]).query(client).unwrap()
}
