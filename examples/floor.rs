//! The least that a Pingora proxy can do: one upstream, no checks, no headers of its own. What
//! maitred costs beyond it is maitred's own doing. For `bench/load` only; binds loopback.
//!
//! `floor HTTP_PORT HTTPS_PORT CERT KEY ORIGIN_PORT`
//!
//! Paths below `/cached/` go through the framework's test storage without any rules, so that a hit
//! has a floor as well.

use std::sync::LazyLock;

use async_trait::async_trait;
use pingora::cache::{CacheKey, CacheMeta, MemCache, RespCacheable};
use pingora::http::ResponseHeader;
use pingora::listeners::tls::TlsSettings;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

struct Floor {
    origin: String,
}

static STORE: LazyLock<MemCache> = LazyLock::new(MemCache::new);
const CACHED: &str = "/cached/";
const FRESH: std::time::Duration = std::time::Duration::from_secs(3_600);

#[async_trait]
impl ProxyHttp for Floor {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(
            self.origin.as_str(),
            false,
            String::new(),
        )))
    }

    fn request_cache_filter(&self, session: &mut Session, (): &mut ()) -> Result<()> {
        if session.req_header().uri.path().starts_with(CACHED) {
            session.cache.enable(&*STORE, None, None, None, None);
        }
        Ok(())
    }

    fn cache_key_callback(&self, session: &Session, (): &mut ()) -> Result<CacheKey> {
        Ok(CacheKey::new(session.req_header().uri.path(), ""))
    }

    fn response_cache_filter(
        &self,
        _: &Session,
        response: &ResponseHeader,
        (): &mut (),
    ) -> Result<RespCacheable> {
        // An example is no decision: the ban on asking the machine for the time is for those.
        #[expect(clippy::disallowed_methods, reason = "no clock to hand in here")]
        let now = std::time::SystemTime::now();
        let meta = CacheMeta::new(now + FRESH, now, 0, 0, response.clone());
        Ok(RespCacheable::Cacheable(meta))
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [http, https, cert, key, origin] = args.as_slice() else {
        return Error::e_explain(
            ErrorType::InternalError,
            "usage: floor HTTP_PORT HTTPS_PORT CERT KEY ORIGIN_PORT",
        );
    };
    let conf = ServerConf {
        threads: 2,
        work_stealing: false,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let floor = Floor {
        origin: format!("127.0.0.1:{origin}"),
    };
    let mut service = http_proxy_service(&server.configuration, floor);
    service.add_tcp(&format!("127.0.0.1:{http}"));
    let mut tls = TlsSettings::intermediate(cert, key)?;
    tls.enable_h2();
    service.add_tls_with_settings(&format!("127.0.0.1:{https}"), None, tls);
    server.add_service(service);
    server.run_forever()
}
