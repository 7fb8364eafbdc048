//! The command line of the API: argv and environment in, exit code out.

use std::process::ExitCode;

use chefcloud_api::{Api, Config, Listener};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// BSD's `EX_USAGE`: the configuration is wrong, so starting again will not help.
const EXIT_USAGE: u8 = 64;

#[derive(Parser)]
#[command(name = "chefcloud-api", version, about = "ChefCloud's domain API")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API (the default).
    Serve {
        /// `host:port` or `unix:/path`.
        #[arg(long, env = "CHEFCLOUD_LISTEN", default_value = "127.0.0.1:8081")]
        listen: String,
    },
    /// Work on the database.
    Db {
        #[command(subcommand)]
        command: DbCommand,
    },
    /// Add demo data; refused in production.
    SeedDemo,
}

#[derive(Subcommand)]
enum DbCommand {
    /// Bring the schema up to date.
    Migrate,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let lines = fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match run(arguments, config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments, config: Config) -> anyhow::Result<()> {
    let default = Command::Serve {
        listen: "127.0.0.1:8081".to_owned(),
    };
    match arguments.command.unwrap_or(default) {
        Command::Serve { listen } => {
            let api = Api::open(config).await?;
            let listener = Listener::bind(&listen).await?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let shutdown = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            tracing::info!(listen, "serving");
            api.serve(listener, shutdown).await
        }
        Command::Db {
            command: DbCommand::Migrate,
        } => Api::open(config).await.map(|_| ()),
        Command::SeedDemo => {
            let demo = Api::open(config).await?.seed_demo().await?;
            tracing::info!(
                org.id = demo.org_id,
                user.email = demo.email,
                "demo data is there"
            );
            Ok(())
        }
    }
}
