//! Faults of the line and of servers, while calls go on.

mod line;
mod load;
mod relay;
mod states;
