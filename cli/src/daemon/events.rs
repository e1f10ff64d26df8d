//! `GET /v1/events`: what happens, one JSON object a line, until the client hangs up.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::body::{Bytes, Frame};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use super::command::Command;
use super::control::Control;
use super::server::{Failure, Narrow};
use super::worker::Events;
use crate::api::EventView;

/// Answers a request for events. The head of the answer comes when the switch tells them.
pub(super) async fn events(
    State(control): State<Control>,
    narrow: Result<Query<Narrow>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(Narrow { network }) = narrow.map_err(|error| Failure(error.status(), error.body_text()))?;
    let asked = network.clone();
    let events = control.ask(|reply| Command::Events(asked, reply)).await??;
    let mut response = Response::new(Body::new(Lines { network, next: next(events) }));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

/// The next event, and where the one after it comes from.
type Next = Pin<Box<dyn Future<Output = (Result<Arc<EventView>, RecvError>, Events)> + Send>>;

fn next(mut events: Events) -> Next {
    Box::pin(async move { (events.recv().await, events) })
}

/// A body without an end.
struct Lines {
    /// Only of this network.
    network: Option<String>,
    next: Next,
}

/// How [`crate::api::EventLine`] is written without a copy of the event.
#[derive(Serialize)]
struct Missed {
    missed: u64,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let Poll::Ready((event, events)) = self.next.as_mut().poll(context) else { return Poll::Pending };
            self.next = next(events);
            let line = match event {
                Ok(event) if self.network.as_ref().is_some_and(|network| *network != event.network) => continue,
                Ok(event) => serde_json::to_vec(&*event),
                Err(RecvError::Lagged(missed)) => serde_json::to_vec(&Missed { missed }),
                // The switch has ended.
                Err(RecvError::Closed) => return Poll::Ready(None),
            };
            return Poll::Ready(Some(line.map_err(io::Error::from).map(|mut line| {
                line.push(b'\n');
                Frame::data(line.into())
            })));
        }
    }
}
