//! How long kernels take to build: first a base from scratch, then variants of it.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Instant;

use kernels::cache::Cache;
use kernels::{BuildError, BuildEvent, Builder, CancelToken, Manifest};

use super::{Measurement, Unit, cpu_of_children, median};
use crate::progress::{Event, Progress};

/// The shelf of sources in a cache.
const SOURCES: &str = "sources";

/// Why builds could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum BuildsError {
    /// There are no two kernels to compare.
    #[error("needs two or more kernels of one base, and compares the others with the first; {0}")]
    TooFew(String),
    /// A kernel did not build.
    #[error("cannot build {variant}")]
    Build {
        /// The kernel.
        variant: String,
        /// The cause.
        source: Box<BuildError>,
    },
    /// The temporary cache could not be created.
    #[error("cannot create a temporary cache")]
    Scratch(#[from] std::io::Error),
    /// The build thread panicked.
    #[error("the build ended without a result: {0}")]
    Thread(String),
}

/// Cancels a build when the task that waits for it is dropped.
struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Builds variants, one after the other, in a temporary cache that shares only the sources with `cache`. The first
/// build includes the base.
///
/// # Errors
/// [`BuildsError`].
pub async fn measure(
    manifest: Manifest,
    cache: &Cache,
    variants: &[String],
    progress: Arc<dyn Progress>,
    measurement: &mut Measurement,
) -> Result<(), BuildsError> {
    let [first, others @ ..] = variants else { return Err(BuildsError::TooFew("none was named".to_owned())) };
    if others.is_empty() {
        return Err(BuildsError::TooFew(format!("only {first} was named")));
    }
    let scratch = tempfile::Builder::new().prefix(".bench-").tempdir_in(cache.root())?;
    let sources = cache.root().join(SOURCES);
    std::fs::create_dir_all(&sources)?;
    symlink(&sources, scratch.path().join(SOURCES))?;
    let builder = Arc::new(Builder::new(manifest, Cache::at(scratch.path())));
    let cold = build(&builder, first, &progress).await?;
    let name = format!("{first}, with its base from scratch");
    measurement.add(name.clone(), cold.0, Unit::Seconds);
    measurement.add(name, cold.1, Unit::CpuSeconds);
    let mut warm = Vec::new();
    for variant in others {
        let took = build(&builder, variant, &progress).await?;
        measurement.add(variant.clone(), took.0, Unit::Seconds);
        measurement.add(variant.clone(), took.1, Unit::CpuSeconds);
        warm.push(took);
    }
    let ratio = |of: fn(&(f64, f64)) -> f64| median(warm.iter().map(of)).unwrap_or(f64::NAN) / of(&cold);
    measurement.add("further variant / first with its base, median", ratio(|took| took.0), Unit::Ratio);
    measurement.add("CPU time, further variant / first with its base, median", ratio(|took| took.1), Unit::Ratio);
    Ok(())
}

/// Builds a variant. Returns the elapsed time in seconds and the CPU time in seconds.
async fn build(builder: &Arc<Builder>, variant: &str, progress: &Arc<dyn Progress>) -> Result<(f64, f64), BuildsError> {
    let guard = CancelOnDrop(CancelToken::new());
    let (cancel, builder, progress, name) = (guard.0.clone(), builder.clone(), progress.clone(), variant.to_owned());
    let (began, before) = (Instant::now(), cpu_of_children());
    let work = move || {
        let tell = |event: BuildEvent| progress.event(Event::Build { variant: &name, event });
        builder.build(&name, &tell, &cancel)
    };
    let built = tokio::task::spawn_blocking(work).await.map_err(|error| BuildsError::Thread(error.to_string()))?;
    built.map_err(|source| BuildsError::Build { variant: variant.to_owned(), source: Box::new(source) })?;
    Ok((began.elapsed().as_secs_f64(), cpu_of_children() - before))
}
