//! `vibra trace`: convert, summarise, generate; and how every command finds the trace that it is asked for.

use crate::{
    cli,
    exit::{Failure, Outcome},
};
use anyhow::Context;
use std::path::{Path, PathBuf};
use vibra_report::{Column, Table};
use vibra_routing::HashKind;
use vibra_trace::{Defects, Format, Options, Reader, Trace, convert, generate, stat, subsets};

/// Carries out a subcommand of `trace`.
pub(crate) fn run(command: cli::Trace) -> Outcome {
    match command {
        cli::Trace::Convert { input, output, objects } => convert_file(&input, &output, objects),
        cli::Trace::Stat { trace, objects, servers, seed } => summarise(&load(&trace, objects, seed)?, servers),
        cli::Trace::Notice => {
            print!("{}", generate::worldcup::NOTICE);
            Ok(())
        }
        cli::Trace::Generate { kind, output, seed, scale } => generate_file(&kind, &output, seed, scale),
    }
}

/// The trace that `name` means: a generator's name, or a file. What is wrong with the file is said on standard error.
pub(crate) fn load(name: &str, object_map: Option<PathBuf>, seed: u64) -> Result<Trace, Failure> {
    if generate::NAMES.contains(&name) {
        let params = generate::Params { seed, ..Default::default() };
        return generate::generate(name, &params).map_err(Failure::usage);
    }
    let options = Options { object_map, ..Options::default() };
    let (trace, defects) = Trace::open(Path::new(name), &options).map_err(Failure::usage)?;
    report_defects(&defects);
    if trace.requests.is_empty() {
        return Err(Failure::usage(anyhow::anyhow!("{name} holds no usable request")));
    }
    Ok(trace)
}

fn report_defects(defects: &Defects) {
    if defects.total() > 0 {
        eprintln!("warning: {defects}");
    }
}

/// The format that the name of an output file asks for.
fn output_format(path: &Path) -> Result<Format, Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match Format::of_name(&name) {
        Some(format @ (Format::Compact | Format::Csv)) => Ok(format),
        _ => Err(Failure::usage(anyhow::anyhow!(
            "{}: name the output .vtr (compact) or .csv, with .gz behind it to compress it",
            path.display()
        ))),
    }
}

fn convert_file(input: &Path, output: &Path, object_map: Option<PathBuf>) -> Outcome {
    let format = output_format(output)?;
    let reader = Reader::open(input, &Options { object_map, ..Options::default() }).map_err(Failure::usage)?;
    let converted = convert(reader, output, format).with_context(|| format!("converting {}", input.display()))?;
    report_defects(&converted.defects);
    println!("{}: {} requests", output.display(), converted.requests);
    Ok(())
}

fn generate_file(kind: &str, output: &Path, seed: u64, scale: f64) -> Outcome {
    let format = output_format(output)?;
    let mut params = generate::Params { seed, ..Default::default() };
    if scale != 1.0 {
        let files = f64::from(generate::youtube::YouTube::of_dissertation(seed).files) * scale;
        if !(1.0..=1e6).contains(&files) {
            return Err(Failure::usage(anyhow::anyhow!(
                "--scale {scale} makes {files:.0} files: 1 to 1,000,000 are possible"
            )));
        }
        params.files = Some(files as u32);
    }
    let trace = generate::generate(kind, &params).map_err(Failure::usage)?;
    trace.save(output, format).with_context(|| format!("writing {}", output.display()))?;
    println!("{}: {} ({}), {} requests", output.display(), trace.name, trace.origin, trace.requests.len());
    Ok(())
}

fn summarise(trace: &Trace, servers: usize) -> Outcome {
    if servers == 0 {
        return Err(Failure::usage(anyhow::anyhow!("--servers 0: there is nothing to divide a trace among")));
    }
    let stat = stat(trace);
    println!("{} ({})", trace.name, trace.origin);
    println!("requests          {}", stat.requests);
    println!("bytes             {}", stat.bytes);
    println!("clients           {}", stat.clients);
    println!("objects           {} ({} bytes)", stat.objects, stat.distinct_bytes);
    println!("duration          {:.0} s", stat.seconds);
    if let Some(rate) = stat.requests_per_s {
        println!("requests/s        {rate:.1}");
    }
    if let Some(rate) = stat.bytes_per_s {
        println!("bytes/s           {rate:.0}");
    }
    let statuses: Vec<_> = stat.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
    println!("by status         {}", statuses.join(", "));
    println!("\nDivided among {servers} sub-namespaces (as in Table 3.1):");
    let columns = ["hash", "requests %", "bytes %", "objects", "MB of objects"];
    let mut table = Table::new(columns.map(Column::left));
    for hash in HashKind::ALL {
        let index = |name: &str| (hash.of(name) % servers as u64) as usize;
        let rows = subsets(trace, servers, &index);
        let percent = |of: u64, all: u64| format!("{:.0}", 100.0 * of as f64 / all.max(1) as f64);
        let list = |cell: &dyn Fn(&vibra_trace::Subset) -> String| rows.iter().map(cell).collect::<Vec<_>>().join("/");
        table.push([
            hash.name().to_owned(),
            list(&|row| percent(row.requests, stat.requests)),
            list(&|row| percent(row.bytes, stat.bytes)),
            list(&|row| row.objects.to_string()),
            list(&|row| format!("{:.0}", row.distinct_bytes as f64 / 1e6)),
        ]);
    }
    print!("{table}");
    Ok(())
}
