//! `larder serve`: plugins that answer HTTP requests.

mod ending;
mod limits;
mod reload;
mod requests;
mod routes;
