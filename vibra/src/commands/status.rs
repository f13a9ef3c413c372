//! `vibra status`: how a running dispatcher and directory fare.

use super::check::amounts;
use crate::{
    cli,
    config::Config,
    exit::{Failure, Outcome},
    parts,
};
use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use vibra_model::Snapshot;
use vibra_report::{Column, Table};

/// How long one of them may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const LONGEST: usize = 16 << 20;

/// Asks what the configuration names and prints it; fails if one of them does not answer.
pub(crate) fn run(args: &cli::Status) -> Outcome {
    let config = Config::load(&args.config).map_err(Failure::Usage)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin = config.dispatcher.as_ref().and_then(|dispatcher| dispatcher.admin);
    if admin.is_none() && config.directory.is_none() {
        return Err(Failure::Usage(anyhow::anyhow!(
            "{} names neither an admin address nor a directory",
            args.config.display()
        )));
    }
    let dispatcher = admin.map(|admin| runtime.block_on(dispatcher(admin))).transpose()?;
    let directory = match &config.directory {
        Some(directory) => {
            let client = parts::directory::client(directory)?;
            Some(runtime.block_on(client.snapshot()).context("asking the directory")?)
        }
        None => None,
    };
    if args.json {
        let all = json!({ "dispatcher": dispatcher, "directory": directory });
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    if let Some(status) = &dispatcher {
        print_dispatcher(status);
    }
    if let Some(snapshot) = &directory {
        print_directory(snapshot);
    }
    Ok(())
}

/// What the dispatcher serves at `/snapshot`.
async fn dispatcher(admin: SocketAddr) -> anyhow::Result<Value> {
    let asked = timeout(PATIENCE, async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(TcpStream::connect(admin).await?)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get("/snapshot").header("host", admin.to_string()).body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        if !response.status().is_success() {
            bail!("it answers {}", response.status());
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        connection.abort();
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    });
    let answer = asked.await.unwrap_or_else(|_| bail!("no answer within {PATIENCE:?}"));
    answer.with_context(|| format!("asking the dispatcher at {admin}"))
}

fn print_dispatcher(status: &Value) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let settings = &status["settings"];
    println!(
        "dispatcher: {}, hash {}, R = {}, revision {}, digest {}, {} client connections",
        text(&settings["algorithm"]),
        text(&settings["hash"]),
        settings["replicas"],
        status["revision"],
        text(&status["digest"]),
        status["connections"]
    );
    if status["draining"] == true {
        println!("dispatcher: draining");
    }
    if let Some(why) = status["reload"]["refused"]["why"].as_str() {
        println!("dispatcher: the last reload was refused: {why}");
    }
    let mut table =
        Table::new(["server", "address", "state", "order", "healthy", "used", "warmth", "active"].map(Column::left));
    for server in status["servers"].as_array().into_iter().flatten() {
        let keys = ["name", "address", "state", "order", "healthy", "used", "warmth", "active"];
        table.push(keys.map(|key| if server[key].is_null() { "-".to_owned() } else { text(&server[key]) }));
    }
    print!("{table}");
}

fn print_directory(snapshot: &Snapshot) {
    println!("directory: revision {}", snapshot.revision());
    for customer in snapshot.customers() {
        println!("customer {}: {}", customer.id, amounts(&customer.bounds));
    }
    let mut table = Table::new(["VM", "customer", "host", "state", "desired", "applied"].map(Column::left));
    for vm in snapshot.vms() {
        let applied = vm.applied.map_or("unknown".to_owned(), |applied| amounts(&applied.resources));
        table.push([
            vm.id.to_string(),
            vm.customer.to_string(),
            vm.host.to_string(),
            format!("{:?}", vm.state).to_lowercase(),
            amounts(&vm.desired.resources),
            applied,
        ]);
    }
    print!("{table}");
}
