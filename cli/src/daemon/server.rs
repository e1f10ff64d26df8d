//! The control thread's work: HTTP/1.1 with JSON on the control socket, each request turned into one command.
//!
//! *Limits.* [`MAX_CONNECTIONS`] connections at a time (further ones wait to be accepted), a body of [`MAX_BODY`] bytes,
//! [`SLOW`] for a request's head and again for its body and answer. None of it can hold up the poll thread, which sees
//! nothing but whole commands on a bounded channel.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::command::{Command, Refusal, Reply};
use super::control::{Control, Gone};
use super::events::events;
use super::explain;
use super::handover;
use super::journey::journey;
use super::metrics::metrics;
use super::socket::may_command;
use super::trace::trace;
use super::worker::Dropped;
use crate::api::{
    ATTACH_PROTOCOL, AttachRequest, DropView, ErrorBody, FlowFilter, FlowView, Flushed, NetworkView, PublishRequest,
    Published, Spec, StatsView, UPLINK_PROTOCOL, Version,
};
use crate::config::check_name;

/// Connections served at a time.
pub(super) const MAX_CONNECTIONS: usize = 128;
/// The largest body of a request.
const MAX_BODY: usize = 16 * 1024;
/// The largest head of a request; hyper wants at least this much.
const MAX_HEAD: usize = 8 * 1024;
/// How long a client may take to send a request's head, and then for the rest until it has its answer.
const SLOW: Duration = Duration::from_secs(10);
/// How long accepting rests after it failed, which is when descriptors have run out.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A request that was not fulfilled: a status and an [`ErrorBody`].
#[derive(Debug)]
pub(crate) struct Failure(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorBody { error: self.1 })).into_response()
    }
}

impl From<Gone> for Failure {
    fn from(gone: Gone) -> Failure {
        Failure(StatusCode::SERVICE_UNAVAILABLE, gone.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let status = match refusal {
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::Conflict(_) => StatusCode::CONFLICT,
            Refusal::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
        };
        Failure(status, refusal.to_string())
    }
}

type Answer<T> = Result<Json<T>, Failure>;

/// Accepts and serves connections: those of the socket, if there is one, and those that come over `incoming`, whose other
/// ends this process itself holds. It ends when it is dropped, and with it whatever is being served.
pub(crate) async fn serve(
    control: Control,
    listener: Option<UnixListener>,
    mut incoming: mpsc::Receiver<std::os::unix::net::UnixStream>,
) {
    let router = router(control);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = tokio::select! {
            own = incoming.recv() => match own {
                Some(stream) => match UnixStream::from_std(stream) {
                    Ok(stream) => stream,
                    Err(error) => {
                        tracing::warn!("a connection from this process itself could not be served: {error}");
                        continue;
                    }
                },
                None => return,
            },
            stream = accept(listener.as_ref()) => stream,
        };
        tokio::spawn(serve_connection(stream, router.clone(), place));
    }
}

/// The next connection of a process that may command the daemon; waits for ever if there is no listener.
async fn accept(listener: Option<&UnixListener>) -> UnixStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        match accept_one(listener).await {
            Ok((stream, uid)) if may_command(uid) => return stream,
            Ok((_, uid)) => tracing::warn!("uid {uid} tried to use the control socket and was turned away"),
            Err(error) => {
                tracing::warn!("a connection to the control socket could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn accept_one(listener: &UnixListener) -> io::Result<(UnixStream, u32)> {
    let (stream, _) = listener.accept().await?;
    let uid = stream.peer_cred()?.uid();
    Ok((stream, uid))
}

async fn serve_connection(stream: UnixStream, router: Router, place: OwnedSemaphorePermit) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(SLOW).max_buf_size(MAX_HEAD);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!("a control connection ended early: {error}");
    }
    drop(place);
}

pub(crate) fn router(control: Control) -> Router {
    Router::new()
        .route("/v1/version", get(version))
        .route("/v1/networks", get(networks))
        .route("/v1/networks/{name}", get(network))
        .route("/v1/networks/{name}/uplink", post(uplink))
        .route("/v1/ports", get(|c, q| list(c, q, Command::Ports)))
        .route("/v1/ports/{name}", delete(detach))
        .route("/v1/ports/{name}/journey", get(journey))
        .route("/v1/ports/{name}/publish", post(publish))
        .route("/v1/ports/{name}/unpublish", post(unpublish))
        .route("/v1/fdb", get(|c, q| list(c, q, Command::Fdb)))
        .route("/v1/arp", get(|c, q| list(c, q, Command::Arp)))
        .route("/v1/leases", get(|c, q| list(c, q, Command::Leases)))
        .route("/v1/flows", get(flows).delete(flush))
        .route("/v1/drops", get(drops))
        .route("/v1/stats", get(stats))
        .route("/v1/trace", get(trace))
        .route("/v1/events", get(events))
        .route("/metrics", get(metrics))
        .route("/v1/explain", post(explain::explain).layer(DefaultBodyLimit::max(explain::MAX_BODY)))
        .route("/v1/attach", post(attach))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(in_time))
        .with_state(control)
}

async fn in_time(request: Request, next: Next) -> Response {
    let line = format!("{} {}", request.method(), request.uri().path());
    match tokio::time::timeout(SLOW, next.run(request)).await {
        Ok(response) => {
            tracing::debug!("{line}: {}", response.status());
            response
        }
        Err(_) => {
            let text = format!("{line} took longer than {} s; try again", SLOW.as_secs());
            tracing::debug!("{text}");
            Failure(StatusCode::REQUEST_TIMEOUT, text).into_response()
        }
    }
}

async fn unknown_path(request: Request) -> Failure {
    let path = request.uri().path();
    Failure(StatusCode::NOT_FOUND, format!("there is no {path} in version 1 of the API; see the paths under /v1/"))
}

async fn wrong_method(request: Request) -> Failure {
    let text = format!("{} does not take {}", request.uri().path(), request.method());
    Failure(StatusCode::METHOD_NOT_ALLOWED, text)
}

async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION").into(), pid: std::process::id() })
}

async fn networks(State(control): State<Control>) -> Answer<Vec<NetworkView>> {
    Ok(Json(control.ask(Command::Networks).await?))
}

async fn network(State(control): State<Control>, Path(name): Path<String>) -> Answer<NetworkView> {
    let mut all = control.ask(Command::Networks).await?;
    match all.iter().position(|network| network.name == name) {
        Some(found) => Ok(Json(all.swap_remove(found))),
        None => {
            let known: Vec<&str> = all.iter().map(|network| network.name.as_str()).collect();
            let text = format!("there is no network '{name}'; there are: {}", known.join(", "));
            Err(Failure(StatusCode::NOT_FOUND, text))
        }
    }
}

/// What narrows a listing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Narrow {
    pub(super) network: Option<String>,
}

async fn list<T: Serialize>(
    control: State<Control>,
    narrow: Result<Query<Narrow>, QueryRejection>,
    make: impl FnOnce(Option<String>, Reply<Result<Vec<T>, Refusal>>) -> Command,
) -> Answer<Vec<T>> {
    rows(control, narrow, make).await
}

async fn rows<T>(
    State(control): State<Control>,
    narrow: Result<Query<Narrow>, QueryRejection>,
    make: impl FnOnce(Option<String>, Reply<Result<Vec<T>, Refusal>>) -> Command,
) -> Answer<Vec<T>> {
    let Query(narrow) = narrow.map_err(|error| Failure(error.status(), error.body_text()))?;
    Ok(Json(control.ask(|reply| make(narrow.network, reply)).await??))
}

/// The frames are put into words here, and not by the poll thread.
async fn drops(control: State<Control>, narrow: Result<Query<Narrow>, QueryRejection>) -> Answer<Vec<DropView>> {
    let Json(drops) = rows(control, narrow, Command::Drops).await?;
    Ok(Json(drops.into_iter().map(Dropped::view).collect()))
}

async fn stats(State(control): State<Control>) -> Answer<StatsView> {
    Ok(Json(control.ask(Command::Stats).await?))
}

async fn detach(State(control): State<Control>, Path(name): Path<String>) -> Result<StatusCode, Failure> {
    control.ask(|reply| Command::Detach(name, reply)).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// Judges what needs no look at the networks. Names end up in logs, in tables and in the names of files.
fn check(wanted: &AttachRequest) -> Result<(), Refusal> {
    for name in [&wanted.network, &wanted.name].into_iter().flatten() {
        check_name(name).map_err(Refusal::Invalid)?;
    }
    check_specs(&wanted.publish)?;
    match wanted.mac {
        Some(mac) if !mac.is_station() => Err(Refusal::Invalid(format!(
            "{mac} cannot be an interface's MAC address: it is a group's or nobody's; choose one whose first byte is even, \
             or leave it out"
        ))),
        _ => Ok(()),
    }
}

type Narrowed = Result<Query<FlowFilter>, QueryRejection>;

fn narrowed(filter: Narrowed) -> Result<FlowFilter, Failure> {
    filter.map(|Query(filter)| filter).map_err(|error| Failure(error.status(), error.body_text()))
}

async fn flows(State(control): State<Control>, filter: Narrowed) -> Answer<Vec<FlowView>> {
    let filter = narrowed(filter)?;
    Ok(Json(control.ask(|reply| Command::Flows(filter, reply)).await??))
}

async fn flush(State(control): State<Control>, filter: Narrowed) -> Answer<Flushed> {
    let filter = narrowed(filter)?;
    let flushed = control.ask(|reply| Command::Flush(filter, reply)).await??;
    Ok(Json(Flushed { flushed }))
}

type Wanted = Result<Json<PublishRequest>, JsonRejection>;

/// Judges what needs no look at the containers.
fn specs(wanted: Wanted) -> Result<Vec<Spec>, Failure> {
    let Json(PublishRequest { specs }) = wanted.map_err(|error| Failure(error.status(), error.body_text()))?;
    if specs.is_empty() {
        return Err(Refusal::Invalid("no port is named; name at least one in specs".into()).into());
    }
    check_specs(&specs)?;
    Ok(specs)
}

/// Two of one request may not ask for one port.
fn check_specs(specs: &[Spec]) -> Result<(), Refusal> {
    for (at, spec) in specs.iter().enumerate() {
        if let Some(other) = specs[..at].iter().find(|other| other.collides(spec)) {
            return Err(Refusal::Invalid(format!("{other} and {spec} would both have one port; change one of them")));
        }
    }
    Ok(())
}

async fn publish(State(control): State<Control>, Path(name): Path<String>, wanted: Wanted) -> Answer<Vec<Published>> {
    let specs = specs(wanted)?;
    Ok(Json(control.ask(|reply| Command::Publish { name, specs, reply }).await??))
}

async fn unpublish(State(control): State<Control>, Path(name): Path<String>, wanted: Wanted) -> Answer<Vec<Published>> {
    let specs = specs(wanted)?;
    Ok(Json(control.ask(|reply| Command::Unpublish { name, specs, reply }).await??))
}

/// What will be the bare stream, if the client asks for this protocol.
fn take_upgrade(request: &mut Request, protocol: &str) -> Result<OnUpgrade, Failure> {
    let asked = request.headers().get(header::UPGRADE).is_some_and(|asked| asked == protocol);
    request.extensions_mut().remove::<OnUpgrade>().filter(|_| asked).ok_or_else(|| {
        let text = format!("this hands a descriptor over; ask to upgrade the connection to {protocol}");
        Failure(StatusCode::UPGRADE_REQUIRED, text)
    })
}

fn switching(protocol: &'static str) -> Response {
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
    response
}

async fn attach(State(control): State<Control>, mut request: Request) -> Result<Response, Failure> {
    let upgrade = take_upgrade(&mut request, ATTACH_PROTOCOL)?;
    let Json(wanted) = Json::<AttachRequest>::from_request(request, &())
        .await
        .map_err(|error: JsonRejection| Failure(error.status(), error.body_text()))?;
    check(&wanted)?;
    let (reserved, outcome) = oneshot::channel();
    tokio::spawn(handover::attach(control, wanted, upgrade, reserved));
    outcome.await.map_err(|_| Gone)???;
    Ok(switching(ATTACH_PROTOCOL))
}

async fn uplink(
    State(control): State<Control>,
    Path(network): Path<String>,
    mut request: Request,
) -> Result<Response, Failure> {
    let upgrade = take_upgrade(&mut request, UPLINK_PROTOCOL)?;
    let (wanted, outcome) = oneshot::channel();
    tokio::spawn(handover::uplink(control, network, upgrade, wanted));
    outcome.await.map_err(|_| Gone)???;
    Ok(switching(UPLINK_PROTOCOL))
}
