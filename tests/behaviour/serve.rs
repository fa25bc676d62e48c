//! `larder serve`: plugins that answer HTTP requests.

mod ending;
mod limits;
mod requests;
mod routes;
