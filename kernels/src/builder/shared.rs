//! Kernels from the shelf that machines share, and for it.

use std::sync::Arc;

use super::{Builder, Recipe};
use crate::cache::{CacheError, Key};
use crate::event::{BuildEvent, Observer};
use crate::image::{self, KernelImage};
use crate::layout;
use crate::manifest::{Base, Variant};
use crate::shared::SharedShelf;
use crate::source::{self, Identity, Kept};

/// The shelf with what is known of the source of a base without having it. A machine that takes a kernel does not need
/// the source.
const IDENTITIES: &str = "identities";

impl Builder {
    /// The same builder with a shelf: kernels that the cache does not have are taken from there, and what is built is
    /// put there.
    pub fn with_shelf(self, shelf: Option<Arc<SharedShelf>>) -> Builder {
        Builder { shelf, ..self }
    }

    /// The shelf, if it may be asked.
    fn asked(&self) -> Option<&SharedShelf> {
        self.shelf.as_deref().filter(|shelf| !shelf.has_failed())
    }

    /// What identifies the source of a base, as far as the cache knows it.
    pub(super) fn known_identity(&self, kept: Kept) -> Option<Identity> {
        if let Some(source) = source::find(&self.cache, kept) {
            return Some(source.identity);
        }
        let key = source::package_key(kept)?;
        source::read_identity(&self.cache.find(IDENTITIES, &key)?).ok()
    }

    /// The image of a variant of a package, from the cache or the shelf, without the source. None if there is none.
    pub(super) fn without_source(
        &self,
        kept: Kept,
        variant: &Variant,
        base: &Base,
        observer: &dyn Observer,
    ) -> Option<KernelImage> {
        self.asked()?;
        if self.known_identity(kept).is_none() {
            self.fetch_entry(IDENTITIES, &source::package_key(kept)?, observer);
        }
        let identity = self.known_identity(kept)?;
        self.found_or_taken(&self.recipe(variant, base, &identity).ok()?, &identity, observer)
    }

    /// The image of a recipe, from the cache or the shelf. None if there is none.
    pub(super) fn found_or_taken(
        &self,
        recipe: &Recipe,
        identity: &Identity,
        observer: &dyn Observer,
    ) -> Option<KernelImage> {
        if self.cache.find(image::SHELF, &recipe.key).is_none() {
            if !self.fetch_entry(image::SHELF, &recipe.key, observer) {
                return None;
            }
            let url = self.shelf.as_ref().map(|shelf| shelf.url()).unwrap_or_default();
            observer.event(BuildEvent::Shelf { what: format!("taken from {url}") });
        }
        if self.cache.find(layout::SHELF, &recipe.layout_key).is_none() {
            self.fetch_entry(layout::SHELF, &recipe.layout_key, observer);
        }
        let entry = self.cache.find(image::SHELF, &recipe.key)?;
        recipe.image(&self.cache, &entry, identity).ok()
    }

    /// Puts a kernel that is in the cache on the shelf, unless it is there. A failure is told to the observer.
    pub fn share(&self, variant: &str, observer: &dyn Observer) {
        let (Some(_), Some((recipe, _))) = (self.asked(), self.at_hand(variant)) else { return };
        match recipe.base.source.origin() {
            source::Origin::Kept(kept) => self.put_on_shelf(&recipe, Some(kept), observer),
            source::Origin::Git(_) => self.put_on_shelf(&recipe, None, observer),
            source::Origin::Ready(_) => {}
        }
    }

    /// Puts a kernel that is in the cache on the shelf.
    pub(super) fn put_on_shelf(&self, recipe: &Recipe, kept: Option<Kept>, observer: &dyn Observer) {
        let put = self.give_entry(image::SHELF, &recipe.key, observer);
        self.give_entry(layout::SHELF, &recipe.layout_key, observer);
        if let Some(key) = kept.and_then(source::package_key) {
            self.put_identity(&key, kept, observer);
        }
        if put && let Some(shelf) = &self.shelf {
            observer.event(BuildEvent::Shelf { what: format!("put on {}", shelf.url()) });
        }
    }

    fn put_identity(&self, key: &Key, kept: Option<Kept>, observer: &dyn Observer) {
        let identity = kept.and_then(|kept| source::find(&self.cache, kept)).map(|source| source.identity);
        let Some(identity) = identity else { return };
        let made = self.cache.entry(IDENTITIES, key, || {}, |aside| source::write_identity(aside, &identity));
        if made.is_ok() {
            self.give_entry(IDENTITIES, key, observer);
        }
    }

    /// Takes an entry of the cache from the shelf. A failure is told, and means that there is none.
    fn fetch_entry(&self, name: &str, key: &Key, observer: &dyn Observer) -> bool {
        let Some(shelf) = self.asked() else { return false };
        let taking = || -> Result<bool, CacheError> {
            let lock = self.cache.lock_entry(name, key, || {})?;
            if self.cache.find(name, key).is_some() {
                return Ok(true);
            }
            let aside = self.cache.stage(name, key, &lock)?;
            match shelf.take(name, key, aside.path()) {
                Ok(true) => self.cache.put(name, key, aside).map(|()| true),
                Ok(false) => Ok(false),
                Err(error) => {
                    observer.event(BuildEvent::Shelf { what: format!("not from the shelf: {error}") });
                    Ok(false)
                }
            }
        };
        taking().unwrap_or_else(|error| {
            observer.event(BuildEvent::Shelf { what: format!("not from the shelf: {error}") });
            false
        })
    }

    /// Puts an entry of the cache on the shelf. A failure is told.
    fn give_entry(&self, name: &str, key: &Key, observer: &dyn Observer) -> bool {
        let Some((shelf, entry)) = self.asked().zip(self.cache.find(name, key)) else { return false };
        shelf.put(name, key, &entry).unwrap_or_else(|error| {
            observer.event(BuildEvent::Shelf { what: format!("not put on the shelf: {error}") });
            false
        })
    }
}
