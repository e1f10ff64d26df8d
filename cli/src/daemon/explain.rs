//! `POST /v1/explain`: what would happen to a packet; and, if that is asked for, whether somebody listens where it leads.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use tokio::net::TcpStream;

use super::command::Command;
use super::control::Control;
use super::server::Failure;
use crate::api::{ExplainRequest, ExplainView};

/// The largest body: a super-frame of 64 KiB in hexadecimal fits.
pub(super) const MAX_BODY: usize = 160 * 1024;
/// How long an end may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// Answers what would happen.
pub(super) async fn explain(
    State(control): State<Control>,
    request: Result<Json<ExplainRequest>, JsonRejection>,
) -> Result<Json<ExplainView>, Failure> {
    let Json(request) = request.map_err(|error| Failure(error.status(), error.body_text()))?;
    let probe = request.probe;
    let mut view = control.ask(|reply| Command::Explain(Box::new(request), reply)).await??;
    match view.connects {
        Some(to) if probe => view.notes.push(probed(to).await),
        Some(to) => view.notes.push(format!(
            "whether somebody listens at {to} only trying tells: add --probe, which opens a connection and closes it"
        )),
        None if probe => {
            view.notes.push("nothing was tried: the packet would open no TCP connection of the host".into())
        }
        None => {}
    }
    Ok(Json(view))
}

/// Asks the host, by a connection that is closed at once.
async fn probed(to: SocketAddr) -> String {
    match tokio::time::timeout(PATIENCE, TcpStream::connect(to)).await {
        Ok(Ok(_)) => format!("tried just now: somebody listens at {to}"),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => format!(
            "tried just now: nobody listens at {to}, the connection was refused; start the service there, or see on which \
             port it listens"
        ),
        Ok(Err(error)) => {
            format!("tried just now: the host cannot reach {to}: {error}; see its routes and its firewall")
        }
        Err(_) => format!(
            "tried just now: {to} did not answer within {} s; it may be down, or a firewall may drop what comes",
            PATIENCE.as_secs()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn probing_tells_a_port_that_listens_from_one_that_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        assert_eq!(probed(at).await, format!("tried just now: somebody listens at {at}"));
        drop(listener);
        assert!(probed(at).await.contains("nobody listens"), "{at}");
    }
}
