//! The daemon's side of handing descriptors over.
//!
//! *Attaching*: reserve, offer, take the TAP, and give the reservation back if anything goes wrong.
//!
//! | state | waits for | at most | leaves it by |
//! |---|---|---|---|
//! | reserved | the connection's upgrade | [`PATIENCE`] | the `101` is out: *offered*; else *cancelled* |
//! | offered | [`AttachTap`] with a descriptor for each queue | [`PATIENCE`] | it came: *attaching*; end, nonsense or silence: *cancelled* |
//! | attaching | the poll thread | | *attached*, or refused: *cancelled* |
//! | attached | | | the client is gone before it could be told: detached again |
//!
//! All of it runs in one task that outlives the HTTP request, so that a client which disappears at any point cannot
//! take the clean-up with it. A reservation ends exactly once: by an `Attach` that succeeds or by a `Cancel`; a refused
//! `Attach` leaves it to the `Cancel` that follows.
//!
//! *Uplinks*: say which device is wanted, take it, give it to the network. Nothing is reserved, so nothing is given back;
//! of two clients that open a device for one network, the second is refused by the poll thread.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tapswitch_link::pass;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::command::{Command, Refusal};
use super::control::{Control, Gone};
use crate::api::{
    AttachOffer, AttachRequest, AttachResult, AttachTap, NetworkView, PortView, UplinkDevice, UplinkOffer, UplinkResult,
};

/// How long a client may take for its next step.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The longest line that a client may send.
const MAX_LINE: usize = 4096;

/// Whether there is an offer, for the HTTP answer.
pub(crate) type Reserved = Result<(), Refusal>;

/// Reserves, says on `reserved` whether that worked, and then carries the hand-over through on the upgraded stream.
pub(crate) async fn attach(
    control: Control,
    request: AttachRequest,
    upgrade: OnUpgrade,
    reserved: oneshot::Sender<Result<Reserved, Gone>>,
) {
    let offer = match control.ask(|reply| Command::Reserve(request, reply)).await {
        Ok(Ok(offer)) => offer,
        refused => {
            // Nobody listens if the client has gone, which is no matter: nothing is reserved.
            let _ = reserved.send(refused.map(|answer| answer.map(drop)));
            return;
        }
    };
    let outcome = match reserved.send(Ok(Ok(()))) {
        Ok(()) => hand_over(&control, &offer, upgrade).await,
        Err(_) => Err("the client has gone".into()),
    };
    let (network, name) = (offer.network, offer.name);
    match outcome {
        Ok(()) => tracing::info!("{name} attached to {network}"),
        Err(why) => {
            tracing::info!("{name} was not attached to {network}: {why}");
            if control.tell(Command::Cancel { network, name }).await.is_err() {
                tracing::debug!("the switch has stopped, and the reservation with it");
            }
        }
    }
}

/// From the offer to a working port. An error means that the reservation must be given back.
async fn hand_over(control: &Control, offer: &AttachOffer, upgrade: OnUpgrade) -> Result<(), String> {
    let mut stream = in_time("the upgrade", async { take_stream(upgrade).await }).await?;
    in_time("the offer", write_line(&mut stream, offer)).await?;
    let (tap, queues) = match in_time("the TAP", receive::<AttachTap>(&stream, offer.queues)).await {
        Ok(received) => received,
        Err(why) => return refuse(&mut stream, why, AttachResult::Refused).await,
    };
    let (network, name) = (offer.network.clone(), offer.name.clone());
    let port: Result<PortView, String> =
        match control.ask(|reply| Command::Attach { network, name, tap, queues, reply }).await {
            Ok(answer) => answer.map_err(|refusal| refusal.to_string()),
            Err(gone) => Err(gone.to_string()),
        };
    let port = match port {
        Ok(port) => port,
        Err(why) => return refuse(&mut stream, why, AttachResult::Refused).await,
    };
    let name = port.name.clone();
    if let Err(why) = in_time("the result", write_line(&mut stream, &AttachResult::Attached(port))).await {
        // The port is the client's business no longer: it would not know of it, and its container may never start.
        tracing::info!("{name} is detached again: {why}");
        if let Ok(Err(refusal)) = control.ask(|reply| Command::Detach(name, reply)).await {
            tracing::debug!("and was gone already: {refusal}");
        }
    }
    Ok(())
}

/// Asks which device is wanted, says on `wanted` whether one is, and then takes it on the upgraded stream.
pub(crate) async fn uplink(
    control: Control,
    network: String,
    upgrade: OnUpgrade,
    wanted: oneshot::Sender<Result<Reserved, Gone>>,
) {
    let offer = match control.ask(|reply| Command::WantedUplink(network, reply)).await {
        Ok(Ok(offer)) => offer,
        refused => {
            // Nobody listens if the client has gone, which is no matter.
            let _ = wanted.send(refused.map(|answer| answer.map(drop)));
            return;
        }
    };
    let outcome = match wanted.send(Ok(Ok(()))) {
        Ok(()) => take_uplink(&control, &offer, upgrade).await,
        Err(_) => Err("the client has gone".into()),
    };
    match outcome {
        // The poll thread has said more of it.
        Ok(device) => tracing::debug!("network {} took {device}", offer.network),
        // Whoever tried was told, and says so.
        Err(why) => tracing::debug!("network {} got no uplink: {why}", offer.network),
    }
}

/// From the offer to a working uplink. Says which device it is.
async fn take_uplink(control: &Control, offer: &UplinkOffer, upgrade: OnUpgrade) -> Result<String, String> {
    let mut stream = in_time("the upgrade", async { take_stream(upgrade).await }).await?;
    in_time("the offer", write_line(&mut stream, offer)).await?;
    let (about, fd) = match in_time("the device", receive::<UplinkDevice>(&stream, 1)).await {
        Ok((about, mut fds)) => (about, fds.remove(0)),
        Err(why) => return refuse(&mut stream, why, UplinkResult::Refused).await,
    };
    let (network, device) = (offer.network.clone(), format!("{} {}", about.kind, about.name));
    let taken: Result<NetworkView, String> =
        match control.ask(|reply| Command::Uplink { network, about, fd, reply }).await {
            Ok(answer) => answer.map_err(|refusal| refusal.to_string()),
            Err(gone) => Err(gone.to_string()),
        };
    match taken {
        Ok(network) => {
            if let Err(why) = in_time("the result", write_line(&mut stream, &UplinkResult::Taken(network))).await {
                tracing::debug!("the client could not be told that the uplink works: {why}");
            }
            Ok(device)
        }
        Err(why) => refuse(&mut stream, why, UplinkResult::Refused).await,
    }
}

/// Tells the client why not, if it is still there, and passes the reason on.
async fn refuse<T, R: serde::Serialize>(
    stream: &mut UnixStream,
    why: String,
    as_result: impl FnOnce(String) -> R,
) -> Result<T, String> {
    if let Err(unsaid) = in_time("the refusal", write_line(stream, &as_result(why.clone()))).await {
        tracing::debug!("the client could not be told that {why}: {unsaid}");
    }
    Err(why)
}

async fn in_time<T, E: ToString>(what: &str, step: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(PATIENCE, step).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("{what} took longer than {} s", PATIENCE.as_secs())),
    }
}

/// The bare stream under the HTTP connection.
async fn take_stream(upgrade: OnUpgrade) -> Result<UnixStream, String> {
    let upgraded = upgrade.await.map_err(|error| format!("the connection ended before the offer: {error}"))?;
    let parts = upgraded
        .downcast::<TokioIo<UnixStream>>()
        .map_err(|_| "the connection is no unix socket, over which a descriptor could come")?;
    // What was read with the request may have had a descriptor beside it that is lost now.
    if !parts.read_buf.is_empty() {
        return Err("the client sent something before it had the offer".into());
    }
    Ok(parts.io.into_inner())
}

async fn write_line(stream: &mut UnixStream, line: &impl serde::Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    stream.write_all(&text).await
}

/// One line with descriptors beside it: at least one, and no more than `most`.
async fn receive<T: serde::de::DeserializeOwned>(
    stream: &UnixStream,
    most: usize,
) -> Result<(T, Vec<OwnedFd>), String> {
    let mut line: Vec<u8> = Vec::new();
    let mut received = Vec::new();
    let mut chunk = [0; MAX_LINE];
    while !line.contains(&b'\n') {
        let (len, mut fds) = stream
            .async_io(Interest::READABLE, || pass::recv_fds(stream.as_fd(), &mut chunk))
            .await
            .map_err(|error| format!("the client's descriptor could not be received: {error}"))?;
        if len == 0 {
            return Err("the client went away before it handed a descriptor over".into());
        }
        line.extend(chunk.iter().take(len));
        received.append(&mut fds);
        if received.len() > most {
            return Err(format!("the client sent more descriptors than the offer allows, which is {most}"));
        }
        if line.len() > MAX_LINE {
            return Err(format!("the client sent more than {MAX_LINE} bytes where one line was expected"));
        }
    }
    let about =
        serde_json::from_slice(&line).map_err(|error| format!("the client's answer to the offer is wrong: {error}"))?;
    if received.is_empty() {
        return Err("the client sent no descriptor with its answer to the offer".into());
    }
    Ok((about, received))
}
