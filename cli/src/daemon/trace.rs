//! `GET /v1/trace`: frames as they pass, one JSON object a line, until the client hangs up.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::{Bytes, Frame};
use tapswitch_filter::Filter;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::command::Command;
use super::control::Control;
use super::server::Failure;
use super::worker::{Wanted, Watch};
use crate::api::{TraceLine, TraceRequest};

/// Frames a second, if nobody says how many.
const RATE: u32 = 1_000;
/// How often frames are told that were missed.
const EVERY: Duration = Duration::from_secs(1);

/// Answers a request for frames. The head of the answer comes when the switch watches.
pub(super) async fn trace(
    State(control): State<Control>,
    request: Result<Query<TraceRequest>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(request) = request.map_err(|error| Failure(error.status(), error.body_text()))?;
    let TraceRequest { filter, network, bytes, rate } = request;
    let filter = Filter::parse(filter.as_deref().unwrap_or_default())
        .map_err(|error| Failure(StatusCode::BAD_REQUEST, error.to_string()))?;
    let wanted = Wanted { filter, network, bytes, rate: rate.unwrap_or(RATE) };
    let watch = control.ask(|reply| Command::Trace(wanted, reply)).await??;
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut response = Response::new(Body::new(Lines { watch, every }));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

/// A body without an end.
struct Lines {
    watch: Watch,
    every: Interval,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut text = Vec::new();
        while self.every.poll_tick(context).is_ready() {
            let missed = self.watch.missed();
            if missed > 0 {
                line(&mut text, &TraceLine::Missed { missed })?;
            }
        }
        // As many as wait: one write for all of them.
        while text.len() < 1 << 16 {
            match self.watch.frames.poll_recv(context) {
                Poll::Ready(Some(view)) => line(&mut text, &TraceLine::Frame(Box::new(view)))?,
                // The switch has ended.
                Poll::Ready(None) if text.is_empty() => return Poll::Ready(None),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if text.is_empty() { Poll::Pending } else { Poll::Ready(Some(Ok(Frame::data(text.into())))) }
    }
}

fn line(text: &mut Vec<u8>, line: &TraceLine) -> io::Result<()> {
    serde_json::to_writer(&mut *text, line)?;
    text.push(b'\n');
    Ok(())
}
