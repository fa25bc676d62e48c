//! Which kind of engine a component needs. Reads its types and canonical functions only, and no core module.

use wasmparser::{
    CanonicalFunction, CanonicalOption, Chunk, ComponentDefinedType, ComponentFuncType, ComponentType,
    ComponentTypeDeclaration, InstanceTypeDeclaration, Parser, Payload,
};

use crate::engine::EngineKind;

/// The kind of engine that the component needs. A file that cannot be parsed needs none: the compiler says what is wrong
/// with it.
pub(super) fn of(component: &[u8]) -> EngineKind {
    let mut parsers = vec![Parser::new(0)];
    let mut rest = component;
    while let Some(parser) = parsers.last_mut() {
        let Ok(Chunk::Parsed { consumed, payload }) = parser.parse(rest, true) else { break };
        rest = rest.get(consumed..).unwrap_or_default();
        match payload {
            // Skipped.
            Payload::ModuleSection { unchecked_range, .. } => {
                rest = rest.get(unchecked_range.len()..).unwrap_or_default();
            }
            Payload::ComponentSection { parser, .. } => parsers.push(parser),
            Payload::ComponentTypeSection(types)
                if types.clone().into_iter().flatten().any(|ty| is_concurrent_type(&ty)) =>
            {
                return EngineKind::Concurrent;
            }
            Payload::ComponentCanonicalSection(functions)
                if functions.clone().into_iter().flatten().any(|function| is_concurrent_function(&function)) =>
            {
                return EngineKind::Concurrent;
            }
            Payload::End(_) => drop(parsers.pop()),
            _ => {}
        }
    }
    EngineKind::Sequential
}

fn is_concurrent_type(ty: &ComponentType<'_>) -> bool {
    let is_async = |function: &ComponentFuncType<'_>| function.async_;
    match ty {
        ComponentType::Func(function) => is_async(function),
        ComponentType::Defined(ComponentDefinedType::Future(_) | ComponentDefinedType::Stream(_)) => true,
        ComponentType::Component(declarations) => declarations
            .iter()
            .any(|declaration| matches!(declaration, ComponentTypeDeclaration::Type(ty) if is_concurrent_type(ty))),
        ComponentType::Instance(declarations) => declarations
            .iter()
            .any(|declaration| matches!(declaration, InstanceTypeDeclaration::Type(ty) if is_concurrent_type(ty))),
        ComponentType::Defined(_) | ComponentType::Resource { .. } => false,
    }
}

fn is_concurrent_function(function: &CanonicalFunction) -> bool {
    match function {
        CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => {
            options.contains(&CanonicalOption::Async)
        }
        CanonicalFunction::ResourceNew { .. }
        | CanonicalFunction::ResourceDrop { .. }
        | CanonicalFunction::ResourceRep { .. } => false,
        // Tasks, streams, futures, threads.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(text: &str) -> EngineKind {
        of(&wat::parse_str(text).unwrap())
    }

    #[test]
    fn a_component_without_asynchronous_types_runs_on_the_sequential_engine() {
        assert_eq!(kind_of("(component)"), EngineKind::Sequential);
        let text = r#"(component
            (import "a:b/c@0.2.0" (instance (export "f" (func (param "x" u32) (result string)))))
            (core module $m (func (export "f") (result i32) i32.const 1))
            (core instance $i (instantiate $m))
            (func (export "f") (result u32) (canon lift (core func $i "f"))))"#;
        assert_eq!(kind_of(text), EngineKind::Sequential);
        assert_eq!(of(b"no component"), EngineKind::Sequential);
    }

    #[test]
    fn an_asynchronous_type_at_any_depth_needs_the_concurrent_engine() {
        for text in [
            r#"(component (import "f" (func async (result u32))))"#,
            r#"(component (import "a:b/c@0.3.0" (instance (export "f" (func async)))))"#,
            r#"(component (core module (func)) (component (component (import "f" (func async)))))"#,
            r#"(component (type (stream u8)))"#,
            r#"(component (type (instance (type (future)))))"#,
            r#"(component (core func (canon task.cancel)))"#,
        ] {
            assert_eq!(kind_of(text), EngineKind::Concurrent, "{text}");
        }
    }
}
