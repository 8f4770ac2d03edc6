//! The vfio selftests of kernels: built when a cell needs them.

use std::sync::Arc;

use kernels::{BuildEvent, Builder, CancelToken, Selftests};

use super::chain;
use crate::progress::{Event, Progress};
use crate::verdict::Verdict;

/// Gives the vfio selftests of each kernel of a run.
#[derive(Clone)]
pub struct Tests {
    builder: Arc<Builder>,
    cancel: CancelToken,
    progress: Arc<dyn Progress>,
}

impl Tests {
    /// Those that this builder builds until it is cancelled.
    pub fn new(builder: Arc<Builder>, cancel: CancelToken, progress: Arc<dyn Progress>) -> Tests {
        Tests { builder, cancel, progress }
    }

    /// The vfio selftests for a variant. They are built if they are not in the cache.
    ///
    /// # Errors
    /// The verdict of the cells that need them: skip if this host cannot build them, build-failed if they do not
    /// compile, else infra.
    pub async fn of(&self, variant: &str) -> Result<Selftests, Verdict> {
        let Tests { builder, cancel, progress } = self.clone();
        let variant = variant.to_owned();
        let building = move || {
            let tell = |event: BuildEvent| progress.event(Event::Build { variant: &variant, event });
            builder.vfio_selftests(&variant, &tell, &cancel)
        };
        match tokio::task::spawn_blocking(building).await {
            Ok(Ok(selftests)) => Ok(selftests),
            Ok(Err(error)) if error.is_without_selftests() => Err(Verdict::Skip(chain(&error))),
            Ok(Err(error)) if error.is_of_the_kernel() => Err(Verdict::BuildFailed(chain(&error))),
            Ok(Err(error)) => Err(Verdict::Infra(chain(&error))),
            Err(error) => Err(Verdict::Infra(format!("the build of the selftests ended without a result: {error}"))),
        }
    }
}
