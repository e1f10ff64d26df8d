//! Frames in, frames and journal lines out.

mod clients;
mod crash;
mod messages;
mod model;
mod replies;
mod reservations;
mod robustness;
mod rules;
mod world;
