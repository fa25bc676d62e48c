//! Mappings are cleared, whatever was written where.

#![allow(clippy::arithmetic_side_effects, reason = "the numbers are small")]

use proptest::prelude::*;

use super::*;

/// Enough for all that is looked at, and more.
const PAGES: usize = LOOKED_AT + AT_A_TIME;

fn mapping(pages: usize) -> Mapping {
    let mut mapping = Mapping::new(page_size(), pages * page_size()).unwrap();
    mapping.set_usable(pages * page_size()).unwrap();
    mapping
}

/// Writes a byte into the page.
fn write(mapping: &mut Mapping, page: usize, offset: usize) {
    assert!((page + 1) * page_size() <= mapping.usable && offset < page_size());
    // SAFETY: the byte can be used.
    unsafe { mapping.base().add(page * page_size() + offset).write_volatile(0xa5) };
}

/// The pages that have content.
fn pages_with_content(mapping: &Mapping, pages: &PageMap) -> Vec<usize> {
    let mut entries = vec![0; mapping.size / page_size() * ENTRY];
    pages.read(mapping.base().addr() / page_size(), &mut entries).unwrap();
    let entries = entries.as_chunks().0.iter().enumerate();
    entries.filter(|(_, entry)| has_content(**entry)).map(|(page, _)| page).collect()
}

/// Only the pages that have content are read: reading would give it to the others.
fn is_clear(mapping: &Mapping, pages: &PageMap) -> bool {
    pages_with_content(mapping, pages).into_iter().filter(|page| (page + 1) * page_size() <= mapping.usable).all(
        |page| {
            // SAFETY: the page can be used.
            let bytes = unsafe { std::slice::from_raw_parts(mapping.base().add(page * page_size()), page_size()) };
            bytes.iter().all(|byte| *byte == 0)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_that_was_written_is_left_and_no_more_is_kept_than_may_be(
        users in prop::collection::vec(
            (1..PAGES, prop::collection::vec((any::<prop::sample::Index>(), 0..4_096_usize), 0..60), 0..80_usize),
            1..4,
        ),
    ) {
        let pages = PageMap::open().unwrap();
        let mut mapping = mapping(PAGES);
        mapping.set_usable(0).unwrap();
        for (usable, written, max_kept) in users {
            mapping.set_usable(usable * page_size()).unwrap();
            for (page, offset) in written {
                write(&mut mapping, page.index(usable), offset);
            }
            let kept = mapping.clear(&pages, max_kept * page_size()).unwrap();
            prop_assert!(is_clear(&mapping, &pages));
            mapping.set_usable(PAGES * page_size()).unwrap();
            prop_assert!(is_clear(&mapping, &pages));
            prop_assert_eq!(kept, pages_with_content(&mapping, &pages).len() * page_size());
            prop_assert!(kept <= max_kept * page_size());
        }
    }

    #[test]
    fn of_a_stack_the_end_is_kept(written in prop::collection::vec((0..64_usize, 0..4_096_usize), 0..60), max_kept in 0..80_usize) {
        let pages = PageMap::open().unwrap();
        let mut mapping = mapping(64);
        for (page, offset) in written {
            write(&mut mapping, page, offset);
        }
        let kept = mapping.clear_but_end(max_kept * page_size()).unwrap();
        prop_assert!(is_clear(&mapping, &pages));
        let first = 64_usize.saturating_sub(max_kept);
        prop_assert_eq!(kept, (64 - first) * page_size());
        prop_assert_eq!(pages_with_content(&mapping, &pages), (first..64).collect::<Vec<_>>());
    }
}

#[test]
fn what_cannot_be_used_any_more_is_not_lost_from_the_count() {
    let pages = PageMap::open().unwrap();
    let mut mapping = mapping(8);
    (0..8).for_each(|page| write(&mut mapping, page, 0));
    assert_eq!(mapping.clear(&pages, usize::MAX).unwrap(), 8 * page_size());
    mapping.set_usable(page_size()).unwrap();
    assert_eq!(mapping.clear(&pages, usize::MAX).unwrap(), 8 * page_size());
    assert_eq!(mapping.clear(&pages, 3 * page_size()).unwrap(), 3 * page_size());
    assert_eq!(pages_with_content(&mapping, &pages), [0, 1, 2]);
}

#[test]
fn a_mapping_has_no_more_than_its_size() {
    let mut mapping = mapping(2);
    assert!(mapping.set_usable(2 * page_size() + 1).is_err() && mapping.set_usable(usize::MAX).is_err());
    assert_eq!(mapping.usable, 2 * page_size());
    assert!(Mapping::new(usize::MAX, 2).is_err() && Mapping::new(0, usize::MAX - page_size() + 1).is_err());
}

/// In swap, or on their way there, if there is any; else still in memory.
#[test]
fn pages_that_the_kernel_was_told_to_move_out_are_cleared() {
    let pages = PageMap::open().unwrap();
    let mut mapping = mapping(64);
    (0..64).for_each(|page| write(&mut mapping, page, 1));
    // SAFETY: it is this mapping.
    unsafe { mm::madvise(mapping.base.as_ptr(), mapping.usable, Advice::LinuxPageOut).unwrap() };
    assert_eq!(mapping.clear(&pages, usize::MAX).unwrap(), 64 * page_size());
    assert!(is_clear(&mapping, &pages));
}

/// Needs the right to write `/proc/sys/vm/compact_memory`, and swap to move pages out.
#[test]
#[ignore = "takes 20 s, and holds up the whole machine"]
fn while_the_kernel_moves_pages_nothing_is_left() {
    let pages = PageMap::open().unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let ordering = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(ordering) {
                std::fs::write("/proc/sys/vm/compact_memory", "1").unwrap();
            }
        });
        let mut mapping = mapping(64);
        let (begin, mut rounds, mut moved) = (std::time::Instant::now(), 0_u64, 0_u64);
        while begin.elapsed() < std::time::Duration::from_secs(20) {
            (0..64).for_each(|page| write(&mut mapping, page, 1));
            if rounds.is_multiple_of(16) {
                // SAFETY: it is this mapping.
                unsafe { mm::madvise(mapping.base.as_ptr(), mapping.usable, Advice::LinuxPageOut).unwrap() };
            }
            let mut entries = vec![0; 64 * ENTRY];
            pages.read(mapping.base().addr() / page_size(), &mut entries).unwrap();
            let elsewhere = |entry: &[u8; ENTRY]| u64::from_ne_bytes(*entry) >> 62 == 1;
            moved += entries.as_chunks().0.iter().filter(|entry| elsewhere(entry)).count() as u64;
            assert_eq!(mapping.clear(&pages, usize::MAX).unwrap(), 64 * page_size());
            assert!(is_clear(&mapping, &pages));
            rounds += 1;
        }
        is_over.store(true, ordering);
        println!("{rounds} rounds, {moved} pages that were in swap or on their way");
    });
}
