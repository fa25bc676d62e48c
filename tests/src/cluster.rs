//! A cluster of real servers on loopback. A test can stop nodes, fail over and migrate slots.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use redis::{Commands, Connection, Value};

use crate::ports::free_port;
use crate::{Kind, Server, wait_for};

/// The number of primaries. Each has one replica.
const PRIMARIES: usize = 3;

/// The first and last slot of each primary when the cluster starts.
const SLOTS: [(u16, u16); PRIMARIES] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// Three primaries with one replica each. Dropping this value kills all nodes.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes: first the initial primaries, then their replicas in the same order.
    pub nodes: Vec<Server>,
    ids: Vec<String>,
    /// The ports over which the nodes talk to each other.
    buses: Vec<String>,
}

impl Cluster {
    /// Starts a cluster and waits until it is healthy. Returns `None` if the server is not installed, as
    /// [`Server::start`] does.
    pub fn start(kind: Kind) -> Option<Self> {
        Self::start_with(kind, &[])
    }

    /// [`Cluster::start`] with additional options for each node.
    pub fn start_with(kind: Kind, extra: &[&str]) -> Option<Self> {
        let mut nodes = Vec::new();
        let mut buses = Vec::new();
        for _ in 0..PRIMARIES * 2 {
            let bus = free_port().to_string();
            // Far longer than a busy machine leaves a node without a processor: a replica takes over only in a test of that.
            let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--cluster-port", &bus];
            // A replica may take over however old its data is, and replication starts without a delay.
            let failover = ["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"];
            nodes.push(Server::start_with(kind, &[&options[..], &failover, extra].concat())?);
            buses.push(bus);
        }
        let mut cluster = Self { nodes, ids: Vec::new(), buses };
        cluster.form(&SLOTS);
        Some(cluster)
    }

    /// Makes another cluster of the same nodes, without keys, in which the slots of the first and the last primary are swapped.
    /// All nodes must be those of the start.
    pub fn form_anew(&mut self) {
        self.flush();
        for node in self.nodes.iter().rev() {
            wait_for("the node to be without keys", || {
                redis::cmd("CLUSTER").arg(&["RESET", "HARD"]).query::<()>(&mut node.client()).ok()
            });
        }
        let mut slots = SLOTS;
        slots.reverse();
        self.form(&slots);
    }

    fn form(&mut self, slots: &[(u16, u16)]) {
        self.ids = self.nodes.iter().map(|node| ask(&mut node.client(), &["CLUSTER", "MYID"])).collect();
        let cluster = &*self;
        for (index, node) in cluster.nodes.iter().enumerate() {
            let mut client = node.client();
            ask::<()>(&mut client, &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            if let Some((first, last)) = slots.get(index) {
                ask::<()>(&mut client, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            }
            let first = &cluster.nodes[0];
            ask::<()>(&mut client, &["CLUSTER", "MEET", "127.0.0.1", &first.port().to_string(), &cluster.buses[0]]);
        }
        wait_for("all nodes know each other", || {
            let knows_all = |node: &Server| {
                let nodes: String = ask(&mut node.client(), &["CLUSTER", "NODES"]);
                let has_name =
                    |line: &str| node.option("--cluster-announce-hostname").is_none_or(|name| line.contains(name));
                nodes.lines().count() == PRIMARIES * 2 && !nodes.contains("handshake") && nodes.lines().all(has_name)
            };
            cluster.nodes.iter().all(knows_all).then_some(())
        });
        for primary in 0..PRIMARIES {
            let mut replica = cluster.nodes[PRIMARIES + primary].client();
            ask::<()>(&mut replica, &["CLUSTER", "REPLICATE", &cluster.ids[primary]]);
        }
        cluster.wait_until_healthy();
    }

    /// Waits until all running nodes report `cluster_state:ok` and know the nodes of all slots, and each replica is connected to its
    /// primary.
    pub fn wait_until_healthy(&self) {
        wait_for("the cluster is healthy", || {
            let is_healthy = |node: &Server| {
                let Some(mut client) = node.try_client() else { return true };
                let state: String = ask(&mut client, &["CLUSTER", "INFO"]);
                let role: String = ask(&mut client, &["INFO", "replication"]);
                // A cluster without full coverage is in order before a node knows all slots.
                let is_ok = state.contains("cluster_state:ok") && state.contains("cluster_slots_assigned:16384");
                is_ok && (role.contains("role:master") || role.contains("link_status:up"))
            };
            self.nodes.iter().all(is_healthy).then_some(())
        });
    }

    /// The TOML of a cache on this cluster. It lists two of the nodes.
    pub fn cache(&self, name: &str) -> String {
        let kind = self.nodes[0].kind().type_name();
        let (first, second) = (self.nodes[1].port(), self.nodes[2].port());
        let host = self.nodes[0].option("--cluster-announce-hostname").unwrap_or("127.0.0.1");
        format!("[caches.{name}]\ntype = \"{kind}\"\ncluster = [\"{host}:{first}\", \"{host}:{second}\"]\n")
    }

    /// The output of `CLUSTER NODES` of each running node, for the message of a failed assertion.
    pub fn cluster_nodes(&self) -> String {
        let views = self.nodes.iter().filter_map(|node| {
            let view: String = ask(&mut node.try_client()?, &["CLUSTER", "NODES"]);
            Some(format!("\nCLUSTER NODES of {}:\n{view}", node.port()))
        });
        views.collect()
    }

    /// The slot of a key, from `CLUSTER KEYSLOT`.
    pub fn slot(&self, key: &str) -> u16 {
        let mut running = self.nodes.iter().filter_map(Server::try_client);
        ask(&mut running.next().expect("a node is running"), &["CLUSTER", "KEYSLOT", key])
    }

    /// The index of the node that owned a slot when the cluster started.
    pub fn initial_owner(&self, slot: u16) -> usize {
        SLOTS.iter().position(|(first, last)| (*first..=*last).contains(&slot)).unwrap()
    }

    /// Starts the migration of a slot. From then on new keys are stored on the target node.
    pub fn start_migration(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        ask::<()>(&mut self.nodes[to].client(), &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]]);
        ask::<()>(&mut self.nodes[from].client(), &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]]);
    }

    /// Migrates keys of a slot whose migration has started.
    pub fn migrate_keys(&self, from: usize, to: usize, keys: &[String]) {
        let mut command = redis::cmd("MIGRATE");
        command.arg("127.0.0.1").arg(self.nodes[to].port()).arg("").arg(0).arg(10_000);
        if let Some(password) = self.nodes[to].option("--requirepass") {
            command.arg("AUTH").arg(password);
        }
        command.arg("KEYS").arg(keys);
        command.exec(&mut self.nodes[from].client()).unwrap();
    }

    /// The keys of a slot that are stored on a node.
    pub fn keys_in_slot(&self, node: usize, slot: u16) -> Vec<String> {
        ask(&mut self.nodes[node].client(), &["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "100000"])
    }

    /// Finishes the migration of a slot, and waits until all nodes agree on its owner.
    ///
    /// A gossip message that a node sent before it received `SETSLOT` can still arrive at another node and revert that
    /// node's slot table. The command is therefore repeated on nodes that disagree. All nodes must also have received
    /// the new owner's configuration epoch: a node that has not could claim the slot with a lower epoch, and a late
    /// message would make that permanent.
    pub fn finish_migration(&self, slot: u16, from: usize, to: usize) {
        let others = self.primaries().into_iter().filter(|node| *node != from && *node != to);
        let primaries: Vec<usize> = [to, from].into_iter().chain(others).collect();
        let (number, id) = (slot.to_string(), &self.ids[to]);
        let assign = |node: usize| {
            let command = ["CLUSTER", "SETSLOT", &number, "NODE", id];
            redis::cmd(command[0]).arg(&command[1..]).query::<()>(&mut self.nodes[node].client())
        };
        primaries.iter().for_each(|node| assign(*node).unwrap());
        let agrees = |node: &Server| owner(&mut node.client(), slot).as_ref() == Some(id);
        wait_for("all nodes agree on the owner of a slot", || {
            for &node in primaries.iter().filter(|node| !agrees(&self.nodes[**node])) {
                let _retried_in_the_next_round = assign(node);
            }
            let epochs: BTreeSet<_> = self.nodes.iter().map(|node| epoch(&mut node.client(), id)).collect();
            (epochs.len() == 1 && self.nodes.iter().all(agrees)).then_some(())
        });
    }

    /// Asks the owner of a slot to move it to another node in one step, with its keys; again if that failed before. Needs
    /// Valkey 9.
    pub fn ask_to_move(&self, slot: u16, from: usize, to: usize) {
        let mut source = self.nodes[from].client();
        if owner(&mut source, slot).as_ref() == Some(&self.ids[from]) {
            let (slot, mut migrate) = (slot.to_string(), redis::cmd("CLUSTER"));
            migrate.arg(&["MIGRATESLOTS", "SLOTSRANGE", &slot, &slot, "NODE", &self.ids[to]]);
            let _refused_while_it_moves = migrate.query::<()>(&mut source);
        }
    }

    /// [`Cluster::ask_to_move`], and waits until all nodes agree on the owner.
    pub fn move_at_once(&self, slot: u16, from: usize, to: usize) {
        let id = &self.ids[to];
        let agrees = |node: &Server| owner(&mut node.client(), slot).as_ref() == Some(id);
        wait_for("all nodes agree on the owner of a slot", || {
            self.ask_to_move(slot, from, to);
            let epochs: BTreeSet<_> = self.nodes.iter().map(|node| epoch(&mut node.client(), id)).collect();
            (epochs.len() == 1 && self.nodes.iter().all(agrees)).then_some(())
        });
    }

    /// Assigns a slot to a node in its own table alone, whose claim then spreads to the others. The node takes it from an
    /// owner with a lower configuration epoch, such as an initial primary before it.
    pub fn start_claim(&self, slot: u16, node: usize) {
        let (mut client, slot) = (self.nodes[node].client(), slot.to_string());
        ask::<()>(&mut client, &["CLUSTER", "DELSLOTS", &slot]);
        ask::<()>(&mut client, &["CLUSTER", "ADDSLOTS", &slot]);
    }

    /// Returns a guard for a slot that a test moves. If the test fails, the guard gives the slot back to its initial
    /// owner, without keys, so that other tests can use the cluster.
    pub fn guard_slot(&self, slot: u16) -> SlotGuard<'_> {
        SlotGuard { cluster: self, slot }
    }

    /// Ends any migration of a slot, deletes the slot's keys, and gives the slot to its initial owner.
    fn reset_slot(&self, slot: u16) {
        let home = self.initial_owner(slot);
        let mut current = home;
        for node in self.primaries() {
            let mut client = self.nodes[node].client();
            for key in self.keys_in_slot(node, slot) {
                // A node that imports the slot serves its keys only after `ASKING`.
                ask::<()>(&mut client, &["ASKING"]);
                let _expired_meanwhile = redis::cmd("DEL").arg(&key).query::<()>(&mut client);
            }
            ask::<()>(&mut client, &["CLUSTER", "SETSLOT", &slot.to_string(), "STABLE"]);
            if owner(&mut client, slot).as_ref() == Some(&self.ids[node]) {
                current = node;
            }
        }
        if current != home {
            self.start_migration(slot, current, home);
            self.finish_migration(slot, current, home);
        }
    }

    /// The indices of the nodes that are primaries now.
    fn primaries(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| is_primary(&mut self.nodes[*node].client())).collect()
    }

    /// Fails over to the replica of a primary with `CLUSTER FAILOVER`, and waits until it has taken over. No write is lost.
    pub fn fail_over(&self, primary: usize) {
        self.take_over(PRIMARIES + primary);
    }

    /// Fails over to an initial primary after [`Cluster::fail_over`].
    pub fn fail_back(&self, primary: usize) {
        self.take_over(primary);
    }

    fn take_over(&self, replica: usize) {
        let mut replica = self.nodes[replica].client();
        let mut asked: Option<Instant> = None;
        wait_for("the replica has taken over", || {
            // The nodes give a failover up after 5 s, which a busy machine may need.
            if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(6)) {
                let _refused_by_a_primary = redis::cmd("CLUSTER").arg("FAILOVER").query::<()>(&mut replica);
                asked = Some(Instant::now());
            }
            is_primary(&mut replica).then_some(())
        });
        self.wait_until_healthy();
    }

    /// Waits until a node can start again from its file. The nodes of a new cluster learn of each other's shards one after the
    /// other, and Valkey before 8.1.2 refuses a file in which a replica has another shard than its primary.
    ///
    /// Source: <https://github.com/valkey-io/valkey/issues/2171>.
    pub fn wait_until_restartable(&self, node: usize) {
        let node = &self.nodes[node];
        wait_for("the node knows the shards of all nodes", || {
            ask::<()>(&mut node.client(), &["CLUSTER", "SAVECONFIG"]);
            let file = std::fs::read_to_string(node.folder().join("nodes.conf")).ok()?;
            shards_agree(&file).then_some(())
        });
    }

    /// Waits until the replica of a primary has become a primary.
    pub fn wait_for_takeover(&self, primary: usize) {
        wait_for("the replica has taken over", || {
            is_primary(&mut self.nodes[PRIMARIES + primary].client()).then_some(())
        });
        self.wait_until_healthy();
    }

    /// Removes all keys.
    pub fn flush(&self) {
        for node in &self.nodes {
            // A replica refuses the command, and receives the change from its primary.
            let _refused_by_replicas: Result<(), _> = node.client().flushall();
        }
    }
}

/// True if each replica in the file of a node has the shard of its primary. Redis before 7.2 knows no shards.
fn shards_agree(file: &str) -> bool {
    // Its id, address and shard, flags, and primary. A last line has the epochs.
    let nodes = file.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|node| node.len() >= 8);
    let nodes: Vec<_> = nodes.collect();
    let shard = |node: &Vec<&str>| node[1].split(',').find(|part| part.starts_with("shard-id=")).map(str::to_owned);
    let shards: HashMap<_, _> = nodes.iter().map(|node| (node[0], shard(node))).collect();
    nodes.iter().all(|node| shards.get(node[3]).is_none_or(|of_primary| shards[node[0]] == *of_primary))
}

/// Resets a slot if the test fails. See [`Cluster::guard_slot`].
#[derive(Debug)]
pub struct SlotGuard<'a> {
    cluster: &'a Cluster,
    slot: u16,
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A second panic that leaves `drop` would abort the process, and with it all other tests.
            let reset = catch_unwind(AssertUnwindSafe(|| self.cluster.reset_slot(self.slot)));
            if reset.is_err() {
                eprintln!("slot {} cannot be reset; other tests of this cluster may fail", self.slot);
            }
        }
    }
}

/// The id of the slot's owner according to a node. The port would not identify it: over a Unix socket, `CLUSTER SLOTS`
/// reports the port for plain TCP even if the nodes use TLS.
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

/// Whether the node of the client is a primary.
fn is_primary(client: &mut Connection) -> bool {
    let role: Vec<Value> = ask(client, &["ROLE"]);
    matches!(&role[0], Value::BulkString(role) if role == b"master")
}

/// The configuration epoch of a node `id`, as known to the node of the client.
fn epoch(client: &mut Connection, id: &str) -> Option<u64> {
    let nodes: String = ask(client, &["CLUSTER", "NODES"]);
    let line = nodes.lines().find(|line| line.starts_with(id))?;
    line.split(' ').nth(6)?.parse().ok()
}

fn ask<T: redis::FromRedisValue>(client: &mut Connection, command: &[&str]) -> T {
    redis::cmd(command[0]).arg(&command[1..]).query(client).unwrap()
}
