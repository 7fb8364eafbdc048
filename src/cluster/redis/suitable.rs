//! Decides whether a server keeps what is entrusted to it. Asks `CONFIG GET`, and `INFO` where `CONFIG`
//! is forbidden; what neither tells counts as not promised.

use std::collections::HashMap;

use ::redis::aio::MultiplexedConnection;
use ::redis::cmd;

use super::RedisError;

/// What the server must promise.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    /// It drops nothing that has not expired.
    pub no_eviction: bool,
    /// What it has acknowledged is on its disk.
    pub durable: bool,
}

/// What it tells about itself; `None` = it does not tell.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Told {
    maxmemory_policy: Option<String>,
    appendonly: Option<String>,
    appendfsync: Option<String>,
    no_appendfsync_on_rewrite: Option<String>,
}

pub(super) async fn check(
    connection: &mut MultiplexedConnection,
    needs: Needs,
) -> Result<(), RedisError> {
    // A server that wants a password says so to the first command only.
    let ping = cmd("PING").query_async::<String>(connection).await;
    ping.map_err(super::error)?;
    if needs == Needs::default() {
        return Ok(());
    }
    let mut told = Told::default();
    let config = cmd("CONFIG")
        .arg("GET")
        .arg("*append*")
        .query_async::<HashMap<String, String>>(connection)
        .await;
    match config {
        Ok(config) => {
            told.appendonly = config.get("appendonly").cloned();
            told.appendfsync = config.get("appendfsync").cloned();
            told.no_appendfsync_on_rewrite = config.get("no-appendfsync-on-rewrite").cloned();
        }
        Err(error) => unless_forbidden(error)?,
    }
    let config = cmd("CONFIG")
        .arg("GET")
        .arg("maxmemory-policy")
        .query_async::<HashMap<String, String>>(connection)
        .await;
    match config {
        Ok(config) => told.maxmemory_policy = config.get("maxmemory-policy").cloned(),
        Err(error) => unless_forbidden(error)?,
    }
    if told.maxmemory_policy.is_none() || told.appendonly.is_none() {
        let info = cmd("INFO").query_async::<String>(connection).await;
        match info {
            Ok(info) => told.add(&info),
            Err(error) => unless_forbidden(error)?,
        }
    }
    judge(&told, needs).map_err(RedisError::Unsuitable)
}

/// A server that says no has answered; a connection that broke has not.
fn unless_forbidden(error: ::redis::RedisError) -> Result<(), RedisError> {
    let error = super::error(error);
    match matches!(error, RedisError::Refused(_)) {
        true => Ok(()),
        false => Err(error),
    }
}

impl Told {
    /// Adds what `INFO` knows.
    fn add(&mut self, info: &str) {
        let line = |name: &str| {
            info.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key == name).then(|| value.trim().to_owned())
            })
        };
        self.maxmemory_policy = self
            .maxmemory_policy
            .take()
            .or_else(|| line("maxmemory_policy"));
        self.appendonly = self.appendonly.take().or_else(|| {
            line("aof_enabled").map(|on| if on == "1" { "yes".into() } else { "no".into() })
        });
    }
}

fn judge(told: &Told, needs: Needs) -> Result<(), String> {
    let mut wrong = Vec::new();
    if needs.no_eviction {
        match told.maxmemory_policy.as_deref() {
            Some("noeviction") => {}
            Some(other) => wrong.push(format!(
                "maxmemory-policy is {other}: under memory pressure it would drop accepted messages \
                 before their time, and they could be replayed. Set maxmemory-policy noeviction, or \
                 accept it with redis.danger_may_evict = true"
            )),
            None => wrong.push(
                "it does not tell its maxmemory-policy. Let this user run CONFIG GET or INFO; where \
                 the service has neither, see that it is noeviction and set \
                 redis.danger_may_evict = true"
                    .into(),
            ),
        }
    }
    if needs.durable {
        wrong.extend(not_durable(told));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("; ")),
    }
}

/// Why an acknowledged event could be lost.
fn not_durable(told: &Told) -> Option<String> {
    let accept = "or accept the loss with redis.danger_not_durable = true";
    match (told.appendonly.as_deref(), told.appendfsync.as_deref()) {
        (Some("yes"), Some("always")) => match told.no_appendfsync_on_rewrite.as_deref() {
            Some("yes") => Some(format!(
                "no-appendfsync-on-rewrite is yes: while the file is rewritten, events answered with \
                 200 are not on disk yet and a crash loses them. Set it to no, {accept}"
            )),
            Some(_) | None => None,
        },
        (Some("yes"), Some(fsync)) => Some(format!(
            "appendfsync is {fsync}: a crash of its machine loses events of the last second or more \
             that were answered with 200, and no provider sends those again. Set appendfsync always, \
             {accept}"
        )),
        (Some("yes"), None) | (None, _) => Some(format!(
            "it does not tell its appendonly and appendfsync. Let this user run CONFIG GET, {accept}"
        )),
        (Some(_), _) => Some(format!(
            "appendonly is no: a restart loses every event that was answered with 200 and is not yet \
             delivered, and no provider sends those again. Set appendonly yes and appendfsync always, \
             {accept}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{Needs, Told, judge};

    const BOTH: Needs = Needs {
        no_eviction: true,
        durable: true,
    };

    fn told(policy: &str, appendonly: &str, appendfsync: &str) -> Told {
        Told {
            maxmemory_policy: Some(policy.into()),
            appendonly: Some(appendonly.into()),
            appendfsync: Some(appendfsync.into()),
            no_appendfsync_on_rewrite: Some("no".into()),
        }
    }

    #[test]
    fn only_a_server_that_keeps_everything_is_fit() {
        assert_eq!(judge(&told("noeviction", "yes", "always"), BOTH), Ok(()));
        for (server, mentions) in [
            (told("allkeys-lru", "yes", "always"), "danger_may_evict"),
            (told("volatile-ttl", "yes", "always"), "volatile-ttl"),
            (told("noeviction", "no", "always"), "appendonly is no"),
            (told("noeviction", "yes", "everysec"), "everysec"),
            (Told::default(), "CONFIG GET"),
        ] {
            let why = judge(&server, BOTH).expect_err(mentions);
            assert!(why.contains(mentions), "{why}");
        }
        let mut rewriting = told("noeviction", "yes", "always");
        rewriting.no_appendfsync_on_rewrite = Some("yes".into());
        assert!(judge(&rewriting, BOTH).is_err());
    }

    #[test]
    fn a_server_without_config_is_believed_what_info_says() {
        let mut server = Told::default();
        server.add("# Memory\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n");
        let evicting = Needs {
            no_eviction: true,
            durable: false,
        };
        assert_eq!(judge(&server, evicting), Ok(()));
        let why = judge(&server, BOTH).expect_err("INFO has no appendfsync");
        assert!(why.contains("CONFIG GET"), "{why}");
    }

    #[test]
    fn what_nobody_needs_is_not_asked_for() {
        assert_eq!(
            judge(&told("allkeys-lru", "no", "no"), Needs::default()),
            Ok(())
        );
    }
}
