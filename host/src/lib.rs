//! Larder.
pub mod cache;
