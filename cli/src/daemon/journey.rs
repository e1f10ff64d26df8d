//! The journey of a frame that is still to come: the answer's head says that the switch listens, its body follows when
//! the frame has passed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Frame};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::command::{Command, Refusal};
use super::control::{Control, Gone};
use super::server::Failure;
use crate::api::JourneyView;

/// The protocols that a frame can be chosen by.
const PROTOCOLS: [&str; 4] = ["tcp", "udp", "icmp", "arp"];

/// Which frames are meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    proto: Option<String>,
}

/// `GET /v1/ports/NAME/journey`.
pub(super) async fn journey(
    State(control): State<Control>,
    Path(name): Path<String>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(Filter { proto }) = filter.map_err(|error| Failure(error.status(), error.body_text()))?;
    if let Some(unknown) = proto.as_ref().filter(|proto| !PROTOCOLS.contains(&proto.as_str())) {
        let text = format!("there is no protocol '{unknown}' here; name one of {}", PROTOCOLS.join(", "));
        return Err(Failure(StatusCode::BAD_REQUEST, text));
    }
    let (reply, mut answer) = oneshot::channel();
    control.tell(Command::Journey { name, proto, reply }).await?;
    // Commands are carried out in order, so when this one is answered, the switch listens or has refused.
    control.ask(Command::Stats).await?;
    match answer.try_recv() {
        Ok(refused_or_passed) => Ok(Json(refused_or_passed?).into_response()),
        Err(TryRecvError::Closed) => Err(Gone.into()),
        Err(TryRecvError::Empty) => {
            let mut response = Response::new(Body::new(Later(Some(answer))));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok(response)
        }
    }
}

/// A body that is one journey. It breaks off, which a client sees as a failure, if the container leaves before.
struct Later(Option<oneshot::Receiver<Result<JourneyView, Refusal>>>);

impl hyper::body::Body for Later {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(answer) = &mut self.0 else { return Poll::Ready(None) };
        let passed = ready!(Pin::new(answer).poll(context));
        self.0 = None;
        Poll::Ready(Some(match passed {
            Ok(Ok(journey)) => {
                serde_json::to_vec(&journey).map(|json| Frame::data(json.into())).map_err(io::Error::from)
            }
            Ok(Err(refusal)) => Err(io::Error::other(refusal)),
            Err(_) => Err(io::Error::other(Gone)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use hyper::body::Body as _;

    fn view() -> JourneyView {
        JourneyView { frame: "f".into(), port: "red".into(), steps: Vec::new(), verdict: "dropped".into() }
    }

    async fn next(body: &mut Later) -> Option<io::Result<Bytes>> {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn body_is_the_journey_once_and_breaks_off_without_one() {
        let (reply, answer) = oneshot::channel();
        let mut body = Later(Some(answer));
        reply.send(Ok(view())).unwrap();
        let sent = next(&mut body).await.unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<JourneyView>(&sent).unwrap(), view());
        assert!(next(&mut body).await.is_none());

        let (reply, answer) = oneshot::channel::<Result<JourneyView, Refusal>>();
        drop(reply);
        assert!(next(&mut Later(Some(answer))).await.unwrap().is_err());
    }
}
