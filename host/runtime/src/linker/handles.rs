//! The resources that a plugin holds: cache handles and vacancies, each limited in number.

use std::sync::Arc;

use super::ctx::{LarderCtx, Quota};
use crate::cache::{ScopedCache, Vacancy};

/// A cache handle of a plugin.
#[derive(Debug)]
pub(super) struct OpenCache(pub(super) Arc<ScopedCache>);

/// A vacancy of a plugin, with its cache. `None` if the request that took it has ended: a fill then stores nothing.
#[derive(Debug)]
pub(super) struct HeldVacancy(pub(super) Option<(Arc<ScopedCache>, Vacancy)>);

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
