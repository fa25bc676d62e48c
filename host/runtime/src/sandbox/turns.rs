//! Fair turns: how runs share the worker threads when more of them compute than there are threads.
//!
//! A run is polled only while it has a turn, and there are as many turns as worker threads. Without contention a turn is
//! free. Under contention a run that has used its turn waits for the next one, and the plugins take turns one after the
//! other: a plugin with many computing requests delays another plugin by one turn, not by one turn for each request.

// Decision: docs/decisions/0065-plugins-take-turns-on-the-worker-threads.md

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A turn of this length has ended because the plugin computes and not because it waits.
const LONG_TURN: Duration = Duration::from_millis(4);

/// The turns of one runtime.
#[derive(Debug)]
pub(crate) struct Turns {
    #[cfg(feature = "serve")]
    count: usize,
    state: Mutex<State>,
}

/// No code runs while this is locked but the moves of turns: a waker is called and dropped after the lock is released,
/// because it may hold the last reference to a task, and so a [`Turn`].
#[derive(Debug)]
struct State {
    free: usize,
    /// True if the last turn was long: plugins compute, and the order of the worker threads' queues is not fair.
    is_contended: bool,
    /// The plugins with waiting runs, the next one first. Each has its runs in the order of their arrival.
    plugins: VecDeque<(Arc<str>, VecDeque<Waiter>)>,
    /// The runs that have got a turn by waiting, and have not begun it.
    granted: Vec<u64>,
    last_waiter: u64,
}

/// A run that waits for a turn.
#[derive(Debug)]
struct Waiter {
    id: u64,
    waker: Waker,
}

/// The turn of one run among the [`Turns`]: it has it, or waits for it.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    plugin: Arc<str>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The run asks for a turn at its next poll.
    Idle,
    /// The run waits, by this number.
    Waiting(u64),
    /// The run has got a turn, and lets other tasks go first once.
    Yielding,
    /// The run has a turn.
    Running,
}

impl Turns {
    /// Creates the turns of a runtime with this number of worker threads.
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        let count = workers.max(1);
        let state =
            State { free: count, is_contended: false, plugins: VecDeque::new(), granted: Vec::new(), last_waiter: 0 };
        Arc::new(Self {
            #[cfg(feature = "serve")]
            count,
            state: Mutex::new(state),
        })
    }

    /// The turn of one run of a plugin.
    pub(crate) fn turn(self: &Arc<Self>, plugin: &Arc<str>) -> Turn {
        Turn { turns: Arc::clone(self), plugin: Arc::clone(plugin), stage: Stage::Idle }
    }

    /// How many there are.
    #[cfg(feature = "serve")]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// True if a run that asks now gets its turn at once.
    #[cfg(feature = "serve")]
    pub(crate) fn are_free(&self) -> bool {
        let state = self.state();
        state.free > 0 && !state.is_contended
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self) {
        let next = self.state().give_back();
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

impl State {
    /// Grants the turn to the first run of the next plugin, which then is the last in the order of plugins. Returns the
    /// run's waker.
    fn give_back(&mut self) -> Option<Waker> {
        let next = self.plugins.pop_front().and_then(|(plugin, mut runs)| {
            let next = runs.pop_front();
            if !runs.is_empty() {
                self.plugins.push_back((plugin, runs));
            }
            next
        });
        match next {
            Some(Waiter { id, waker }) => {
                self.granted.push(id);
                Some(waker)
            }
            None => {
                self.free = self.free.saturating_add(1);
                None
            }
        }
    }

    fn add(&mut self, plugin: &Arc<str>, waker: &Waker) -> u64 {
        self.last_waiter = self.last_waiter.wrapping_add(1);
        let waiter = Waiter { id: self.last_waiter, waker: waker.clone() };
        match self.plugins.iter_mut().find(|(name, _)| name == plugin) {
            Some((_, runs)) => runs.push_back(waiter),
            None => self.plugins.push_back((Arc::clone(plugin), VecDeque::from([waiter]))),
        }
        self.last_waiter
    }

    /// True if the run has got its turn, which it then begins.
    fn begin(&mut self, id: u64) -> bool {
        let position = self.granted.iter().position(|granted| *granted == id);
        position.map(|position| self.granted.swap_remove(position)).is_some()
    }

    /// Replaces the waker of a waiting run. Returns the old one, to be dropped without the lock.
    fn wake_by(&mut self, id: u64, waker: &Waker) -> Option<Waker> {
        let mut waiters = self.plugins.iter_mut().flat_map(|(_, runs)| runs);
        let waiter = waiters.find(|waiter| waiter.id == id && !waiter.waker.will_wake(waker))?;
        Some(std::mem::replace(&mut waiter.waker, waker.clone()))
    }

    /// Removes a waiting run. It is returned to be dropped without the lock.
    fn remove(&mut self, id: u64) -> Option<Waiter> {
        let (plugin, run) = self.plugins.iter().enumerate().find_map(|(plugin, (_, runs))| {
            let run = runs.iter().position(|waiter| waiter.id == id)?;
            Some((plugin, run))
        })?;
        let (_, runs) = self.plugins.get_mut(plugin)?;
        let removed = runs.remove(run);
        if runs.is_empty() {
            self.plugins.remove(plugin);
        }
        removed
    }
}

impl Turn {
    /// Takes a turn, or waits for one.
    pub(crate) fn poll_begin(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.stage {
            Stage::Idle => {
                let mut state = self.turns.state();
                // A free turn means that no run waits.
                let Some(free) = state.free.checked_sub(1) else {
                    self.stage = Stage::Waiting(state.add(&self.plugin, context.waker()));
                    return Poll::Pending;
                };
                state.free = free;
                if state.is_contended {
                    // The runs behind this one in the queue come to wait here, where the plugins are in order.
                    self.stage = Stage::Yielding;
                    drop(state);
                    go_last(context);
                    return Poll::Pending;
                }
            }
            Stage::Waiting(id) => {
                let mut state = self.turns.state();
                if !state.begin(id) {
                    let old = state.wake_by(id, context.waker());
                    drop(state);
                    drop(old);
                    return Poll::Pending;
                }
                drop(state);
                // Otherwise the worker thread that gave the turn back would poll this run next, without a look at the
                // network and at the tasks in its queue.
                self.stage = Stage::Yielding;
                go_last(context);
                return Poll::Pending;
            }
            Stage::Yielding | Stage::Running => {}
        }
        self.stage = Stage::Running;
        Poll::Ready(())
    }

    /// Ends a turn that took this long. A run that has computed, and would go on, waits at once for its next turn: in the
    /// queue of its worker thread it would be ahead of runs that begin.
    pub(crate) fn end(&mut self, context: &Context<'_>, took: Duration, is_pending: bool) {
        let is_long = took >= LONG_TURN;
        let mut state = self.turns.state();
        state.is_contended = is_long;
        self.stage = match is_long && is_pending {
            true => Stage::Waiting(state.add(&self.plugin, context.waker())),
            false => Stage::Idle,
        };
        let next = state.give_back();
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

/// Has the task polled again after all others in its worker thread's queue, and after a look at the network.
fn go_last(context: &mut Context<'_>) {
    let pending = pin!(tokio::task::yield_now()).poll(context);
    debug_assert!(pending.is_pending(), "a task yields once");
}

impl Drop for Turn {
    /// A run that is dropped while it waits leaves the order. One with a turn gives it back, also after a panic.
    fn drop(&mut self) {
        match self.stage {
            Stage::Idle => {}
            Stage::Waiting(id) => {
                let mut state = self.turns.state();
                if state.begin(id) {
                    drop(state);
                    self.turns.give_back();
                } else {
                    let removed = state.remove(id);
                    drop(state);
                    drop(removed);
                }
            }
            Stage::Yielding | Stage::Running => self.turns.give_back(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn run_of(turns: &Arc<Turns>, plugin: &str) -> Turn {
        turns.turn(&Arc::from(plugin))
    }

    /// Polls until the run has its turn or waits.
    fn takes_turn(run: &mut Turn) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let first = run.poll_begin(&mut context);
        first.is_ready() || (run.stage == Stage::Yielding && run.poll_begin(&mut context).is_ready())
    }

    fn end_turn(run: &mut Turn) {
        run.end(&Context::from_waker(Waker::noop()), Duration::ZERO, true);
    }

    #[test]
    fn there_are_as_many_turns_as_workers() {
        let turns = Turns::new(2);
        let mut runs = [run_of(&turns, "a"), run_of(&turns, "a"), run_of(&turns, "a")];
        assert_eq!(runs.each_mut().map(takes_turn), [true, true, false]);
        end_turn(&mut runs[0]);
        assert!(takes_turn(&mut runs[2]));
    }

    #[test]
    fn a_plugin_with_many_runs_delays_another_by_one_turn() {
        let turns = Turns::new(1);
        let mut running = run_of(&turns, "busy");
        assert!(takes_turn(&mut running));
        let mut busy: Vec<_> = (0..100).map(|_| run_of(&turns, "busy")).collect();
        assert!(!busy.iter_mut().any(takes_turn));
        let mut quiet = run_of(&turns, "quiet");
        assert!(!takes_turn(&mut quiet));
        end_turn(&mut running);
        assert!(!takes_turn(&mut quiet));
        assert!(takes_turn(&mut busy[0]), "the busy plugin waited first");
        end_turn(&mut busy[0]);
        assert!(takes_turn(&mut quiet));
    }

    #[test]
    fn a_run_that_would_go_on_waits_behind_the_others() {
        let turns = Turns::new(1);
        let (mut first, mut second) = (run_of(&turns, "a"), run_of(&turns, "a"));
        assert!(takes_turn(&mut first));
        let context = Context::from_waker(Waker::noop());
        first.end(&context, LONG_TURN, true);
        assert!(!takes_turn(&mut second), "the turn is the first run's again");
        assert!(takes_turn(&mut first));
        first.end(&context, LONG_TURN, true);
        assert!(!takes_turn(&mut first));
        assert!(takes_turn(&mut second));
    }

    #[test]
    fn a_run_that_is_dropped_leaves_the_order_or_gives_its_turn_back() {
        let turns = Turns::new(1);
        let [mut first, mut second, mut third] = ["a", "b", "c"].map(|plugin| run_of(&turns, plugin));
        assert!(takes_turn(&mut first));
        assert!(!takes_turn(&mut second) && !takes_turn(&mut third));
        // Dropped while it waits, and after the turn was granted.
        drop(second);
        end_turn(&mut first);
        drop(third);
        assert!(takes_turn(&mut first));
        drop(first);
        let state = turns.state();
        assert_eq!((state.free, state.plugins.len(), state.granted.len()), (1, 0, 0));
    }

    #[test]
    fn a_waiting_run_is_woken_by_its_last_waker() {
        let turns = Turns::new(1);
        let (mut first, mut second) = (run_of(&turns, "a"), run_of(&turns, "a"));
        assert!(takes_turn(&mut first));
        let wakes = [Arc::new(Wakes::default()), Arc::new(Wakes::default())];
        for wakes in &wakes {
            assert!(second.poll_begin(&mut Context::from_waker(&Arc::clone(wakes).into())).is_pending());
        }
        end_turn(&mut first);
        assert_eq!(wakes.map(|wakes| wakes.0.load(Ordering::Relaxed)), [0, 1]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_turn_is_lost_or_doubled_while_runs_come_go_and_are_dropped() {
        let turns = Turns::new(3);
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let mut runs = tokio::task::JoinSet::new();
        for run in 0..200_usize {
            let (turns, running, most) = (Arc::clone(&turns), Arc::clone(&running), Arc::clone(&most));
            runs.spawn(async move {
                for round in 0..50_usize {
                    let mut own = run_of(&turns, ["a", "b", "c"][run % 3]);
                    let turn = std::future::poll_fn(|context| {
                        std::task::ready!(own.poll_begin(context));
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::hint::spin_loop();
                        running.fetch_sub(1, Ordering::SeqCst);
                        own.end(context, LONG_TURN * u32::from(round % 3 == 0), true);
                        Poll::Ready(())
                    });
                    let mut turn = pin!(turn);
                    if (run + round) % 5 == 0 {
                        // Dropped after one poll, whatever it has come to.
                        let _once = std::future::poll_fn(|context| Poll::Ready(turn.as_mut().poll(context))).await;
                    } else {
                        turn.await;
                    }
                }
            });
        }
        while let Some(ended) = runs.join_next().await {
            ended.unwrap();
        }
        assert!(most.load(Ordering::SeqCst) <= 3);
        let state = turns.state();
        assert_eq!((state.free, state.plugins.len(), state.granted.len()), (3, 0, 0));
    }
}
