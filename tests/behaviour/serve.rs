//! `larder serve`: plugins that answer HTTP requests.

mod ending;
mod limits;
mod outgoing;
mod reload;
mod requests;
mod routes;
mod shared;
