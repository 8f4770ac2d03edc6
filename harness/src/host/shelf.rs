//! The check of the shelf that machines share.

use kernels::shared::{SharedShelf, VARIABLE};

use super::Check;

/// Tries the shelf: reads, and writes if its address allows it. Runs are possible without it.
pub fn shelf_check(shelf: &SharedShelf) -> Check {
    match shelf.check() {
        Ok(what) => Check::ok("shelf", what),
        Err(error) => Check::warn(
            "shelf",
            error.to_string(),
            format!("kernels are built here until it works, or unset {VARIABLE}"),
        ),
    }
}
