//! What the control thread asks of the poll thread: a bounded channel of commands, each with a place for its answer.

use std::os::fd::OwnedFd;

use tokio::sync::oneshot;

use super::worker::{Dropped, Events, Figures, Wanted, Watch};
use crate::api::{
    ArpView, AttachOffer, AttachRequest, AttachTap, ExplainRequest, ExplainView, FdbView, FlowFilter, FlowView,
    JourneyView, LeaseView, NetworkView, PortView, Published, Spec, StatsView, UplinkDevice, UplinkOffer,
};

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<T>;

/// Why a command was refused. The variant decides the HTTP status, the text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such network, port or name.
    #[error("{0}")]
    NotFound(String),
    /// The name or the address is taken.
    #[error("{0}")]
    Conflict(String),
    /// No address is left, or a limit is reached.
    #[error("{0}")]
    Full(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// A command. An optional network name narrows a listing; one that does not exist is refused.
#[derive(Debug)]
pub enum Command {
    /// Reserves a port and an address, for as long as the holder of the offer lives.
    Reserve(AttachRequest, Reply<Result<AttachOffer, Refusal>>),
    /// Makes a reserved port (network, name) work with this TAP.
    Attach {
        /// The network of the offer.
        network: String,
        /// The name of the offer.
        name: String,
        /// What the client says of it.
        tap: AttachTap,
        /// The queues of its TAP, at least one.
        queues: Vec<OwnedFd>,
        /// The port, or why not.
        reply: Reply<Result<PortView, Refusal>>,
    },
    /// Gives a reserved port back that was never attached.
    Cancel {
        /// The network of the offer.
        network: String,
        /// The name of the offer.
        name: String,
    },
    /// Removes a port by its container's name.
    Detach(String, Reply<Result<(), Refusal>>),
    /// Lists networks.
    Networks(Reply<Vec<NetworkView>>),
    /// Lists ports.
    Ports(Option<String>, Reply<Result<Vec<PortView>, Refusal>>),
    /// Lists FDB entries.
    Fdb(Option<String>, Reply<Result<Vec<FdbView>, Refusal>>),
    /// Lists neighbours.
    Arp(Option<String>, Reply<Result<Vec<ArpView>, Refusal>>),
    /// Lists leases.
    Leases(Option<String>, Reply<Result<Vec<LeaseView>, Refusal>>),
    /// Lists flows.
    Flows(FlowFilter, Reply<Result<Vec<FlowView>, Refusal>>),
    /// Ends flows; says how many.
    Flush(FlowFilter, Reply<Result<u64, Refusal>>),
    /// Publishes ports of a container until it ends, all of them or none. Says what is published by this.
    Publish {
        /// The container's name.
        name: String,
        /// At least one.
        specs: Vec<Spec>,
        /// With the ports that were picked.
        reply: Reply<Result<Vec<Published>, Refusal>>,
    },
    /// Ends what of a container is published and named by one of these, and the flows that used it. A specification that
    /// names nothing is refused, and then all stays.
    Unpublish {
        /// The container's name.
        name: String,
        /// At least one.
        specs: Vec<Spec>,
        /// What is published no longer.
        reply: Reply<Result<Vec<Published>, Refusal>>,
    },
    /// Asks which device the uplink of a network wants. Refused if it wants none, or has one that works.
    WantedUplink(String, Reply<Result<UplinkOffer, Refusal>>),
    /// Gives a network the device of its uplink.
    Uplink {
        /// The network.
        network: String,
        /// What the client says of it.
        about: UplinkDevice,
        /// The device.
        fd: OwnedFd,
        /// The network as it is now.
        reply: Reply<Result<NetworkView, Refusal>>,
    },
    /// Lists drops.
    Drops(Option<String>, Reply<Result<Vec<Dropped>, Refusal>>),
    /// The figures for `/metrics`.
    Metrics(Reply<Figures>),
    /// Listens to what happens, of one network or all.
    Events(Option<String>, Reply<Result<Events, Refusal>>),
    /// Tells the journey of the next frame that this container sends, of this protocol (`tcp`, `udp`, `icmp` or `arp`) if
    /// one is named. The answer comes when the frame has passed; a refusal, and the listening, come before any later
    /// command's answer.
    Journey {
        /// The container's name.
        name: String,
        /// What the frame carries.
        proto: Option<String>,
        /// The journey, or why there will be none.
        reply: Reply<Result<JourneyView, Refusal>>,
    },
    /// Explains what would happen to a packet.
    Explain(Box<ExplainRequest>, Reply<Result<ExplainView, Refusal>>),
    /// Watches frames as they pass.
    Trace(Wanted, Reply<Result<Watch, Refusal>>),
    /// The daemon's figures.
    Stats(Reply<StatsView>),
    /// Ends the poll thread.
    Stop,
}
