//! The relay's datagrams against a scripted host, in virtual time.
//!
//! `script` is the host: it notes what is sent and hands out what a test puts into its sockets. `world` sends the frames of
//! containers and reads what they get, after a port without offloads has cut it, held against etherparse.

mod errors;
mod laws;
mod mapping;
mod publish;
mod room;
mod script;
mod shapes;
mod timers;
mod world;
