fn main() -> std::process::ExitCode {
    tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .init();
    let args: Vec<String> = std::env::args().collect();
    let path = args
        .iter()
        .position(|a| a == "--config")
        .map(|i| args[i + 1].clone().into());
    let source = maitred::config::ConfigSource {
        path,
        env: maitred::config::Env::process(),
    };
    let config = source.load().map_err(|e| eprintln!("{e}")).unwrap();
    maitred::app::run(source, config, args.iter().any(|a| a == "--upgrade")).unwrap()
}
