//! How much an instance of a component has from its beginning, as far as its core modules tell.

use wasmparser::{ComponentInstance, ElementItems, ElementSectionReader, Instance, Payload};

/// The data that the memories of a small component begin with, in bytes. It is copied for each instance, which takes longer
/// than mapping it if the instance does not use all of it.
const MAX_DATA: usize = 1 << 20;

/// The functions, globals, memories and tables of which an instance of a small component has pointers, 32 bytes each.
const MAX_ITEMS: usize = 16 << 10;

/// The core instances of a small component. Those that are linked from several parts have about five of each.
const MAX_CORE_INSTANCES: usize = 64;

/// What a component and its core modules have.
#[derive(Debug, Default)]
pub(super) struct Size {
    data: usize,
    items: usize,
    core_instances: usize,
    components: usize,
    component_instances: usize,
}

impl Size {
    /// Adds what this part of a component or a core module has.
    pub(super) fn add(&mut self, payload: &Payload<'_>) {
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let items = match payload {
            Payload::DataSection(section) => {
                self.data = self.data.saturating_add(section.range().len());
                return;
            }
            Payload::ComponentSection { .. } => {
                self.components = self.components.saturating_add(1);
                return;
            }
            Payload::InstanceSection(section) => {
                let instances = section.clone().into_iter().flatten();
                let new = instances.filter(|instance| matches!(instance, Instance::Instantiate { .. })).count();
                self.core_instances = self.core_instances.saturating_add(new);
                return;
            }
            Payload::ComponentInstanceSection(section) => {
                let instances = section.clone().into_iter().flatten();
                let new =
                    instances.filter(|instance| matches!(instance, ComponentInstance::Instantiate { .. })).count();
                self.component_instances = self.component_instances.saturating_add(new);
                return;
            }
            Payload::ImportSection(section) => count(section.count()),
            Payload::TableSection(section) => count(section.count()),
            Payload::MemorySection(section) => count(section.count()),
            Payload::GlobalSection(section) => count(section.count()),
            Payload::ExportSection(section) => count(section.count()),
            Payload::ElementSection(section) => elements(section),
            _ => return,
        };
        self.items = self.items.saturating_add(items);
    }

    /// Not if a component may be instantiated more than once, and so its core modules.
    pub(super) fn is_small(&self, max_core_instances: usize) -> bool {
        self.data <= MAX_DATA
            && self.items <= MAX_ITEMS
            && self.core_instances <= MAX_CORE_INSTANCES.min(max_core_instances)
            && self.component_instances <= self.components
    }
}

/// The number of elements in all segments.
fn elements(section: &ElementSectionReader<'_>) -> usize {
    let elements = section.clone().into_iter().flatten().map(|element| match element.items {
        ElementItems::Functions(functions) => functions.count(),
        ElementItems::Expressions(_, expressions) => expressions.count(),
    });
    elements.map(|count| usize::try_from(count).unwrap_or(usize::MAX)).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::super::of;
    use super::*;

    fn is_small(module: &str) -> bool {
        of(&wat::parse_str(format!("(component (core module {module}))")).unwrap(), usize::MAX).is_small
    }

    fn data(bytes: usize) -> String {
        format!(r#"(memory 32) (func (drop (i32.const 1))) (data (i32.const 0) "{}")"#, "a".repeat(bytes))
    }

    #[test]
    fn a_component_with_much_data_is_large() {
        assert!(is_small(&data(MAX_DATA - 100)));
        assert!(!is_small(&data(MAX_DATA)));
    }

    #[test]
    fn the_data_of_all_its_modules_counts() {
        let half = data(MAX_DATA / 2);
        let text = format!("(component (core module {half}) (component (core module {half})))");
        assert!(!of(&wat::parse_str(text).unwrap(), usize::MAX).is_small);
    }

    #[test]
    fn a_component_with_many_globals_or_elements_is_large() {
        let elements = |count| format!("(table 1 funcref) (func $f) (elem declare func {})", "$f ".repeat(count));
        assert!(is_small(&elements(MAX_ITEMS - 1)));
        assert!(!is_small(&elements(MAX_ITEMS)));
        let expressions = format!("(elem declare funcref {})", "(ref.null func)".repeat(MAX_ITEMS + 1));
        assert!(!is_small(&expressions));
        assert!(!is_small(&"(global i32 (i32.const 1))".repeat(MAX_ITEMS + 1)));
    }

    #[test]
    fn a_component_with_more_core_instances_than_may_be_is_large() {
        let text = |count| format!("(component (core module $m) {})", "(core instance (instantiate $m))".repeat(count));
        let is_small = |count, max| of(&wat::parse_str(text(count)).unwrap(), max).is_small;
        assert!(is_small(3, 3));
        assert!(!is_small(4, 3));
        assert!(!is_small(MAX_CORE_INSTANCES + 1, usize::MAX));
    }

    #[test]
    fn a_component_of_which_a_part_is_instantiated_twice_is_large() {
        let text = |count| format!("(component (component $c) {})", "(instance (instantiate $c))".repeat(count));
        let is_small = |count| of(&wat::parse_str(text(count)).unwrap(), usize::MAX).is_small;
        assert_eq!([1, 2].map(is_small), [true, false]);
    }
}
