//! The filter as its users see it: tables of expressions and frames, what is said about a wrong one, an obvious model
//! beside the real thing, and tcpdump beside both.

mod errors;
mod frames;
mod laws;
mod libpcap;
mod model;
mod table;
