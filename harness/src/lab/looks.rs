//! What looks at guests need to know of each kernel: its symbols, the layouts of its structs, and its source lines.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kernels::{BuildEvent, Builder, CancelToken, KernelImage, SourceLines};
use tokio::sync::OnceCell;

use super::chain;
use crate::progress::{Event, Progress};
use crate::waits::{Kernel, Symbols};

/// A kernel, once it is read. None if guests of this kernel cannot be looked at.
type Known = Arc<OnceCell<Option<Arc<Kernel>>>>;

/// Gives what is known of each kernel of a run, read once.
#[derive(Clone)]
pub struct Looks {
    builder: Arc<Builder>,
    cancel: CancelToken,
    progress: Arc<dyn Progress>,
    known: Arc<Mutex<BTreeMap<String, Known>>>,
    lines: Arc<Mutex<BTreeMap<String, Arc<SourceLines>>>>,
}

impl Looks {
    /// Those of the kernels of this builder, until it is cancelled.
    pub fn new(builder: Arc<Builder>, cancel: CancelToken, progress: Arc<dyn Progress>) -> Looks {
        Looks { builder, cancel, progress, known: Arc::default(), lines: Arc::default() }
    }

    /// A kernel. If that fails, the run goes on without looks at guests of this kernel. It is reported once.
    pub async fn of(&self, image: &KernelImage) -> Option<Arc<Kernel>> {
        let known = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(image.key.clone()).or_default().clone()
        };
        known.get_or_init(|| self.read(image.clone())).await.clone()
    }

    /// The source lines of a kernel. None if it was built elsewhere, without its vmlinux.
    pub fn lines_of(&self, image: &KernelImage) -> Option<Arc<SourceLines>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let of_image = || Arc::new(SourceLines::new(&image.vmlinux));
        image.vmlinux.exists().then(|| lines.entry(image.key.clone()).or_insert_with(of_image).clone())
    }

    async fn read(&self, image: KernelImage) -> Option<Arc<Kernel>> {
        let Looks { builder, cancel, progress, .. } = self.clone();
        let variant = image.variant.clone();
        let reading = move || read(&builder, &image, &cancel, &*progress);
        let read = tokio::task::spawn_blocking(reading).await.unwrap_or_else(|error| Err(error.to_string()));
        match read {
            Ok(kernel) => Some(Arc::new(kernel)),
            Err(why) => {
                if !self.cancel.is_cancelled() {
                    self.progress.event(Event::NoLooks { variant: &variant, why: &why });
                }
                None
            }
        }
    }
}

fn read(
    builder: &Builder,
    image: &KernelImage,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Kernel, String> {
    let symbols = builder.symbols(image, cancel).map_err(|error| chain(&error))?;
    let symbols = Symbols::parse(&symbols);
    let tell = |event: BuildEvent| progress.event(Event::Build { variant: &image.variant, event });
    let layout = builder.layout(image, &tell, cancel).map_err(|error| chain(&error))?;
    Ok(Kernel::new(symbols, layout))
}
