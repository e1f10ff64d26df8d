//! The whole translator: against a model, against each requirement, and by many threads at once.

mod attacks;
mod icmp;
mod limits;
mod mappings;
mod model;
mod stress;
mod tcp;
mod udp;
mod world;
