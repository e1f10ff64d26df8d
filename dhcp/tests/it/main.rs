//! Frames in, frames and journal lines out.

mod client;
mod client_lan;
mod client_replies;
mod client_world;
mod clients;
mod crash;
mod messages;
mod model;
mod replies;
mod reservations;
mod robustness;
mod rules;
mod world;
