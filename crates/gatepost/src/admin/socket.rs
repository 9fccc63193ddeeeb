//! The way in for the command line: a Unix socket that only its owner and root can connect to. A request is one line of
//! JSON, and so is its answer.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Answer, Asking, Command, ask_control};

/// Longest request.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;
/// Longest answer that the command line takes.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How long a request may take to come, and its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the command line waits for an answer: a reload may have to read a lot.
const ANSWER_PATIENCE: Duration = Duration::from_mins(2);
/// How long the end of the program waits for the last answers.
const LAST_TIME: Duration = Duration::from_secs(1);
/// Requests that are answered at once, and those that wait.
const REQUESTS_MAX: usize = 4;
const BACKLOG_CONNECTIONS: i32 = 64;

/// The socket, listened on until this is dropped; then its file goes.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    /// Which file it is, by device and number: another may have taken its place.
    file: (u64, u64),
    serving: JoinHandle<()>,
    /// One for each request that is being answered.
    permits: Arc<Semaphore>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.serving.abort();
        if self.is_at(&self.path) {
            // Somebody may be faster.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Socket {
    /// Listens at `path`, on the runtime that this is called on. A file left there by a Gatepost that is gone is
    /// replaced.
    pub(crate) fn listen(path: &Path, asking: Asking) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(file) if file.file_type().is_socket() => remove_dead(path)?,
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        // The file gets its mode from here: nobody else can connect, not even for a moment.
        rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        socket.listen(BACKLOG_CONNECTIONS)?;
        socket.set_nonblocking(true)?;
        let file = identity(path).ok_or(io::ErrorKind::NotFound)?;
        let listener = UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())?;
        let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
        let serving = tokio::spawn(serve(listener, asking, Arc::clone(&permits)));
        Ok(Self { path: path.to_owned(), file, serving, permits })
    }

    /// Is listened on no more, and waits a moment until those are answered who have asked.
    pub(crate) async fn finish(self) {
        let permits = Arc::clone(&self.permits);
        drop(self);
        let _ = timeout(LAST_TIME, permits.acquire_many(REQUESTS_MAX as u32)).await;
    }

    /// Stands at another path from now on.
    pub(crate) fn move_to(&mut self, path: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, path)?;
        path.clone_into(&mut self.path);
        Ok(())
    }

    /// Whether it is what stands at `path`, whatever its name is there.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        identity(path) == Some(self.file)
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// Removes a socket that nobody listens at.
fn remove_dead(path: &Path) -> io::Result<()> {
    match StdStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another Gatepost answers there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
    }
}

async fn serve(listener: UnixListener, asking: Asking, permits: Arc<Semaphore>) {
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                // The file's mode says the same; it may have been changed.
                let own = rustix::process::geteuid().as_raw();
                if !stream.peer_cred().is_ok_and(|peer| [0, own].contains(&peer.uid())) {
                    continue;
                }
                let asking = asking.clone();
                tokio::spawn(async move {
                    // Whoever asked and is gone misses the answer, which is all.
                    let _ = answer(stream, &asking).await;
                    drop(permit);
                });
            }
            // Out of files, most likely: it will pass.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(stream: UnixStream, asking: &Asking) -> io::Result<()> {
    let by = stream.peer_cred().map_or_else(|_| "somebody".into(), |peer| format!("uid {}", peer.uid()));
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = tokio::io::BufReader::new(reader.take(REQUEST_BYTES_MAX));
    timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    let answer = match request(&line) {
        Ok(command) => ask_control(command, by, asking).await,
        Err(what) => Err(what),
    };
    let mut text = answer.unwrap_or_else(|error| json!({ "error": error })).to_string();
    text.push('\n');
    timeout(PATIENCE, writer.write_all(text.as_bytes())).await?
}

fn request(line: &[u8]) -> Result<Command, String> {
    let request: Value = serde_json::from_slice(line).map_err(|_| "a request is a line of JSON".to_owned())?;
    Command::from_json(request)
}

/// Asks the Gatepost that listens at `path`.
pub(crate) fn ask(path: &Path, command: &Command) -> Answer {
    ask_within(ANSWER_PATIENCE, path, command)
}

/// As [`ask`], for somebody who has less time.
pub(crate) fn ask_within(patience: Duration, path: &Path, command: &Command) -> Answer {
    let failed = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ": is Gatepost running with this configuration?"
            }
            io::ErrorKind::PermissionDenied => ": only the user that Gatepost runs as, or root, may ask",
            _ => "",
        };
        format!("{}: {error}{hint}", path.display())
    };
    let exchange = || {
        let mut stream = StdStream::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{}\n", command.to_json()).as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut line)?;
        Ok(line)
    };
    let line = exchange().map_err(failed)?;
    let answer: Value = serde_json::from_str(&line).map_err(|_| format!("{}: no answer came back", path.display()))?;
    match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None if answer[command.name()].is_array() => Ok(answer),
        None => Err(format!("{}: an answer came back that is none to this command", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Asked;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn it_is_its_owners_alone_and_comes_and_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state/admin.sock");
        let (asking, mut asked) = mpsc::channel(1);
        let socket = Socket::listen(&path, asking.clone()).expect("a socket");
        assert_eq!(std::fs::metadata(&path).expect("a file").mode() & 0o777, 0o600);
        let second = Socket::listen(&path, asking.clone()).expect_err("a second one");
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);

        let client = |command: Command| {
            let path = path.clone();
            tokio::task::spawn_blocking(move || ask(&path, &command))
        };
        let asking_status = client(Command::Status);
        let Asked { command, reply, .. } = asked.recv().await.expect("a question");
        assert_eq!(command, Command::Status);
        reply.send(Ok(json!({ "status": [1] }))).expect("somebody who waits");
        assert_eq!(asking_status.await.expect("a thread"), Ok(json!({ "status": [1] })));
        let failing = client(Command::Reload);
        asked.recv().await.expect("a question").reply.send(Err("no".into())).expect("somebody who waits");
        assert_eq!(failing.await.expect("a thread"), Err("no".to_owned()));

        assert!(socket.is_at(&path));
        drop(socket);
        assert!(!path.exists());
        assert!(ask(&path, &Command::Status).expect_err("nobody").contains("is Gatepost running"));
        // Left behind by one that was killed.
        drop(UnixListener::bind(&path).expect("a socket"));
        let socket = Socket::listen(&path, asking.clone()).expect("a socket in its place");
        std::fs::remove_file(&path).expect("a file");
        std::fs::write(&path, "something else").expect("a file");
        drop(socket);
        let refused = Socket::listen(&path, asking.clone()).expect_err("a refusal");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).expect("the same file"), b"something else");
    }

    #[tokio::test]
    async fn what_is_no_request_is_told_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        let (asking, _asked) = mpsc::channel(1);
        let _socket = Socket::listen(&path, asking).expect("a socket");
        for (said, told) in [("hello\n", "line of JSON"), ("{\"command\":\"dance\"}\n", "no command of this version")] {
            let mut stream = UnixStream::connect(&path).await.expect("a connection");
            stream.write_all(said.as_bytes()).await.expect("a way");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer");
            assert!(answer.contains(told), "{answer}");
        }
        let mut stream = UnixStream::connect(&path).await.expect("a connection");
        let endless = vec![b'x'; usize::try_from(REQUEST_BYTES_MAX).expect("a size") + 1];
        let _ = stream.write_all(&endless).await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.is_empty() || answer.contains("line of JSON"), "{answer}");
    }
}
