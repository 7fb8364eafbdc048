//! Clients that send requests without pause while something happens to the edge, and a strict count
//! of what became of each: a request that was sent on an open connection has to be answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::task::JoinSet;

use super::client::{Connection, tls, tls_config};
use super::edge::Edge;
use super::{DEADLINE, h2c, until, within};

/// Between two requests of one client.
const BREATH: Duration = Duration::from_millis(3);
/// After nobody took the connection.
const PAUSE: Duration = Duration::from_millis(10);
const TARGET: &str = "/open/load";

/// What became of the requests.
#[derive(Default)]
pub struct Tally {
    /// By kind of client, in the order of [`Load::start`].
    answered: [AtomicUsize; 3],
    failures: Mutex<Vec<String>>,
    /// Connections that were not made; nothing was sent on them.
    unreached: Mutex<Vec<Instant>>,
}

/// The running clients.
pub struct Load {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

#[derive(Clone)]
struct Client {
    kind: usize,
    address: SocketAddr,
    h1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// HTTP/1 clients that keep their connection, others that open one per request, and HTTP/2
    /// clients, two each.
    pub fn start(edge: &Edge) -> Self {
        let tally = Arc::new(Tally::default());
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for kind in [0, 1, 2, 0, 1, 2] {
            let client = Client {
                kind,
                address: edge.https,
                h1: tls_config(&edge.ca, &["http/1.1"]),
                h2: tls_config(&edge.ca, &["h2"]),
                tally: tally.clone(),
                stop: stop.clone(),
            };
            clients.spawn(async move { client.run().await });
        }
        Self {
            tally,
            stop,
            clients,
        }
    }

    /// Answers so far, of the kind of client that has the fewest.
    pub fn answered(&self) -> usize {
        let counts = self.tally.answered.iter();
        counts.map(|n| n.load(Ordering::Relaxed)).min().unwrap()
    }

    /// Waits until every kind of client got this many answers more.
    pub async fn proceed(&self, answers: usize) {
        let enough = self.answered() + answers;
        until("the load goes on", || async {
            (self.answered() >= enough).then_some(())
        })
        .await;
    }

    /// Stops the clients and waits for their last answers.
    pub async fn finish(mut self) -> Arc<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        within("the clients finish", async {
            while let Some(ended) = self.clients.join_next().await {
                ended.unwrap();
            }
        })
        .await;
        self.tally.clone()
    }
}

impl Tally {
    /// Requests that were sent and not answered with 200.
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }

    /// When connections were refused.
    pub fn unreached(&self) -> Vec<Instant> {
        self.unreached.lock().unwrap().clone()
    }

    fn fail(&self, why: String) {
        self.failures.lock().unwrap().push(why);
    }
}

impl Client {
    async fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            match self.kind {
                0 => self.kept(usize::MAX).await,
                1 => self.kept(1).await,
                _ => self.multiplexed().await,
            }
        }
    }

    /// Up to `requests` on one HTTP/1 connection, until the edge says that it closes.
    async fn kept(&self, requests: usize) {
        let io = match tls(self.address, "localhost", self.h1.clone()).await {
            Ok(io) => io,
            Err(_) => return self.unreached().await,
        };
        let mut connection = Connection::over(io);
        for number in 0..requests {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let request = connection.request("GET", TARGET, &[], b"");
            let response = match tokio::time::timeout(DEADLINE, request).await {
                Ok(Ok(response)) => response,
                Ok(Err(e)) => return self.tally.fail(format!("h1 request {number}: {e}")),
                Err(_) => return self.tally.fail(format!("h1 request {number}: silence")),
            };
            self.count(response.status);
            if response.header("connection") == Some("close") {
                return;
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    /// Requests on one HTTP/2 connection until GOAWAY.
    async fn multiplexed(&self) {
        let open = h2c::Connection::try_open(self.address, "localhost", self.h2.clone());
        let Ok(connection) = open.await else {
            return self.unreached().await;
        };
        while !self.stop.load(Ordering::Relaxed) {
            // Fails only where the connection takes no more requests: nothing was sent.
            let Ok((answer, _)) = connection.start("GET", TARGET, &[], true).await else {
                return;
            };
            match tokio::time::timeout(DEADLINE, answer).await {
                Ok(Ok(response)) => {
                    let status = response.status().as_u16();
                    let mut body = response.into_body();
                    while let Some(piece) = body.data().await {
                        if let Err(e) = piece {
                            return self.tally.fail(format!("h2 body: {e}"));
                        }
                    }
                    self.count(status);
                }
                // RFC 9113, section 6.8: GOAWAY names the last request that was looked at.
                Ok(Err(e)) if unprocessed(&e) => return,
                Ok(Err(e)) => return self.tally.fail(format!("h2: {e}")),
                Err(_) => return self.tally.fail("h2: silence".into()),
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    fn count(&self, status: u16) {
        if status == 200 {
            self.tally.answered[self.kind].fetch_add(1, Ordering::Relaxed);
        } else {
            self.tally.fail(format!("status {status}"));
        }
    }

    async fn unreached(&self) {
        self.tally.unreached.lock().unwrap().push(Instant::now());
        tokio::time::sleep(PAUSE).await;
    }
}

fn unprocessed(error: &h2::Error) -> bool {
    let reason = error.reason();
    (error.is_go_away() && error.is_remote() && reason == Some(h2::Reason::NO_ERROR))
        || (error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM))
}
