//! Kernels as they come: cells of the first run while the second is still being built.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernels::{CancelToken, KernelImage};
use tokio::sync::watch;

use crate::verdict::Verdict;

/// A kernel, or the verdict of all its cells: build-failed if that is the kernel's own fault, else infra.
pub type Image = Result<KernelImage, Verdict>;

/// What is known so far, by variant.
type Known = BTreeMap<String, Image>;

/// The kernels of a run. Clones share them; when the last is dropped, what is still being built is given up.
#[derive(Clone)]
pub struct Images {
    known: watch::Receiver<Known>,
    _builds: Arc<GivenUp>,
}

/// Hands kernels over, one by one. When it is dropped, no more will come.
pub struct Arrivals(watch::Sender<Known>);

/// Ends builds when nobody waits for them any more.
struct GivenUp(CancelToken);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Images {
    /// None yet, and where they will come from. `builds` is cancelled when nobody wants them any more.
    pub fn to_come(builds: CancelToken) -> (Arrivals, Images) {
        let (tell, known) = watch::channel(Known::new());
        (Arrivals(tell), Images { known, _builds: Arc::new(GivenUp(builds)) })
    }

    /// Kernels that are all there.
    pub fn all(images: BTreeMap<String, Image>) -> Images {
        let (arrivals, known) = Images::to_come(CancelToken::new());
        images.into_iter().for_each(|(variant, image)| arrivals.put(&variant, image));
        known
    }

    /// The kernel of a variant, if it has come.
    pub fn now(&self, variant: &str) -> Option<Image> {
        self.known.borrow().get(variant).cloned()
    }

    /// The kernel of a variant, as soon as it comes.
    pub async fn of(&self, variant: &str) -> Image {
        let mut known = self.known.clone();
        match known.wait_for(|known| known.contains_key(variant)).await {
            Ok(known) => known[variant].clone(),
            Err(_) => Err(Verdict::Infra(format!("no build of kernel {variant} came to an end"))),
        }
    }

    /// Whether more kernels will come.
    pub fn are_coming(&self) -> bool {
        self.known.has_changed().is_ok()
    }

    /// Waits until another kernel comes, or until it is known that none will.
    pub async fn changed(&mut self) {
        // An error says that no more will come, which is what was waited for.
        let _ = self.known.changed().await;
    }

    /// The first kernel that is there.
    ///
    /// # Errors
    /// What became of each, if all builds are over and none succeeded.
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
    /// A kernel is there, or will never be.
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
    async fn whoever_waits_gets_it_when_it_comes() {
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
    async fn a_builder_that_dies_leaves_nobody_waiting() {
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
    fn builds_that_nobody_waits_for_are_given_up() {
        let builds = CancelToken::new();
        let (_arrivals, images) = Images::to_come(builds.clone());
        let other = images.clone();
        drop(images);
        assert!(!builds.is_cancelled());
        drop(other);
        assert!(builds.is_cancelled());
    }
}
