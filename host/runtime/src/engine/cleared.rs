//! Linear memories and stacks of instances that are cleared and used again.

// Decision: docs/decisions/0111-small-components-have-memories-of-our-own.md

#![allow(unsafe_code, reason = "wasmtime relies on those who provide its memories and stacks")]

use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::param::page_size;
use wasmtime::{Config, LinearMemory, MemoryCreator, MemoryType, StackCreator, StackMemory};

use super::mapping::{Mapping, PageMap};
use super::pool::KEPT_STACK;

/// How much of all idle memories of an engine together stays in memory, in bytes.
const KEPT_MEMORIES: usize = 32 << 20;

/// How much of one idle memory does at most, in bytes.
const KEPT_MEMORY: usize = 2 << 20;

/// Lets an engine take its memories and stacks from here, and keeps those of up to `instances` idle instances.
///
/// # Errors
///
/// If the system does not tell which pages have content.
pub(super) fn provide(config: &mut Config, instances: usize) -> io::Result<()> {
    let memories = Clearing::Memory(PageMap::open()?);
    config.with_host_memory(Arc::new(Provider(Idle::new(memories, instances, KEPT_MEMORIES))));
    let stacks = instances.saturating_mul(KEPT_STACK);
    config.with_host_stack(Arc::new(Provider(Idle::new(Clearing::Stack, instances, stacks))));
    Ok(())
}

/// Mappings that wait for their next user. All are clear.
#[derive(Debug)]
struct Idle {
    clearing: Clearing,
    /// How many wait at most.
    max: usize,
    list: Mutex<List>,
}

#[derive(Debug)]
struct List {
    mappings: Vec<Waiting>,
    /// How many bytes more may stay in memory.
    room: usize,
}

#[derive(Debug)]
struct Waiting {
    mapping: Mapping,
    /// How much of it is in memory, in bytes.
    kept: usize,
}

/// How a mapping is cleared.
#[derive(Debug)]
enum Clearing {
    /// What was used may be anywhere.
    Memory(PageMap),
    /// What was used is at the end.
    Stack,
}

impl Clearing {
    fn max_kept(&self) -> usize {
        match self {
            Self::Memory(_) => KEPT_MEMORY,
            Self::Stack => KEPT_STACK,
        }
    }

    fn clear(&self, mapping: &mut Mapping, max_kept: usize) -> io::Result<usize> {
        match self {
            Self::Memory(pages) => mapping.clear(pages, max_kept),
            Self::Stack => mapping.clear_but_end(max_kept),
        }
    }
}

impl Idle {
    fn new(clearing: Clearing, max: usize, max_kept: usize) -> Arc<Self> {
        let list = List { mappings: Vec::new(), room: max_kept };
        Arc::new(Self { clearing, max, list: Mutex::new(list) })
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a mapping of this layout, of which `usable` bytes can be used, all zero.
    fn take(self: &Arc<Self>, layout: (usize, usize), usable: usize) -> io::Result<Taken> {
        let mut mapping = match self.list().pop(layout) {
            Some(mapping) => mapping,
            None => Mapping::new(layout.0, layout.1)?,
        };
        mapping.set_usable(usable)?;
        Ok(Taken { mapping: ManuallyDrop::new(mapping), of: Arc::clone(self) })
    }

    /// Clears a mapping and keeps it for its next user. One that cannot be cleared is unmapped.
    fn put_back(&self, mut mapping: Mapping) {
        let Some(reserved) = self.list().reserve(self.max, self.clearing.max_kept()) else { return };
        let cleared = self.clearing.clear(&mut mapping, reserved);
        let mut list = self.list();
        let kept = cleared.as_ref().map_or(0, |kept| *kept);
        list.room = list.room.saturating_add(reserved).saturating_sub(kept);
        if cleared.is_ok() {
            list.mappings.push(Waiting { mapping, kept });
        }
    }
}

impl List {
    /// The one of this layout that has waited for the shortest time: its pages are the likeliest to be in a processor's
    /// cache.
    fn pop(&mut self, layout: (usize, usize)) -> Option<Mapping> {
        let index = self.mappings.iter().rposition(|waiting| waiting.mapping.layout() == layout)?;
        let Waiting { mapping, kept } = self.mappings.remove(index);
        self.room = self.room.saturating_add(kept);
        Some(mapping)
    }

    /// Reserves up to `wanted` bytes of the room for a mapping that is to wait here. `None` if enough mappings do.
    fn reserve(&mut self, max: usize, wanted: usize) -> Option<usize> {
        if self.mappings.len() >= max {
            return None;
        }
        let reserved = self.room.min(wanted);
        self.room = self.room.saturating_sub(reserved);
        Some(reserved)
    }
}

/// A mapping that an instance uses.
struct Taken {
    mapping: ManuallyDrop<Mapping>,
    of: Arc<Idle>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: it is taken once, here, and not used after it.
        let mapping = unsafe { ManuallyDrop::take(&mut self.mapping) };
        self.of.put_back(mapping);
    }
}

/// Provides the memories or the stacks of an engine.
struct Provider(Arc<Idle>);

// SAFETY: a memory has zeros, does not move, and is between as many bytes that cannot be used as wasmtime asks for.
unsafe impl MemoryCreator for Provider {
    fn new_memory(
        &self,
        _ty: MemoryType,
        minimum: usize,
        _maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let reserved = reserved.unwrap_or(minimum);
        let behind = reserved.checked_add(guard).filter(|_| minimum <= reserved);
        let behind = behind.ok_or_else(|| format!("a memory begins with {minimum} bytes, more than {reserved}"))?;
        let taken = self.0.take((guard, behind), minimum).map_err(|error| format!("no room for a memory: {error}"))?;
        Ok(Box::new(Memory { taken, size: minimum, reserved }))
    }
}

/// The linear memory of an instance.
struct Memory {
    taken: Taken,
    /// Its size, in bytes.
    size: usize,
    /// How far it may grow, in bytes.
    reserved: usize,
}

// SAFETY: the bytes up to its size can be used, and no page after them.
unsafe impl LinearMemory for Memory {
    fn byte_size(&self) -> usize {
        self.size
    }

    fn byte_capacity(&self) -> usize {
        self.reserved
    }

    fn grow_to(&mut self, size: usize) -> wasmtime::Result<()> {
        if size > self.reserved {
            return Err(wasmtime::Error::msg(format!("a memory has at most {} bytes", self.reserved)));
        }
        self.taken.mapping.set_usable(size)?;
        self.size = size;
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.taken.mapping.base()
    }
}

// SAFETY: a stack has zeros, begins and ends with a page, and is behind a page that cannot be used.
unsafe impl StackCreator for Provider {
    fn new_stack(&self, size: usize, _zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        let guard = page_size();
        let size = size.checked_next_multiple_of(guard).unwrap_or(size);
        let taken = self.0.take((guard, size), size)?;
        Ok(Box::new(Stack { taken, size, guard }))
    }
}

/// The stack on which an instance runs.
struct Stack {
    taken: Taken,
    /// Its size, in bytes.
    size: usize,
    /// How many bytes before it cannot be used.
    guard: usize,
}

// SAFETY: all of the range can be used, and nothing of the guard.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        self.taken.mapping.base().wrapping_byte_add(self.size)
    }

    fn range(&self) -> Range<usize> {
        let start = self.taken.mapping.base().addr();
        start..start.saturating_add(self.size)
    }

    fn guard_range(&self) -> Range<*mut u8> {
        let start = self.taken.mapping.base();
        start.wrapping_byte_sub(self.guard)..start
    }
}

#[cfg(test)]
mod tests;
