//! Gatepost's chores: `cargo xtask demo`, `cargo xtask test`, `cargo xtask bench`.

mod bench;
mod cargo;
mod demo;
mod test;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run Gatepost before two real mail servers on this machine, until Ctrl-C
    Demo(demo::Options),
    /// Run all tests: format, lints, unit tests, conversations, and everything together, with the servers and clients of real sites
    Test(test::Options),
    /// Measure Gatepost beside its peers
    Bench(bench::Options),
}

fn main() -> std::process::ExitCode {
    let result = match Xtask::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
