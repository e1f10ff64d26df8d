//! The relay's engine against a scripted host and hand-made segments, in virtual time.
//!
//! `world` holds one container's view of one connection; its numbers count from the first byte of each side, so that a
//! test reads like a transcript. `script` is the host: a test puts bytes into its sockets and takes bytes out. Every frame
//! that the engine sends is held against etherparse before a test sees it.

mod ending;
mod idle;
mod limits;
mod model;
mod opening;
mod published;
mod receiving;
mod script;
mod sending;
mod world;
mod x7;
