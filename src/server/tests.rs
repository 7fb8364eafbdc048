//! The way out, seen from outside: a child process of this test binary runs a real server, gets real
//! signals and is watched by real clients.

mod child;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::kernel::clock::Clock;

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Exit code of the test harness when the child's `run` gave `FAILURE`.
const HARNESS_FAILURE: i32 = 101;

/// A server in a process of its own.
struct Process {
    child: Child,
    address: SocketAddr,
}

/// How a child is to be started; `child` reads it from the environment.
#[derive(Clone, Copy)]
struct Setup<'a> {
    mode: &'a str,
    address: &'a str,
    announce_ms: u64,
    window_ms: u64,
    timeout_ms: u64,
    upgrade_socket: &'a Path,
}

fn setup(upgrade_socket: &Path) -> Setup<'_> {
    Setup {
        mode: "serve",
        address: "127.0.0.1:0",
        announce_ms: 200,
        window_ms: 400,
        timeout_ms: 20_000,
        upgrade_socket,
    }
}

impl Setup<'_> {
    fn spawn(self) -> Child {
        let drain = [self.announce_ms, self.window_ms, self.timeout_ms];
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server::tests::child::process", "--nocapture"])
            .env(child::MODE, self.mode)
            .env(child::ADDRESS, self.address)
            .env(child::DRAIN_MS, drain.map(|ms| ms.to_string()).join(" "))
            .env(child::UPGRADE_SOCKET, self.upgrade_socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn start(self) -> Process {
        let mut child = self.spawn();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = stdout.lines().map_while(Result::ok);
        let address = lines
            .find_map(|line| line.split_once(child::LISTENING)?.1.trim().parse().ok())
            .expect("the child did not come up");
        // Read on, or the child's next line would fail.
        std::thread::spawn(move || lines.for_each(drop));
        Process { child, address }
    }
}

impl Process {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn exit(&mut self) -> ExitStatus {
        until(|| self.child.try_wait().unwrap())
    }

    fn ask(&self, path: &str) -> Result<String, String> {
        get(&mut connect(self.address)?, path)
    }

    /// Sends a request and waits until the server is at work on it.
    fn begin(&self, path: &str) -> TcpStream {
        let before = self.begun();
        let mut stream = connect(self.address).unwrap();
        send(&mut stream, path).unwrap();
        until(|| (self.begun() > before).then_some(()));
        stream
    }

    fn begun(&self) -> usize {
        let answer = self.ask("/begun").unwrap();
        answer.rsplit("\r\n").next().unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is an answer; fails the test when there is none.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let clock = Clock::system();
    let start = clock.instant();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        let waited = clock.instant() - start;
        assert!(waited < PATIENCE, "it did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Ok(stream)
}

fn send(stream: &mut TcpStream, path: &str) -> Result<(), String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
    let sent = stream.write_all(request.as_bytes());
    sent.map_err(|error| format!("send: {error}"))
}

/// One request and its whole response.
fn get(stream: &mut TcpStream, path: &str) -> Result<String, String> {
    send(stream, path)?;
    receive(stream)
}

/// A response to its end, by length or by the last chunk.
fn receive(stream: &mut TcpStream) -> Result<String, String> {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    while !is_complete(&text) {
        match stream.read(&mut chunk) {
            Ok(0) => return Err(format!("cut after {:?}", String::from_utf8_lossy(&text))),
            Ok(read) => text.extend_from_slice(&chunk[..read]),
            Err(error) => return Err(format!("receive: {error} after {} bytes", text.len())),
        }
    }
    Ok(String::from_utf8(text).unwrap().to_ascii_lowercase())
}

fn is_complete(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    match head.split_once("content-length: ") {
        Some((_, rest)) => body.len() >= rest.lines().next().unwrap().parse().unwrap(),
        None => body.ends_with("0\r\n\r\n"),
    }
}

/// A path for an upgrade socket; removed at the end.
struct Scratch {
    dir: PathBuf,
    socket: PathBuf,
}

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("maitred-server-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let socket = dir.join("upgrade.sock");
        Self { dir, socket }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Clients that never stop asking; gives the processes that answered, and every failure.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(Vec<String>, Vec<String>)>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |keeps_alive: bool| {
            let stop = stop.clone();
            std::thread::spawn(move || ask_until(&stop, address, keeps_alive))
        };
        let clients = [true, false, true, false].map(client).into();
        Self { stop, clients }
    }

    fn end(self) -> (Vec<String>, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let results = self
            .clients
            .into_iter()
            .map(|client| client.join().unwrap());
        let (answers, failures): (Vec<_>, Vec<_>) = results.unzip();
        (answers.concat(), failures.concat())
    }
}

fn ask_until(
    stop: &AtomicBool,
    address: SocketAddr,
    keeps_alive: bool,
) -> (Vec<String>, Vec<String>) {
    let (mut answers, mut failures) = (Vec::new(), Vec::new());
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let stream = kept.take().map_or_else(|| connect(address), Ok);
        let answered = stream.and_then(|mut stream| Ok((get(&mut stream, "/")?, stream)));
        match answered {
            Ok((answer, stream)) => {
                if keeps_alive && !answer.contains("connection: close") {
                    kept = Some(stream);
                }
                answers.push(answer.rsplit("\r\n").next().unwrap().to_owned());
            }
            Err(failure) => failures.push(failure),
        }
    }
    (answers, failures)
}

#[test]
fn sigterm_finishes_what_is_under_way_and_exits_as_soon_as_it_is_done() {
    let scratch = Scratch::new();
    let mut process = setup(&scratch.socket).start();
    let mut slow = process.begin("/slow");
    let mut stream = process.begin("/stream");
    let mut idle = connect(process.address).unwrap();
    get(&mut idle, "/").unwrap();
    let _silent = connect(process.address).unwrap();

    let clock = Clock::system();
    let start = clock.instant();
    process.signal(Signal::TERM);
    // Announcing: still accepting, not ready, and every response closes its connection.
    let answer = until(|| {
        let answer = process.ask("/ready").unwrap();
        answer.ends_with("false").then_some(answer)
    });
    assert!(answer.contains("connection: close"), "{answer}");
    until(|| connect(process.address).is_err().then_some(()));

    assert!(receive(&mut stream).unwrap().contains("bye"));
    assert!(receive(&mut slow).unwrap().contains("slow"));
    assert_eq!(idle.read(&mut [0; 1]).unwrap_or(0), 0);
    assert_eq!(process.exit().code(), Some(0));
    let took = clock.instant() - start;
    // Less than the silent client's header budget and than the time for requests under way.
    assert!(
        took < Duration::from_secs(10),
        "waited for its timeout: {took:?}"
    );
}

#[test]
fn out_of_time_what_is_left_is_cut() {
    let scratch = Scratch::new();
    let mut quick = setup(&scratch.socket);
    (quick.announce_ms, quick.timeout_ms) = (0, 300);
    let mut process = quick.start();
    let mut stuck = process.begin("/stuck");
    process.signal(Signal::TERM);
    assert!(receive(&mut stuck).is_err());
    assert_eq!(process.exit().code(), Some(0));
}

#[test]
fn a_second_signal_stops_at_once() {
    let scratch = Scratch::new();
    for second in [Signal::TERM, Signal::INT] {
        let mut process = setup(&scratch.socket).start();
        let mut stuck = process.begin("/stuck");
        process.signal(Signal::TERM);
        until(|| connect(process.address).is_err().then_some(()));
        assert!(process.is_running());
        process.signal(second);
        assert!(receive(&mut stuck).is_err());
        assert_eq!(process.exit().code(), Some(HARNESS_FAILURE));
    }
}

#[test]
fn sigint_stops_without_waiting() {
    let scratch = Scratch::new();
    let mut process = setup(&scratch.socket).start();
    let mut stuck = process.begin("/stuck");
    process.signal(Signal::INT);
    assert!(receive(&mut stuck).is_err());
    assert_eq!(process.exit().code(), Some(0));
}

#[test]
fn an_upgrade_under_load_loses_no_request() {
    let scratch = Scratch::new();
    let socket = &scratch.socket;
    let mut old = setup(socket).start();
    let load = Load::on(old.address);
    let mut slow = old.begin("/slow");
    let mut stream = old.begin("/stream");

    let address = old.address.to_string();
    let mut upgrade = setup(socket);
    (upgrade.mode, upgrade.address) = ("upgrade", &address);
    // The successor says where it listens only after it has the sockets.
    let started = std::thread::scope(|scope| {
        let successor = scope.spawn(|| upgrade.start());
        until(|| socket.exists().then_some(()));
        old.signal(Signal::QUIT);
        successor.join().unwrap()
    });
    let mut new = started;
    assert_eq!(old.exit().code(), Some(0));
    assert!(receive(&mut slow).unwrap().contains("slow"));
    assert!(receive(&mut stream).unwrap().contains("bye"));
    // The old one is gone, so this is the new one's answer.
    new.ask("/").unwrap();

    let (answers, failures) = load.end();
    let by = |process: &Process| {
        let pid = process.child.id().to_string();
        answers.iter().filter(|answer| **answer == pid).count()
    };
    println!(
        "old {} new {} failed {}",
        by(&old),
        by(&new),
        failures.len()
    );
    assert!(failures.is_empty(), "{failures:?}");
    assert!(by(&old) > 0 && by(&new) > 0, "both must have answered");
    new.signal(Signal::TERM);
    assert_eq!(new.exit().code(), Some(0));
}

#[test]
fn a_successor_that_does_not_come_up_costs_nothing() {
    let scratch = Scratch::new();
    let socket = &scratch.socket;
    let mut old = setup(socket).start();
    let address = old.address.to_string();
    let mut upgrade = setup(socket);
    (upgrade.mode, upgrade.address) = ("upgrade-and-die", &address);
    let mut successor = upgrade.spawn();
    until(|| socket.exists().then_some(()));
    old.signal(Signal::QUIT);
    successor.wait().unwrap();
    assert!(old.ask("/ready").unwrap().ends_with("true"));
    assert!(old.is_running());

    // With nobody there at all it goes on just so, and still listens to the next signal.
    old.signal(Signal::QUIT);
    assert!(old.ask("/ready").unwrap().ends_with("true"));
    old.signal(Signal::TERM);
    assert_eq!(old.exit().code(), Some(0));
}

#[test]
fn a_service_that_dies_takes_the_process_down() {
    let scratch = Scratch::new();
    for mode in [
        "critical-ends",
        "critical-fails",
        "critical-panics",
        "service-panics",
    ] {
        let mut dying = setup(&scratch.socket);
        dying.mode = mode;
        let mut process = Process {
            child: dying.spawn(),
            address: "127.0.0.1:0".parse().unwrap(),
        };
        assert_eq!(process.exit().code(), Some(70), "{mode}");
    }
}

#[test]
fn background_work_is_written_before_the_exit() {
    let scratch = Scratch::new();
    let mut flushing = setup(&scratch.socket);
    flushing.mode = "flush";
    let mut process = flushing.start();
    process.signal(Signal::TERM);
    assert_eq!(process.exit().code(), Some(0));
    let written = scratch.dir.join("flushed");
    assert_eq!(std::fs::read(written).unwrap(), b"all of it");
}

#[cfg(target_os = "linux")]
#[test]
fn running_out_of_descriptors_is_survived() {
    let scratch = Scratch::new();
    let mut short = setup(&scratch.socket);
    short.mode = "few-descriptors";
    let process = short.start();
    let mut crowd: Vec<_> = (0..80).map(|_| connect(process.address).unwrap()).collect();
    // The last one waits in the kernel's queue: it is connected but not accepted.
    let mut last = crowd.pop().unwrap();
    send(&mut last, "/").unwrap();
    last.set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    assert!(receive(&mut last).is_err(), "there was no shortage");

    drop(crowd);
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    receive(&mut last).unwrap();
}
