//! The resources that a plugin holds: cache handles, vacancies and handles for compare-and-swap, each limited in number.

use std::sync::Arc;

use super::ctx::{LarderCtx, Quota};
use crate::cache::{ScopedCache, Vacancy, Version};

/// A cache handle of a plugin.
#[derive(Debug)]
pub(super) struct OpenCache(pub(super) Arc<ScopedCache>);

/// A vacancy of a plugin, with its cache. `None` if the request that took it has ended: a fill then stores nothing.
#[derive(Debug)]
pub(super) struct HeldVacancy(pub(super) Option<(Arc<ScopedCache>, Vacancy)>);

/// A handle of a plugin for a compare-and-swap: what it has seen of a key. `None` if the key had no value.
#[derive(Debug)]
pub(super) struct HeldCas {
    pub(super) cache: Arc<ScopedCache>,
    pub(super) key: Box<str>,
    pub(super) seen: Option<Version>,
}

/// A kind of resource of which a plugin instance holds a limited number.
pub(super) trait LimitedResource: Send + 'static {
    /// The plural, for the error message.
    const NAME: &str;

    /// The quota of the instance.
    fn quota(ctx: &mut LarderCtx) -> &mut Quota;
}

impl LimitedResource for OpenCache {
    const NAME: &str = "open handles";

    fn quota(ctx: &mut LarderCtx) -> &mut Quota {
        &mut ctx.handles
    }
}

impl LimitedResource for HeldVacancy {
    const NAME: &str = "vacancies";

    fn quota(ctx: &mut LarderCtx) -> &mut Quota {
        &mut ctx.vacancies
    }
}

/// It has a key, as a vacancy has, and so it counts as one.
impl LimitedResource for HeldCas {
    const NAME: &str = "vacancies and handles for compare-and-swap";

    fn quota(ctx: &mut LarderCtx) -> &mut Quota {
        &mut ctx.vacancies
    }
}
