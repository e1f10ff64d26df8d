//! The whole network in virtual time: real TCP/IP hosts on cables of memory, the switch, the gateway, the address service
//! and the relay, and an outside that is a model.
//!
//! ```text
//! station (smoltcp) -- cable -- fault -- Network<Outside> -- sockets that are a model -- services outside
//! ```
//!
//! `world` owns the clock. A turn of the loop takes ten microseconds; when nothing moves, the clock jumps to the next
//! deadline of anybody, so two hours of silence cost nothing and no test sleeps. `station` is a container's stack,
//! `outside` is [`tapswitch_relay::Host`] and what lies behind it, with a latency of its own. Every frame that the network
//! sends is held against etherparse. A test that fails prints the last frames, one line each, and the flows. `packet` has
//! a world of its own, of raw frames and a packet uplink.

mod explain;
mod lan;
mod limits;
mod lost;
mod outside;
mod packet;
mod refusals;
mod relay_datagrams;
mod relay_tcp;
mod slow;
mod station;
mod timers;
mod trace;
mod world;
