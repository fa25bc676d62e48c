//! Mappings that wait for their next user.

#![allow(clippy::arithmetic_side_effects, reason = "the numbers are small")]

use super::*;

fn idle(max: usize, max_kept: usize) -> Arc<Idle> {
    Idle::new(Clearing::Memory(PageMap::open().unwrap()), max, max_kept)
}

fn layout() -> (usize, usize) {
    (page_size(), 1 << 30)
}

/// Uses a mapping, whose first `written` pages are written.
fn used(idle: &Arc<Idle>, written: usize) -> Taken {
    let taken = idle.take(layout(), written * page_size()).unwrap();
    for page in 0..written {
        // SAFETY: the byte can be used.
        unsafe { taken.mapping.base().add(page * page_size()).write_volatile(1) };
    }
    taken
}

#[test]
fn a_mapping_is_used_again_and_is_clear() {
    let idle = idle(2, usize::MAX);
    let first = used(&idle, 3);
    let base = first.mapping.base();
    drop(first);
    let again = idle.take(layout(), 3 * page_size()).unwrap();
    assert_eq!(again.mapping.base(), base);
    // SAFETY: the bytes can be used.
    let bytes = unsafe { std::slice::from_raw_parts(base, 3 * page_size()) };
    assert!(bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn a_mapping_of_another_layout_is_not_taken() {
    let idle = idle(2, usize::MAX);
    drop(used(&idle, 1));
    let other = idle.take((0, 1 << 20), page_size()).unwrap();
    assert_eq!(idle.list().mappings.len(), 1);
    assert_eq!(other.mapping.layout(), (0, 1 << 20));
}

#[test]
fn no_more_mappings_wait_than_may() {
    let idle = idle(2, usize::MAX);
    let taken: Vec<_> = (0..5).map(|_| used(&idle, 1)).collect();
    drop(taken);
    assert_eq!(idle.list().mappings.len(), 2);
}

#[test]
fn all_together_keep_no_more_than_they_may() {
    let room = 10 * page_size();
    let idle = idle(20, room);
    for _ in 0..3 {
        let taken: Vec<_> = (0..8).map(|_| used(&idle, 3)).collect();
        drop(taken);
        let list = idle.list();
        assert_eq!(list.mappings.len(), 8);
        assert_eq!(list.mappings.iter().map(|waiting| waiting.kept).sum::<usize>(), room);
        assert_eq!(list.room, 0);
    }
}

#[test]
fn one_keeps_no_more_than_it_may() {
    let idle = idle(1, usize::MAX);
    drop(used(&idle, KEPT_MEMORY / page_size() + 10));
    assert_eq!(idle.list().mappings.first().unwrap().kept, KEPT_MEMORY);
}

#[test]
fn a_memory_is_zero_grows_in_place_and_not_beyond_what_is_reserved() {
    let provider = Provider(idle(1, usize::MAX));
    let ty = MemoryType::new(1, None);
    let new = |minimum| provider.new_memory(ty.clone(), minimum, None, Some(1 << 32), 32 << 20);
    let mut memory = new(1 << 16).unwrap();
    let base = memory.as_ptr();
    memory.grow_to(5 << 16).unwrap();
    assert_eq!((memory.byte_size(), memory.byte_capacity(), memory.as_ptr()), (5 << 16, 1 << 32, base));
    assert!(memory.grow_to((1 << 32) + 1).is_err());
    assert_eq!(memory.byte_size(), 5 << 16);
    assert!(new((1 << 32) + 1).is_err_and(|error| error.contains("more than")));
}

#[test]
fn a_stack_ends_at_its_top_and_begins_behind_its_guard() {
    let stacks = Provider(Idle::new(Clearing::Stack, 1, KEPT_STACK));
    let stack = stacks.new_stack(2 << 20, true).unwrap();
    assert_eq!(stack.range().len(), 2 << 20);
    assert_eq!(stack.range().end, stack.top().addr());
    assert_eq!(stack.guard_range().end.addr(), stack.range().start);
    // SAFETY: all of the range can be used.
    unsafe { stack.top().sub(1).write_volatile(1) };
    let top = stack.top();
    drop(stack);
    let stack = stacks.new_stack(2 << 20, true).unwrap();
    assert_eq!(stack.top(), top);
    // SAFETY: as above.
    assert_eq!(unsafe { stack.top().sub(1).read_volatile() }, 0);
}
