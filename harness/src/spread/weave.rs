//! The order of things in a whole plan, of which each part knows only its own.

use crate::cell::PlannedCell;

/// The kernels of a plan in the order of their manifest. Each row of the plan, which is one scenario with one trigger on
/// one topology, has some of them in this order.
pub(super) fn kernels(cells: &[PlannedCell]) -> Vec<&str> {
    let is_same_row = |one: &PlannedCell, other: &PlannedCell| {
        (&one.id.scenario, &one.id.topology, one.id.trigger)
            == (&other.id.scenario, &other.id.topology, other.id.trigger)
    };
    let rows = cells.chunk_by(is_same_row).map(|row| row.iter().map(|cell| cell.id.variant.as_str()).collect());
    weave(rows)
}

/// All items of these lists, each once. Each list has some items of one list, in its order; the result has this order,
/// as far as the lists tell.
fn weave<'a>(lists: impl Iterator<Item = Vec<&'a str>>) -> Vec<&'a str> {
    let mut all: Vec<&str> = Vec::new();
    for list in lists {
        for (place, item) in list.iter().enumerate() {
            if !all.contains(item) {
                let before = list[place + 1..].iter().find_map(|next| all.iter().position(|one| one == next));
                all.insert(before.unwrap_or(all.len()), item);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_lists_is_kept() {
        let weave = |lists: &[&'static str]| weave(lists.iter().map(|list| list.split(' ').collect())).join(" ");
        assert_eq!(weave(&["a c e", "b c d e", "e f"]), "a b c d e f");
        assert_eq!(weave(&["c", "a b c"]), "a b c");
        assert_eq!(weave(&["a a", "a"]), "a");
    }
}
