//! Workload generators. Each is deterministic: the same seed gives the same trace. (On another platform, whose exponentials
//! round differently, a few requests may differ.)

pub mod worldcup;
pub mod youtube;

use crate::{Error, Trace};
use worldcup::WorldCup;
use youtube::YouTube;

/// Names of the generators.
pub const NAMES: [&str; 2] = ["worldcup", "youtube"];

/// Parameters of a generator. `None`: as the generator has it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Params {
    /// Of the random numbers.
    pub seed: u64,
    /// How many objects (`youtube`).
    pub files: Option<u32>,
    /// Bytes of all objects together (`youtube`).
    pub bytes: Option<u64>,
    /// How many requests (`youtube`).
    pub requests: Option<u32>,
    /// Exponent of the popularity by rank (`youtube`).
    pub zipf: Option<f64>,
}

/// Runs the generator of this name.
///
/// # Errors
///
/// If there is none of this name, or a parameter is not one of its own or makes no workload.
pub fn generate(name: &str, params: &Params) -> Result<Trace, Error> {
    match name {
        "worldcup" => {
            if (Params { seed: params.seed, ..Params::default() }) != *params {
                let detail = "it reconstructs one window and takes nothing but a seed; cut the trace for less".into();
                return Err(Error::Parameter { generator: "worldcup", detail });
            }
            Ok(WorldCup { seed: params.seed }.generate())
        }
        "youtube" => {
            let usual = YouTube::of_dissertation(params.seed);
            let files = params.files.unwrap_or(usual.files);
            // Asked for more or fewer files, their sizes and the requests for each stay as they are.
            let scale = f64::from(files) / f64::from(usual.files);
            YouTube {
                seed: params.seed,
                files,
                bytes: params.bytes.unwrap_or((usual.bytes as f64 * scale) as u64),
                requests: params.requests.unwrap_or((f64::from(usual.requests) * scale).round() as u32),
                zipf: params.zipf.unwrap_or(usual.zipf),
            }
            .generate()
        }
        other => Err(Error::UnknownGenerator { name: other.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_parameters_are_checked() {
        let params = Params { seed: 3, files: Some(20), ..Params::default() };
        let trace = generate("youtube", &params).unwrap();
        assert_eq!((trace.objects.len(), trace.objects.total_bytes(), trace.requests.len()), (20, 120_000_000, 40));
        assert!(matches!(generate("worldcup", &params), Err(Error::Parameter { .. })));
        let unknown = generate("netflix", &params).unwrap_err().to_string();
        assert!(unknown.contains("worldcup, youtube"), "{unknown}");
        assert!(generate("youtube", &Params { files: Some(0), ..params }).is_err());
    }
}
