//! Builds kernels of the manifest into the user's cache and says where they are:
//! `cargo run -p kernels --example build -- stock revert-only` (all of them if none is named).

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use kernels::cache::Cache;
use kernels::{BuildEvent, Builder, CancelToken, Manifest};

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = Manifest::load(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        names = manifest.variants.iter().map(|variant| variant.name.clone()).collect();
    }
    let builder = Builder::new(manifest, Cache::of_user()?);
    for name in names {
        let begun = Instant::now();
        let cached = builder.find(&name).is_some();
        let image = builder.build(&name, &tell, &CancelToken::new())?;
        let how = if cached { "found" } else { "built" };
        println!(
            "{name}: {how} in {:.1} s: {} ({})",
            begun.elapsed().as_secs_f32(),
            image.bzimage.display(),
            image.release
        );
    }
    Ok(())
}

fn tell(event: BuildEvent) {
    match event {
        BuildEvent::Waiting { what } => eprintln!("waiting for {what}"),
        BuildEvent::Step { step, what } => eprintln!("{} {what}", step.verb()),
        BuildEvent::Objects { done, about, elapsed } if done % 100 == 0 => {
            eprintln!("  {done} of about {about}, {} s", elapsed.as_secs());
        }
        BuildEvent::Objects { .. } => {}
    }
}
