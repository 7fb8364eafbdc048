fn main() {
    tracing_subscriber::fmt().init();
    let source = maitred::config::ConfigSource {
        path: std::env::args().nth(1).map(Into::into),
        env: maitred::config::Env::process(),
    };
    let config = source.load().map_err(|e| eprintln!("{e}")).unwrap();
    maitred::app::run(source, config, false).unwrap();
}
