//! `osupdate`: asks the daemon, tells people or programs what it said.
//!
//! # Reading order
//! [`arguments`] is the command line; [`run`](run()) does it; [`tell`] words it.

pub mod arguments;
pub mod tell;

use std::io::{IsTerminal as _, Write as _};

use tonic::transport::Channel;

use crate::failure::{Class, Failure};
use crate::wire;
use crate::wire::update_client::UpdateClient;
use arguments::{Arguments, Command};

/// Done as asked.
pub const DONE: u8 = 0;
/// There was nothing to do.
pub const NOTHING: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 100;

/// Carries out a command and returns the exit code of `docs/exit-codes.md`.
pub async fn run(arguments: Arguments) -> u8 {
    let json = arguments.json;
    match ask(arguments).await {
        Ok(code) => code,
        Err(failure) => {
            tell::failure(&failure, json);
            failure.class.exit_code()
        }
    }
}

async fn ask(arguments: Arguments) -> Result<u8, Failure> {
    let json = arguments.json;
    let mut client = connect(&arguments.socket).await?;
    match arguments.command {
        Command::Check => {
            let report = client.check(wire::CheckRequest {}).await.map_err(lost)?.into_inner();
            tell::check(&report, json);
            Ok(code_of(&report))
        }
        Command::Apply { force, allow_older, stage, reboot, source } => {
            let source = source.unwrap_or_default();
            let request = wire::ApplyRequest { force, allow_older, stage, source };
            apply(&mut client, request, reboot, json).await
        }
        Command::Retry { reboot } => {
            let request = wire::ApplyRequest { force: true, ..Default::default() };
            apply(&mut client, request, reboot, json).await
        }
        Command::Status => {
            let status = client.status(wire::StatusRequest {}).await.map_err(lost)?.into_inner();
            tell::status(&status, json);
            Ok(DONE)
        }
        Command::History { limit } => {
            let request = wire::HistoryRequest { limit };
            let history = client.history(request).await.map_err(lost)?.into_inner();
            tell::history(&history, json);
            Ok(DONE)
        }
        Command::Rollback { reboot } => {
            let answer = client.rollback(wire::RollbackRequest {}).await.map_err(lost)?;
            let answer = answer.into_inner();
            if let Some(error) = &answer.error {
                return Err(from_wire(error));
            }
            tell::rollback(&answer, json);
            if reboot && !answer.next.is_empty() {
                crate::daemon::watch::request_reboot()?;
            }
            Ok(DONE)
        }
        Command::Verify { slot } => {
            let slot = slot.map(|slot| slot.word().to_owned()).unwrap_or_default();
            let answer = client.verify(wire::VerifyRequest { slot }).await.map_err(lost)?;
            let answer = answer.into_inner();
            tell::verify(&answer, json);
            let broken = answer.slots.iter().any(|slot| !slot.whole && !slot.empty);
            match &answer.error {
                Some(error) => Ok(Class::from_word(&error.class).exit_code()),
                None if broken => Ok(Class::Corrupt.exit_code()),
                None => Ok(DONE),
            }
        }
        Command::Pause { reason } => {
            let reason = reason.unwrap_or_default();
            let answer = client.pause(wire::PauseRequest { reason }).await.map_err(lost)?;
            paused(&answer.into_inner(), json)
        }
        Command::Resume => {
            let answer = client.resume(wire::ResumeRequest {}).await.map_err(lost)?;
            paused(&answer.into_inner(), json)
        }
        // Made without a daemon, by the caller.
        Command::Completions { .. } | Command::Man { .. } => Ok(USAGE),
    }
}

async fn apply(
    client: &mut UpdateClient<Channel>,
    request: wire::ApplyRequest,
    reboot: bool,
    json: bool,
) -> Result<u8, Failure> {
    let mut stream = client.apply(request).await.map_err(lost)?.into_inner();
    let mut meter = tell::Meter::new(!json && std::io::stderr().is_terminal());
    while let Some(message) = stream.message().await.map_err(lost)? {
        let Some(report) = message.report else {
            meter.show(&message);
            continue;
        };
        meter.clear();
        tell::apply(&report, json);
        let armed = matches!(report.outcome.as_str(), "armed" | "already-armed");
        if reboot && armed {
            crate::daemon::watch::request_reboot()?;
        }
        return Ok(code_of(&report));
    }
    Err(Failure::new(
        Class::System,
        "daemon",
        "the updater went away before it was done; `osupdate status`, then `osupdate apply` again",
    ))
}

fn paused(answer: &wire::PauseAnswer, json: bool) -> Result<u8, Failure> {
    if let Some(error) = &answer.error {
        return Err(from_wire(error));
    }
    tell::paused(answer, json);
    Ok(if answer.changed { DONE } else { NOTHING })
}

fn code_of(report: &wire::Report) -> u8 {
    match &report.error {
        Some(error) => Class::from_word(&error.class).exit_code(),
        None => match report.outcome.as_str() {
            "running" | "not-newer" | "already-armed" | "already-sealed" => NOTHING,
            _ => DONE,
        },
    }
}

async fn connect(path: &std::path::Path) -> Result<UpdateClient<Channel>, Failure> {
    let channel = os_init::socket::connect(path.to_owned()).await.map_err(|cause| {
        let message = format!(
            "connect to the updater at {}: {cause}; does the service `updater` run, and are you \
             root?",
            path.display()
        );
        Failure::new(Class::System, "daemon", message)
    })?;
    Ok(UpdateClient::new(channel))
}

fn lost(status: tonic::Status) -> Failure {
    let told = status.message();
    let (class, message) = match status.code() {
        tonic::Code::PermissionDenied => (Class::Refused, format!("ask the updater: {told}")),
        // The daemon's own answers; all other codes are the connection's.
        tonic::Code::Unavailable | tonic::Code::InvalidArgument => {
            (Class::System, format!("ask the updater: {told}"))
        }
        _ => (
            Class::System,
            format!("the updater went away ({told}); `osupdate status`, then the same again"),
        ),
    };
    Failure::new(class, "daemon", message)
}

fn from_wire(error: &wire::Failure) -> Failure {
    Failure::new(Class::from_word(&error.class), &error.kind, error.message.clone())
}

/// Writes shell completions, or man pages into a folder.
///
/// # Errors
/// The system's.
pub fn generate(command: &Command) -> std::io::Result<()> {
    let mut root = arguments::command();
    match command {
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut root, "osupdate", &mut std::io::stdout());
            Ok(())
        }
        Command::Man { folder } => {
            std::fs::create_dir_all(folder)?;
            clap_mangen::generate_to(root, folder)
        }
        _ => std::io::stdout().flush(),
    }
}
