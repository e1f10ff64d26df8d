//! The file that a network's leases are kept in.
//!
//! Each change is a line, appended and handed to the kernel before the reply leaves, so it survives a daemon that is
//! killed. It is not forced onto the disk: after a power failure the containers that held the addresses are gone too.
//! At start, and when the file has grown much beyond what it says, it is written anew beside itself and renamed, so at
//! every moment there is one whole file. A lock keeps a second daemon out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use tapswitch_dhcp::Server;

/// Lines after which a file is written anew.
const REWRITE_AFTER: usize = 4_096;

/// The lease file of one network, or nothing for a network that keeps its leases in memory.
pub(super) struct Journal {
    file: Option<Kept>,
    /// The lines since they were taken last, while somebody listens.
    news: Option<Vec<Vec<u8>>>,
}

struct Kept {
    path: PathBuf,
    file: File,
    lines: usize,
    /// Said once.
    failed: bool,
    _lock: Flock<File>,
}

impl Journal {
    /// Keeps nothing.
    pub(super) fn in_memory() -> Journal {
        Journal { file: None, news: None }
    }

    /// The lines since this was asked last, if `heard` says that somebody listened then; and whether somebody does now.
    pub(super) fn take_news(&mut self, heard: bool) -> Vec<Vec<u8>> {
        std::mem::replace(&mut self.news, heard.then(Vec::new)).unwrap_or_default()
    }

    /// Opens the file of a network, and restores what it says.
    pub(super) fn open(dir: &Path, network: &str, dhcp: &mut Server) -> Result<Journal, String> {
        let path = dir.join(format!("{network}.leases"));
        let explain = |what: &str, error: io::Error| {
            format!(
                "cannot {what} the lease file {}: {error}; choose a directory where you may write (--leases DIR)",
                path.display()
            )
        };
        fs::create_dir_all(dir).map_err(|e| explain("make a directory for", e))?;
        let lock = private().create(true).truncate(false).open(dir.join(format!("{network}.lock")));
        let lock = lock.map_err(|e| explain("lock", e))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            nix::errno::Errno::EWOULDBLOCK => format!(
                "another daemon keeps its leases in {}; stop it, or give this one a directory of its own \
                 (--leases DIR)",
                path.display()
            ),
            error => explain("lock", error.into()),
        })?;
        match fs::read(&path) {
            Ok(bytes) => {
                let restored = dhcp.restore(&bytes);
                for warning in &restored.warnings {
                    tracing::warn!("lease file {}: {warning}", path.display());
                }
                tracing::info!("network {network}: {} leases restored", restored.leases);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(explain("read", error)),
        }
        let file = rewrite(&path, &dhcp.snapshot()).map_err(|e| explain("write", e))?;
        Ok(Journal { file: Some(Kept { path, file, lines: 0, failed: false, _lock: lock }), news: None })
    }

    /// Appends one line.
    pub(super) fn record(&mut self, line: &[u8]) {
        if let Some(news) = &mut self.news {
            news.push(line.to_vec());
        }
        let Some(kept) = &mut self.file else { return };
        kept.lines += 1;
        if let Err(error) = kept.file.write_all(line)
            && !kept.failed
        {
            kept.failed = true;
            tracing::error!(
                "cannot write the lease file {}: {error}; leases given from now on may be lost when the daemon ends",
                kept.path.display()
            );
        }
    }

    /// Writes the file anew if it has grown.
    pub(super) fn tidy(&mut self, snapshot: impl FnOnce() -> Vec<u8>) {
        let Some(kept) = self.file.as_mut().filter(|kept| kept.lines >= REWRITE_AFTER) else { return };
        kept.lines = 0;
        match rewrite(&kept.path, &snapshot()) {
            Ok(file) => kept.file = file,
            Err(error) => tracing::warn!("cannot tidy the lease file {}: {error}", kept.path.display()),
        }
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// Writes a whole file beside the old one and puts it in its place. Returns it, open at its end.
fn rewrite(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let beside = path.with_extension("leases.new");
    let mut file = private().create(true).truncate(true).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&beside, path)?;
    Ok(file)
}
