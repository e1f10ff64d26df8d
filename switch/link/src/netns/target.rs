//! Finding a container's namespaces.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, fstat};

use crate::{LinkError, sys};

/// Where `ip netns` keeps its names.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];
const OWN_USER: &str = "/proc/self/ns/user";

/// Whose network namespace is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The one of this process.
    Pid(i32),
    /// The one that `ip netns` knows by this name: /run/netns/NAME or /var/run/netns/NAME.
    Name(String),
    /// The one that this file stands for.
    Path(PathBuf),
}

impl FromStr for Target {
    type Err = LinkError;

    /// Digits are a pid, whatever contains a slash is a path, anything else is a name.
    fn from_str(text: &str) -> Result<Target, LinkError> {
        if text.contains('/') {
            return Ok(Target::Path(text.into()));
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            // Digits that are no pid are no name either: nobody would expect them to be looked up as one.
            return match text.parse() {
                Ok(pid) if pid > 0 => Ok(Target::Pid(pid)),
                _ => Err(LinkError::NotANamespace { path: text.into(), why: "no process can have this pid".into() }),
            };
        }
        if text.is_empty() || text == "." || text == ".." || text.contains('\0') {
            return Err(LinkError::NoSuchNamespace { name: text.into(), tried: "nothing: it is no file name".into() });
        }
        Ok(Target::Name(text.into()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Pid(pid) => write!(f, "the network namespace of process {pid}"),
            Target::Name(name) => write!(f, "the network namespace '{name}'"),
            Target::Path(path) => write!(f, "the network namespace {}", path.display()),
        }
    }
}

/// The namespaces of a target. While this is held, they stay alive.
#[derive(Debug)]
pub struct Namespaces {
    /// The user namespace that owns `net`; `None` if it is our own.
    pub(super) user: Option<OwnedFd>,
    pub(super) net: OwnedFd,
    /// Whose they are, for messages.
    pub(super) target: String,
}

impl Target {
    /// Opens the target's namespaces.
    ///
    /// # Errors
    /// [`LinkError::NoSuchProcess`], [`LinkError::NoSuchNamespace`], [`LinkError::NotANamespace`], and
    /// [`LinkError::TargetDenied`] if it, or the user namespace that owns it, is out of reach.
    pub fn resolve(&self) -> Result<Namespaces, LinkError> {
        let net = match self {
            Target::Pid(pid) => self.of_process(*pid)?,
            Target::Name(name) => self.named(name)?,
            Target::Path(path) => self.at(path)?.ok_or_else(|| LinkError::NotANamespace {
                path: path.display().to_string(),
                why: "there is no such file".into(),
            })?,
        };
        match sys::namespace_type(net.as_fd()) {
            Ok(kind) if kind == CloneFlags::CLONE_NEWNET.bits() => {}
            Ok(_) => return Err(self.not_a_namespace("it is a namespace of another kind")),
            Err(_) => return Err(self.not_a_namespace("it is an ordinary file or one whose namespace is gone")),
        }
        let owner = sys::owning_user_namespace(&net).map_err(|e| match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM) => {
                self.denied("it belongs to a user namespace that is neither ours nor one beneath ours")
            }
            _ => LinkError::system(format!("find out who owns {self}"), e, "use Linux 4.9 or later"),
        })?;
        let user = if is_own_user_namespace(&owner)? { None } else { Some(owner) };
        Ok(Namespaces { user, net, target: self.to_string() })
    }

    fn of_process(&self, pid: i32) -> Result<OwnedFd, LinkError> {
        // Through one directory descriptor, so that a pid that is reused in between is not mistaken for the first.
        let gone = || LinkError::NoSuchProcess { pid };
        let directory = open(format!("/proc/{pid}").as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| match e {
                Errno::ENOENT | Errno::ESRCH => gone(),
                e => LinkError::system(format!("look up process {pid} in /proc"), e, "see that /proc is mounted"),
            })?;
        openat(&directory, "ns/net", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map_err(|e| match e {
            // A process that ended but was not waited for still has a directory, and no namespaces.
            Errno::ENOENT | Errno::ESRCH | Errno::EINVAL => gone(),
            Errno::EACCES | Errno::EPERM => self.denied("the process belongs to another user"),
            e => LinkError::system(format!("open /proc/{pid}/ns/net"), e, "see that the process still runs"),
        })
    }

    fn named(&self, name: &str) -> Result<OwnedFd, LinkError> {
        for directory in NAMED {
            if let Some(found) = self.at(&Path::new(directory).join(name))? {
                return Ok(found);
            }
        }
        let tried = NAMED.map(|directory| format!("{directory}/{name}")).join(" and ");
        Err(LinkError::NoSuchNamespace { name: name.into(), tried })
    }

    /// The file at this path; `None` if there is none.
    fn at(&self, path: &Path) -> Result<Option<OwnedFd>, LinkError> {
        // A FIFO or a device is opened without waiting and then found to be no namespace.
        match open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, Mode::empty()) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(Errno::EACCES | Errno::EPERM) => Err(self.denied("the file may not be opened")),
            Err(e) => Err(LinkError::system(format!("open {}", path.display()), e, "give the path of a namespace")),
        }
    }

    fn denied(&self, why: &str) -> LinkError {
        LinkError::TargetDenied { target: self.to_string(), why: why.into() }
    }

    fn not_a_namespace(&self, why: &str) -> LinkError {
        let path = match self {
            Target::Pid(pid) => format!("/proc/{pid}/ns/net"),
            Target::Name(name) => name.clone(),
            Target::Path(path) => path.display().to_string(),
        };
        LinkError::NotANamespace { path, why: why.into() }
    }
}

fn is_own_user_namespace(other: &OwnedFd) -> Result<bool, LinkError> {
    let compare = || {
        let own = fstat(File::open(OWN_USER)?)?;
        let other = fstat(other)?;
        io::Result::Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
    };
    compare().map_err(|e| LinkError::system(format!("look at {OWN_USER}"), e, "see that /proc is mounted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_a_pid_a_path_or_a_name_by_its_looks() {
        let parse = |text: &str| text.parse::<Target>();
        assert_eq!(parse("4711").unwrap(), Target::Pid(4711));
        assert_eq!(parse("/proc/1/ns/net").unwrap(), Target::Path("/proc/1/ns/net".into()));
        assert_eq!(parse("./12").unwrap(), Target::Path("./12".into()));
        assert_eq!(parse("blue-1").unwrap(), Target::Name("blue-1".into()));
        for bad in ["", "..", "0", "99999999999999999999"] {
            assert!(parse(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn each_way_a_target_can_be_missing_has_an_error_of_its_own() {
        let error = |target: Target| target.resolve().unwrap_err();
        // Above the kernel's highest pid (4 194 304).
        assert!(matches!(error(Target::Pid(i32::MAX)), LinkError::NoSuchProcess { .. }));
        assert!(matches!(error(Target::Name("no-such-name".into())), LinkError::NoSuchNamespace { .. }));
        for path in ["/no/such/file", "/dev/null", "/proc/self/ns/uts"] {
            let error = error(Target::Path(path.into()));
            assert!(matches!(error, LinkError::NotANamespace { .. }), "{path}: {error}");
            assert!(error.to_string().contains(path), "{error}");
        }
    }

    #[test]
    fn own_namespace_needs_no_other_user_namespace() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let namespaces = Target::Pid(pid).resolve().unwrap();
        assert!(namespaces.user.is_none());
    }
}
