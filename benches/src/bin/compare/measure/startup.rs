//! How long it takes until a container has its way out.
//!
//! The container is there, and so are its outside and a server; a process in the container tries to connect. Then the
//! program is started, and the time taken until the first connection. tapswitch takes two commands for that, `up` and
//! `attach`, the second one as soon as the first says that it is ready.

use std::time::{Duration, UNIX_EPOCH};

use crate::results::Figures;
use crate::world::Peer;

use super::Measure;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn measure(measure: &Measure<'_>, peer: &Peer) -> Result<Figures, String> {
    let world = peer.bare_world(measure.options)?;
    let (server, addr) = world.server();
    let _server = measure.server(server, &["serve"])?;
    let client = measure.server(world.container(), &["reach", &addr.to_string()])?;
    let launched = world.launch()?;
    let reached = client.finish(LIMIT)?;
    let reached: u64 = reached.trim().parse().map_err(|_| format!("{reached} is no time"))?;
    let seconds = (UNIX_EPOCH + Duration::from_nanos(reached))
        .duration_since(launched.begun)
        .map_err(|_| "it was reached before it was started")?
        .as_secs_f64();
    Ok(Figures { value: seconds * 1e3, seconds, work: 1.0, ..Figures::default() })
}
