//! The control API from the client's side: one connection, one typed call per route.
//!
//! Calls block. The runtime below them has no thread of its own, so a client's process stays single-threaded, which the
//! child that enters a container's namespaces relies on.

use std::fmt;
use std::future::{self, Future};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};
use tapswitch_link::pass;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::api::{
    ATTACH_PROTOCOL, ArpView, AttachOffer, AttachRequest, AttachResult, AttachTap, DropView, ErrorBody, EventLine,
    ExplainRequest, ExplainView, FdbView, FlowFilter, FlowView, Flushed, JourneyView, LeaseView, NetworkView, PortView,
    PublishRequest, Published, Spec, StatsView, TraceLine, TraceRequest, UPLINK_PROTOCOL, UplinkDevice, UplinkOffer,
    UplinkResult, Version,
};
use crate::error::Error;

/// How long the daemon may take to answer: longer than it gives any request itself.
const PATIENCE: Duration = Duration::from_secs(15);
/// The largest answer: a hundred thousand flows fit.
const MAX_ANSWER: usize = 64 << 20;
/// The longest line of the hand-over.
const MAX_LINE: u64 = 64 << 10;

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    /// Dropped after what runs on it.
    runtime: Runtime,
}

impl Client {
    /// Connects to the daemon that listens there.
    pub fn connect(socket: &Path) -> Result<Client, Error> {
        let shown = socket.display();
        let stream = dial(socket, PATIENCE).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::failed(format!(
                "the daemon that listens on {shown} took no connection within {} s; is it stopped?",
                PATIENCE.as_secs()
            )),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NoDaemon(format!(
                "no daemon listens on {shown}; start one with `tapswitch up`, or say where one listens with --socket PATH"
            )),
            io::ErrorKind::PermissionDenied => Error::failed(format!(
                "cannot use the control socket {shown}: permission denied; it obeys only the user who started the daemon, \
                 and root"
            )),
            _ => Error::failed(format!("cannot use the control socket {shown}: {error}; check --socket")),
        })?;
        Client::over(stream)
    }

    /// Speaks over a stream that is connected already.
    pub fn over(stream: UnixStream) -> Result<Client, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(lost)?;
        stream.set_nonblocking(true).map_err(lost)?;
        let (sender, connection) = runtime
            .block_on(async {
                let stream = tokio::net::UnixStream::from_std(stream).map_err(|error| error.to_string())?;
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())
            })
            .map_err(lost)?;
        // Its errors reach whoever waits for an answer.
        drop(runtime.spawn(connection.with_upgrades()));
        Ok(Client { sender, runtime })
    }

    /// What the daemon is.
    pub fn version(&mut self) -> Result<Version, Error> {
        self.get("/v1/version")
    }

    /// All networks.
    pub fn networks(&mut self) -> Result<Vec<NetworkView>, Error> {
        self.get("/v1/networks")
    }

    /// One network.
    pub fn network(&mut self, name: &str) -> Result<NetworkView, Error> {
        self.get(&format!("/v1/networks/{}", encode(name)))
    }

    /// Ports, of one network or all.
    pub fn ports(&mut self, network: Option<&str>) -> Result<Vec<PortView>, Error> {
        self.list("ports", network)
    }

    /// FDB entries, of one network or all.
    pub fn fdb(&mut self, network: Option<&str>) -> Result<Vec<FdbView>, Error> {
        self.list("fdb", network)
    }

    /// The gateways' neighbours, of one network or all.
    pub fn arp(&mut self, network: Option<&str>) -> Result<Vec<ArpView>, Error> {
        self.list("arp", network)
    }

    /// Addresses in use, of one network or all.
    pub fn leases(&mut self, network: Option<&str>) -> Result<Vec<LeaseView>, Error> {
        self.list("leases", network)
    }

    /// Flows through the uplinks.
    pub fn flows(&mut self, filter: &FlowFilter) -> Result<Vec<FlowView>, Error> {
        self.get(&flows_path(filter))
    }

    /// Ends flows through the uplinks. Says how many.
    pub fn flush(&mut self, filter: &FlowFilter) -> Result<u64, Error> {
        let path = flows_path(filter);
        let response = self.send(request(Method::DELETE, &path, Bytes::new())?)?;
        self.read::<Flushed>(response, &path).map(|answer| answer.flushed)
    }

    /// Publishes ports of a container, whenever one of this name is attached. Says what is published by this.
    pub fn publish(&mut self, name: &str, specs: &[Spec]) -> Result<Vec<Published>, Error> {
        self.change_ports(name, "publish", specs)
    }

    /// Ends what of a container is published. Says what is published no longer.
    pub fn unpublish(&mut self, name: &str, specs: &[Spec]) -> Result<Vec<Published>, Error> {
        self.change_ports(name, "unpublish", specs)
    }

    fn change_ports(&mut self, name: &str, what: &str, specs: &[Spec]) -> Result<Vec<Published>, Error> {
        let path = format!("/v1/ports/{}/{what}", encode(name));
        let body = to_json(&PublishRequest { specs: specs.to_vec() })?;
        let response = self.send(request(Method::POST, &path, body.into())?)?;
        self.read(response, &path)
    }

    /// Drops by port and reason, of one network or all.
    pub fn drops(&mut self, network: Option<&str>) -> Result<Vec<DropView>, Error> {
        self.list("drops", network)
    }

    /// The daemon's own figures.
    pub fn stats(&mut self) -> Result<StatsView, Error> {
        self.get("/v1/stats")
    }

    /// Listens for the next frame that a container sends, of this protocol (`tcp`, `udp`, `icmp` or `arp`) if one is
    /// named. When this returns, the switch listens.
    ///
    /// The connection is used up by this.
    pub fn journey(mut self, name: &str, proto: Option<&str>) -> Result<Listening, Error> {
        let filter = proto.map(|proto| format!("?proto={}", encode(proto))).unwrap_or_default();
        let path = format!("/v1/ports/{}/journey{filter}", encode(name));
        let response = self.send(request(Method::GET, &path, Bytes::new())?)?;
        Ok(Listening { client: self, response, path })
    }

    /// What would happen to a packet; nothing is sent.
    pub fn explain(&mut self, wanted: &ExplainRequest) -> Result<ExplainView, Error> {
        let path = "/v1/explain";
        let response = self.send(request(Method::POST, path, to_json(wanted)?.into())?)?;
        self.read(response, path)
    }

    /// Watches frames as they pass, until `tell` says no, which gets each line also as it came.
    ///
    /// The connection is used up by this.
    pub fn trace(
        self,
        wanted: &TraceRequest,
        tell: impl FnMut(TraceLine, &str) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        self.watch(wanted)?.until(future::pending(), tell)
    }

    /// Begins to watch frames. When this returns, the switch watches.
    ///
    /// The connection is used up by this.
    pub fn watch(mut self, wanted: &TraceRequest) -> Result<Watching, Error> {
        let response = self.send(request(Method::GET, &trace_path(wanted), Bytes::new())?)?;
        Ok(Watching { client: self, response })
    }

    /// Listens to what happens, on one network or all, until `tell` says no, which gets each line also as it came.
    ///
    /// The connection is used up by this.
    pub fn events(
        mut self,
        network: Option<&str>,
        tell: impl FnMut(EventLine, &str) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let narrow = network.map(|name| format!("?network={}", encode(name))).unwrap_or_default();
        let response = self.send(request(Method::GET, &format!("/v1/events{narrow}"), Bytes::new())?)?;
        Watching { client: self, response }.until(future::pending(), tell)
    }

    /// Removes a container's port.
    pub fn detach(&mut self, name: &str) -> Result<(), Error> {
        self.send(request(Method::DELETE, &format!("/v1/ports/{}", encode(name)), Bytes::new())?).map(drop)
    }

    /// Attaches a container: asks for a port, has `make` make the interface that the daemon offers, and hands its TAP
    /// over. If `make` fails, the daemon takes its offer back.
    ///
    /// The connection is used up by this.
    pub fn attach(
        mut self,
        wanted: &AttachRequest,
        make: impl FnOnce(&AttachOffer) -> Result<(AttachTap, Vec<OwnedFd>), Error>,
    ) -> Result<PortView, Error> {
        match self.hand_over("/v1/attach", ATTACH_PROTOCOL, to_json(wanted)?, make)? {
            AttachResult::Attached(port) => Ok(port),
            AttachResult::Refused(why) => Err(Error::Failed(why)),
        }
    }

    /// Gives a network the device of its uplink: asks which one it wants, has `open` open it, and hands it over.
    ///
    /// The connection is used up by this.
    pub fn uplink(
        mut self,
        network: &str,
        open: impl FnOnce(&UplinkOffer) -> Result<(UplinkDevice, OwnedFd), Error>,
    ) -> Result<NetworkView, Error> {
        let path = format!("/v1/networks/{}/uplink", encode(network));
        let open = |offer: &UplinkOffer| open(offer).map(|(about, fd)| (about, vec![fd]));
        match self.hand_over(&path, UPLINK_PROTOCOL, Vec::new(), open)? {
            UplinkResult::Taken(network) => Ok(network),
            UplinkResult::Refused(why) => Err(Error::Failed(why)),
        }
    }

    /// Has `make` make what the daemon offers, and hands its descriptors over. Returns what the daemon made of them.
    fn hand_over<O: DeserializeOwned, A: Serialize, R: DeserializeOwned>(
        &mut self,
        path: &str,
        protocol: &'static str,
        body: Vec<u8>,
        make: impl FnOnce(&O) -> Result<(A, Vec<OwnedFd>), Error>,
    ) -> Result<R, Error> {
        let (begun, stream) = self.upgrade(path, protocol, body)?;
        let mut lines = BufReader::new(begun.as_ref().chain(&stream));
        let offer: O = read_line(&mut lines)?;
        let (about, fds) = make(&offer)?;
        let mut line = to_json(&about)?;
        line.push(b'\n');
        let sent = pass::send_fds(stream.as_fd(), &line, &fds).map_err(lost)?;
        (&stream).write_all(line.get(sent..).unwrap_or_default()).map_err(lost)?;
        read_line(&mut lines)
    }

    /// Turns the connection into the stream of a hand-over; its first bytes may have been read already.
    fn upgrade(&mut self, path: &str, protocol: &'static str, body: Vec<u8>) -> Result<(Bytes, UnixStream), Error> {
        let mut request = request(Method::POST, path, body.into())?;
        request.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static(protocol));
        let response = self.send(request)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(lost(format!("it answered {} instead of an offer", response.status())));
        }
        let upgraded =
            self.block_on(async { hyper::upgrade::on(response).await.map_err(|error| error.to_string()) })?;
        let parts = upgraded
            .downcast::<TokioIo<tokio::net::UnixStream>>()
            .map_err(|_| lost("the connection is no unix socket"))?;
        let stream = parts.io.into_inner().into_std().map_err(lost)?;
        stream.set_nonblocking(false).map_err(lost)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(lost)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(lost)?;
        Ok((parts.read_buf, stream))
    }

    fn list<T: DeserializeOwned>(&mut self, what: &str, network: Option<&str>) -> Result<Vec<T>, Error> {
        let narrow = network.map(|name| format!("?network={}", encode(name))).unwrap_or_default();
        self.get(&format!("/v1/{what}{narrow}"))
    }

    fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Error> {
        let response = self.send(request(Method::GET, path, Bytes::new())?)?;
        self.read(response, path)
    }

    fn read<T: DeserializeOwned>(&self, response: Response<Incoming>, path: &str) -> Result<T, Error> {
        let body = self.block_on(read_body(response))?;
        serde_json::from_slice(&body).map_err(|error| {
            Error::failed(format!("cannot read the daemon's answer to {path}: {error}; is it of another version?"))
        })
    }

    /// Sends a request; an answer that refuses becomes the error that it carries.
    fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        let sending = self.sender.send_request(request);
        let response = self.runtime.block_on(in_time(async { sending.await.map_err(|error| error.to_string()) }))?;
        let status = response.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(response);
        }
        let body = self.block_on(read_body(response))?;
        Err(match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Error::Failed(body.error),
            Err(_) => lost(format!("it answered {status} without a reason")),
        })
    }

    fn block_on<T>(&self, step: impl Future<Output = Result<T, String>>) -> Result<T, Error> {
        self.runtime.block_on(in_time(step))
    }
}

/// Connects to a listener, which may be a stopped process with a full queue: [`io::ErrorKind::WouldBlock`] then.
fn dial(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux lets the time to send bound the time to connect (socket(7), SO_SNDTIMEO).
    socket.set_write_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_write_timeout(None)?;
    Ok(OwnedFd::from(socket).into())
}

/// A journey that is still to come.
#[derive(Debug)]
pub struct Listening {
    client: Client,
    response: Response<Incoming>,
    path: String,
}

impl Listening {
    /// Waits for the frame to pass.
    pub fn wait(self) -> Result<JourneyView, Error> {
        let Listening { client, response, path } = self;
        client.read(response, &path)
    }
}

/// Frames, or events, that are watched.
#[derive(Debug)]
pub struct Watching {
    client: Client,
    response: Response<Incoming>,
}

impl Watching {
    /// Tells of frames as they pass, until `tell` says no, which gets each line also as it came, or `stop` ends.
    pub fn until<T: DeserializeOwned>(
        self,
        stop: impl Future<Output = Result<(), Error>>,
        mut tell: impl FnMut(T, &str) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let mut body = self.response.into_body();
        let mut text = Vec::new();
        self.client.runtime.block_on(async {
            let mut stop = pin!(stop);
            // A quiet network is no fault of the daemon's: this waits as long as it takes.
            loop {
                let frame = tokio::select! {
                    stopped = &mut stop => return stopped,
                    frame = body.frame() => frame.ok_or_else(|| lost("it has ended"))?,
                };
                text.extend_from_slice(&frame.map_err(lost)?.into_data().unwrap_or_default());
                let mut lines = text.split_inclusive(|byte| *byte == b'\n').peekable();
                let mut read = 0;
                while let Some(line) = lines.next_if(|line| line.ends_with(b"\n")) {
                    read += line.len();
                    let raw = String::from_utf8_lossy(line);
                    let line = serde_json::from_str(&raw).map_err(|error| {
                        Error::failed(format!("cannot read what the daemon tells: {error}; is it of another version?"))
                    })?;
                    if !tell(line, raw.trim_end())? {
                        return Ok(());
                    }
                }
                text.drain(..read);
            }
        })
    }
}

async fn in_time<T>(step: impl Future<Output = Result<T, String>>) -> Result<T, Error> {
    match timeout(PATIENCE, step).await {
        Ok(done) => done.map_err(lost),
        Err(_) => Err(lost(format!("it did not answer within {} s", PATIENCE.as_secs()))),
    }
}

async fn read_body(response: Response<Incoming>) -> Result<Bytes, String> {
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
    Ok(body.to_bytes())
}

fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Error> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "tapswitch")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(lost)
}

fn read_line<T: DeserializeOwned>(lines: &mut impl BufRead) -> Result<T, Error> {
    let mut line = Vec::new();
    lines.take(MAX_LINE).read_until(b'\n', &mut line).map_err(lost)?;
    if !line.ends_with(b"\n") {
        return Err(lost("it hung up in the middle of a hand-over"));
    }
    serde_json::from_slice(&line).map_err(|error| {
        Error::failed(format!(
            "cannot read what the daemon says while a descriptor is handed over: {error}; is it of another version?"
        ))
    })
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(lost)
}

fn lost(why: impl fmt::Display) -> Error {
    Error::failed(format!("cannot talk to the daemon: {why}; see its messages, and try again"))
}

fn flows_path(filter: &FlowFilter) -> String {
    let FlowFilter { network, container, address, port } = filter;
    let named = |name: &str, value: Option<String>| value.map(|value| format!("{name}={}", encode(&value)));
    let narrow: Vec<String> = [
        named("network", network.clone()),
        named("container", container.clone()),
        named("address", address.map(|address| address.to_string())),
        named("port", port.map(|port| port.to_string())),
    ]
    .into_iter()
    .flatten()
    .collect();
    if narrow.is_empty() { "/v1/flows".into() } else { format!("/v1/flows?{}", narrow.join("&")) }
}

fn trace_path(wanted: &TraceRequest) -> String {
    let TraceRequest { filter, network, bytes, rate } = wanted;
    let mut path = format!("/v1/trace?bytes={bytes}");
    for (name, value) in
        [("filter", filter.clone()), ("network", network.clone()), ("rate", rate.map(|rate| rate.to_string()))]
    {
        if let Some(value) = value {
            path += &format!("&{name}={}", encode(&value));
        }
    }
    path
}

/// Percent-encodes a name for a path or a query (RFC 3986 2.3: only unreserved characters stay).
fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connecting_to_a_stopped_daemon_ends() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("stopped.sock");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let patience = Duration::from_millis(50);
        // The queue takes a few; nobody accepts them.
        let mut waiting = Vec::new();
        let error = loop {
            match dial(&path, patience) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 16, "the queue has no end");
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(waiting[0].write_timeout().unwrap(), None, "only connecting is bounded");
    }
}
