//! The control socket's file: where it is, who may come in, and whose it is.
//!
//! The socket has mode 0600 from the moment it exists: the mode of a unix socket's file is that of the socket's own
//! inode when it is bound, so it is set before. (A umask would hold for every thread of the process.) A directory that
//! is made for it has mode 0700. Beside that, whoever connects is asked for his uid (`SO_PEERCRED`).

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Uid, geteuid};

use crate::error::Error;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;
/// How a user namespace shows an owner that it does not map, such as the root who owns /tmp outside.
const UNMAPPED_UID: u32 = 65_534;

/// Where the socket is unless `--socket` says otherwise; none if this user has no directory for it.
fn default_path() -> Option<PathBuf> {
    let directory = if geteuid().is_root() {
        PathBuf::from("/run")
    } else {
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute())?
    };
    Some(directory.join("tapswitch/tapswitch.sock"))
}

/// Where the socket is: what `--socket` says, or its default.
pub fn path(option: Option<&Path>) -> Result<PathBuf, Error> {
    option.map(Path::to_owned).or_else(default_path).ok_or_else(|| {
        Error::NoDaemon(
            "there is no place for the control socket, because XDG_RUNTIME_DIR is not set; set it, or name a path with \
             --socket PATH (for the daemon and for all other commands)"
                .into(),
        )
    })
}

/// A listening control socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

impl ControlSocket {
    /// Binds and listens. What a dead daemon left at this path is replaced; a live one is an error.
    pub(crate) fn bind(path: &Path) -> Result<ControlSocket, Error> {
        let failed = |tried: &str, why: &dyn std::fmt::Display, next: &str| {
            Error::failed(format!("cannot {tried} the control socket {}: {why}; {next}", path.display()))
        };
        let elsewhere = "choose another path with --socket";
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|e| failed("make a directory for", &e, elsewhere))?;
        let opened = File::open(directory).map_err(|e| failed("make", &e, elsewhere))?;
        let metadata = opened.metadata().map_err(|e| failed("make", &e, elsewhere))?;
        if let Some(why) = unsafe_directory(&metadata) {
            return Err(failed("make", &why, elsewhere));
        }
        // Two daemons that start at once must not both take a dead one's place. In a directory of somebody else (as /tmp)
        // nothing is locked, as anybody could keep it locked.
        let _lock = match metadata.uid() == geteuid().as_raw() {
            true => Some(Flock::lock(opened, FlockArg::LockExclusive).map_err(|(_, e)| failed("make", &e, elsewhere))?),
            false => None,
        };
        clear(path)?;
        let listener = listen_at(path).map_err(|e| failed("listen on", &e, elsewhere))?;
        let identity =
            fs::symlink_metadata(path).map(|made| identity(&made)).map_err(|e| failed("find", &e, elsewhere))?;
        Ok(ControlSocket { listener, path: path.to_owned(), identity })
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Another handle of the listener, for the control thread.
    pub(crate) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Only our own: the path may be another daemon's by now.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("cannot remove the control socket {}: {error}", self.path.display());
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Why a socket in this directory could be replaced by somebody else, if so.
fn unsafe_directory(metadata: &Metadata) -> Option<&'static str> {
    let trusted = [0, geteuid().as_raw(), UNMAPPED_UID].contains(&metadata.uid());
    let open = metadata.mode() & 0o022 != 0;
    let sticky = metadata.mode() & 0o1000 != 0;
    (!trusted || (open && !sticky)).then_some("others may write to its directory, and so could take its place")
}

/// Makes room at the path, if nobody lives there.
fn clear(path: &Path) -> Result<(), Error> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    let shown = path.display();
    if !found.file_type().is_socket() {
        return Err(Error::failed(format!("{shown} exists and is no socket; choose another path with --socket")));
    }
    match UnixStream::connect(path) {
        Ok(stream) => {
            let daemon = match peer_pid(&stream) {
                Some(pid) => format!("a daemon (pid {pid})"),
                None => "a daemon".into(),
            };
            Err(Error::failed(format!(
                "{daemon} already listens on {shown}; use it, stop it, or choose another path with --socket"
            )))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(|error| {
            Error::failed(format!("cannot remove {shown}, which a dead daemon left: {error}; remove it by hand"))
        }),
        Err(error) => {
            Err(Error::failed(format!("cannot see who listens on {shown}: {error}; choose another path with --socket")))
        }
    }
}

/// The process at the other end, if it can be seen from here.
fn peer_pid(stream: &UnixStream) -> Option<i32> {
    getsockopt(stream, sockopt::PeerCredentials).ok().map(|peer| peer.pid()).filter(|pid| *pid > 0)
}

fn listen_at(path: &Path) -> io::Result<UnixListener> {
    let address = UnixAddr::new(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &address)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(UnixListener::from(socket))
}

/// Whether a process with this uid may command the daemon: its own user, and root.
pub(crate) fn may_command(uid: u32) -> bool {
    uid == geteuid().as_raw() || Uid::from_raw(uid).is_root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn attack_2_22_socket_and_its_directory_are_the_owners_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/tapswitch.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(socket);
        assert!(!path.exists(), "the socket file was left behind");
    }

    #[test]
    fn a_live_daemon_is_named_and_a_dead_one_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("tapswitch.sock");
        let first = ControlSocket::bind(&path).unwrap();
        let error = ControlSocket::bind(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("a daemon (pid {}) already listens on", std::process::id())), "{error}");
        drop(first);

        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let second = ControlSocket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();

        // Somebody took the path: it is not ours to remove.
        fs::remove_file(&path).unwrap();
        let _third = UnixListener::bind(&path).unwrap();
        drop(second);
        assert!(path.exists());
    }

    #[test]
    fn a_bad_place_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(ControlSocket::bind(&file).unwrap_err().to_string().contains("exists and is no socket"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

        let open = home.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let error = ControlSocket::bind(&open.join("s")).unwrap_err().to_string();
        assert!(error.contains("others may write"), "{error}");

        let long = home.path().join("x".repeat(120));
        let error = ControlSocket::bind(&long).unwrap_err().to_string();
        assert!(error.contains("cannot listen on"), "{error}");
    }

    #[test]
    fn attack_2_22_only_the_owner_and_root_may_command() {
        assert!(may_command(0));
        assert!(may_command(geteuid().as_raw()));
        assert!(!may_command(geteuid().as_raw().wrapping_add(4711)));
    }
}
