//! The child's side: it becomes the container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::sys::signal::SigSet;
use nix::unistd::dup2_stdin;
use tapswitch_link::process::{self, Isolation};
use tapswitch_link::{LinkError, netns};

use super::lines::{Lines, NONE};
use super::{FAILED, Go, InterfacePlan, Made, Order, Plan};
use crate::error;

/// Runs the hidden verb, in a process whose standard input is the socket to its parent.
pub(crate) fn main() -> ExitCode {
    match become_container() {
        Ok(Some(status)) => ExitCode::from(status),
        // The parent is gone, or has been told why and will say so.
        Ok(None) => ExitCode::from(FAILED),
        Err(error) => {
            error::report(&error, false);
            ExitCode::from(FAILED)
        }
    }
}

/// The status of the command, or nothing if it was never to start.
fn become_container() -> Result<Option<u8>, String> {
    let lost = |error: io::Error| format!("cannot talk to the process that wants a container: {error}");
    let Some((mut lines, Order { parent, plan }, stdin)) = receive_order().map_err(lost)? else { return Ok(None) };
    let Plan { hostname, resolv_conf, interface, argv } = plan;
    match make(parent, Isolation { hostname: Some(hostname), resolv_conf }, interface) {
        Ok(tap) => lines.send(&Made::Tap, &tap).map_err(lost)?,
        Err(error) => {
            lines.send(&Made::Failed(error.to_string()), NONE).map_err(lost)?;
            return Ok(None);
        }
    }
    if lines.receive::<Go>().map_err(lost)?.is_none() {
        return Ok(None);
    }
    dup2_stdin(&stdin).map_err(|error| format!("cannot give the command its standard input: {error}"))?;
    let status = process::spawn_init(&argv).map_err(|error| error.to_string())?;
    Ok(Some(u8::try_from(status).unwrap_or(FAILED)))
}

/// What the parent wants, with the command's standard input; nothing if there is no parent any more.
fn receive_order() -> io::Result<Option<(Lines, Order, OwnedFd)>> {
    // The parent may have blocked signals to take them up itself; the command must start with none blocked.
    SigSet::empty().thread_set_mask()?;
    let mut lines = Lines::new(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?));
    match lines.receive()? {
        Some((order, mut fds)) => match fds.pop() {
            Some(stdin) => Ok(Some((lines, order, stdin))),
            None => Err(io::Error::other("it sent no standard input")),
        },
        None => Ok(None),
    }
}

fn make(parent: u32, isolation: Isolation, interface: InterfacePlan) -> Result<Vec<OwnedFd>, LinkError> {
    process::die_with_parent(parent)?;
    process::enter_new_namespaces(&isolation)?;
    // The TAP is closed again here as soon as the parent has it: the switch alone decides how long it lives.
    netns::create_here(&interface.into())
}
