//! The `user` uplink: each flow of a container becomes a socket of the host, so no privilege is needed.
//!
//! # Theory of operation
//!
//! The gateway hands over each frame that leaves the network, checked and with its TTL lowered. A frame of a known flow
//! goes to that flow's socket. A frame that begins one is looked at by [`Policy`]: where may this container go, and
//! where does that lead (a question to the gateway's DNS port leads to the host's resolver). Then the host opens a socket
//! and the flow is put into a bounded table ([`Limits`]); what is refused is said to the container as a router would.
//!
//! * TCP: the SYN is answered only after the host connected, so "connected" in the container means connected. See
//!   `tcp` for the engine.
//! * UDP: one socket for each address and port of a container, whichever hosts it talks to; datagrams keep their
//!   boundaries. See `datagrams`.
//! * ICMP echo: an unprivileged ping socket of the host really sends the request; its reply, or the error that came
//!   instead, goes back. Nothing is forged.
//!
//! The engine does no I/O: [`Host`] is a trait. [`Sockets`] is the real one, over mio; a test scripts its own. Frames for
//! containers go to an [`Emit`](tapswitch_wire::Emit). [`Relay::poll`] is called once a turn: it sends owed acknowledgements (not one a
//! frame), continues flows whose share of the last turn was used up, and lets timers end.
//!
//! What is changed on the way, because a socket is between: of TCP, the TTL of what comes from the outside is 64, and its
//! type of service and TCP options do not pass; urgent data stays in line. IP options never pass. Fragments are put
//! together (see `reassembly`), and what is larger than the MTU of the network is cut.
#![forbid(unsafe_code)]

mod budget;
mod datagrams;
mod flow;
mod host;
mod pages;
mod policy;
mod publish;
mod quote;
mod reassembly;
mod relay;
mod sockets;
mod streams;

pub use budget::Limits;
pub use flow::{FlowId, FlowView};
pub use host::{
    Arrival, Batch, DatagramHost, Host, HostError, HostIcmp, Marks, Proto, Readiness, Reported, Run, StreamHost,
};
pub use policy::{Allow, DNS_PORT, Policy};
pub use publish::Publication;
pub use relay::{Config, Refusal, Relay};
pub use sockets::{IsOwn, Lent, ReceiveMany, SendMany, SendRoom, SetDontFragment, SetPeekOffset, Sockets};
