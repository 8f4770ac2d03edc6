//! What kernels take to build: a base from nothing, and then variants of it.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Instant;

use kernels::cache::Cache;
use kernels::{BuildError, BuildEvent, Builder, CancelToken, Manifest};

use super::{Measurement, Unit, cpu_of_children, median};
use crate::progress::{Event, Progress};

/// The shelf of sources in a cache.
const SOURCES: &str = "sources";

/// Builds could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum BuildsError {
    /// There is nothing to compare with.
    #[error("needs two kernels of one base or more, the first of them first; {0}")]
    TooFew(String),
    /// A kernel did not build.
    #[error("cannot build {variant}")]
    Build {
        /// Which.
        variant: String,
        /// Why.
        source: Box<BuildError>,
    },
    /// No cache to build in could be made.
    #[error("cannot make a cache of its own")]
    Scratch(#[from] std::io::Error),
    /// The thread that builds died.
    #[error("the build ended without a result: {0}")]
    Thread(String),
}

/// Ends a build when nobody waits for it any more.
struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Builds variants, one after the other, in a cache of their own beside `cache`, of which only the sources are used. The
/// first builds its base with it.
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
    let name = format!("{first}, its base from nothing");
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
    measurement.add("the same in CPU time", ratio(|took| took.1), Unit::Ratio);
    Ok(())
}

/// Builds one, and returns what it took: seconds, and CPU seconds.
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
