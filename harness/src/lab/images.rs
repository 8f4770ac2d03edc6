//! Kernels as they are built: cells of the first kernel run while the second is still being built.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernels::{CancelToken, KernelImage};
use tokio::sync::watch;

use crate::verdict::Verdict;

/// A kernel, or the verdict of all its cells: build-failed if the kernel is at fault, else infra.
pub type Image = Result<KernelImage, Verdict>;

/// The results of builds so far, by variant.
type Known = BTreeMap<String, Image>;

/// The kernels of a run. Clones share them. Dropping the last clone cancels the builds that are still running.
#[derive(Clone)]
pub struct Images {
    known: watch::Receiver<Known>,
    _builds: Arc<CancelOnDrop>,
}

/// The sender of [`Images`]. When it is dropped, no more kernels will come.
pub struct Arrivals(watch::Sender<Known>);

/// Cancels builds when it is dropped.
struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Images {
    /// Kernels that will be built, and the sender for them. `builds` is cancelled when all clones of the kernels are
    /// dropped.
    pub fn to_come(builds: CancelToken) -> (Arrivals, Images) {
        let (tell, known) = watch::channel(Known::new());
        (Arrivals(tell), Images { known, _builds: Arc::new(CancelOnDrop(builds)) })
    }

    /// Kernels that are all built already.
    pub fn all(images: BTreeMap<String, Image>) -> Images {
        let (arrivals, known) = Images::to_come(CancelToken::new());
        images.into_iter().for_each(|(variant, image)| arrivals.put(&variant, image));
        known
    }

    /// The kernel of a variant, if its build has ended.
    pub fn now(&self, variant: &str) -> Option<Image> {
        self.known.borrow().get(variant).cloned()
    }

    /// Waits for the kernel of a variant.
    pub async fn of(&self, variant: &str) -> Image {
        let mut known = self.known.clone();
        match known.wait_for(|known| known.contains_key(variant)).await {
            Ok(known) => known[variant].clone(),
            Err(_) => Err(Verdict::Infra(format!("the build of kernel {variant} ended without a result"))),
        }
    }

    /// Whether more kernels will come.
    pub fn are_coming(&self) -> bool {
        self.known.has_changed().is_ok()
    }

    /// Waits until another kernel comes, or until no more kernels will come.
    pub async fn changed(&mut self) {
        // An error means that no more kernels will come, which ends the wait too.
        let _ = self.known.changed().await;
    }

    /// Waits for the first kernel that is built.
    ///
    /// # Errors
    /// The verdict of each kernel, if all builds have ended and none succeeded.
    pub async fn first(&self) -> Result<KernelImage, Vec<Verdict>> {
        let built = |known: &Known| known.values().find_map(|image| image.as_ref().ok()).cloned();
        let mut known = self.known.clone();
        if let Some(image) = known.wait_for(|known| built(known).is_some()).await.ok().and_then(|known| built(&known)) {
            return Ok(image);
        }
        let verdicts = self.known.borrow().values().filter_map(|image| image.as_ref().err().cloned()).collect();
        Err(verdicts)
    }
}

impl Arrivals {
    /// Adds a kernel, or the verdict if its build failed.
    pub fn put(&self, variant: &str, image: Image) {
        self.0.send_modify(|known| drop(known.insert(variant.to_owned(), image)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Image {
        Err(Verdict::BuildFailed("does not compile".to_owned()))
    }

    #[tokio::test]
    async fn a_waiter_gets_the_kernel_when_it_is_built() {
        let (arrivals, mut images) = Images::to_come(CancelToken::new());
        assert_eq!(images.now("a"), None);
        let other = images.clone();
        let (image, ()) = tokio::join!(other.of("b"), async {
            arrivals.put("a", failed());
            images.changed().await;
            assert_eq!(images.now("a"), Some(failed()));
            arrivals.put("b", failed());
        });
        assert_eq!(image, failed());
        assert!(images.are_coming());
        drop(arrivals);
        images.changed().await;
        images.changed().await;
        assert!(!images.are_coming());
    }

    #[tokio::test]
    async fn waits_end_if_the_builder_ends() {
        let (arrivals, images) = Images::to_come(CancelToken::new());
        let first = images.clone();
        let (image, first, ()) = tokio::join!(images.of("a"), first.first(), async {
            arrivals.put("b", failed());
            drop(arrivals);
        });
        assert!(matches!(image, Err(Verdict::Infra(why)) if why.contains("kernel a")));
        assert_eq!(first.unwrap_err(), [failed().unwrap_err()]);
    }

    #[test]
    fn dropping_all_clones_cancels_the_builds() {
        let builds = CancelToken::new();
        let (_arrivals, images) = Images::to_come(builds.clone());
        let other = images.clone();
        drop(images);
        assert!(!builds.is_cancelled());
        drop(other);
        assert!(builds.is_cancelled());
    }
}
