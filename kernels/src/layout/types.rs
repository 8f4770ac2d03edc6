//! The types of a kernel, whichever form its debug information has, and where their members are.
//!
//! The information may be damaged: nothing here trusts it to be free of circles, or to fit into memory.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::members::Struct;
use super::{Layout, Member};

/// How many typedefs, qualifiers and arrays may stand between a member and its type.
const LONGEST_CHAIN: usize = 64;

/// Names a type. Types of different files have different ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id {
    /// The number of the file.
    pub file: u32,
    /// The number of the type in the file.
    pub number: u64,
}

/// A type, as far as sizes and offsets need it.
#[derive(Debug)]
pub(super) enum Kind {
    /// A struct or union.
    Struct { size: u64, fields: Vec<Field> },
    /// A typedef, or another type with a qualifier.
    Same(Id),
    /// An array.
    Array { element: Id, count: u64 },
    /// Anything else that has a size: a number, a pointer, an enum.
    Scalar { size: u64 },
}

/// A member of a struct or union.
#[derive(Debug)]
pub(super) struct Field {
    /// `None` for an anonymous struct or union, whose members count as those of the outer one.
    pub name: Option<String>,
    /// In bytes. `None` for a bit-field.
    pub offset: Option<u64>,
    pub of: Id,
}

/// The types of a kernel.
#[derive(Debug, Default)]
pub(super) struct Types {
    pub kinds: HashMap<Id, Kind>,
    /// The structs of a name: drivers have structs of their own with names that others use as well.
    pub named: HashMap<String, Vec<Id>>,
}

impl Types {
    /// Where the members of these structs are. Of several structs with one name it takes the one that has the most of
    /// the members.
    pub(super) fn layout(&self, structs: &[Struct]) -> Layout {
        let mut layout = Layout::default();
        for one in structs {
            let candidates = self.named.get(one.name).into_iter().flatten();
            let found = candidates.map(|id| (*id, self.members(*id, one)));
            // `max_by_key` would take the last of several that are equal.
            let best = found.reduce(|best, next| if next.1.len() > best.1.len() { next } else { best });
            let (size, members) = match best {
                Some((id, members)) => (self.size(id), members),
                None => (None, BTreeMap::new()),
            };
            layout.sizes.extend(size.map(|size| (one.name.to_owned(), size)));
            for (path, _) in one.members {
                let name = super::key(one.name, path);
                match members.get(path) {
                    Some(member) => drop(layout.members.insert(name, *member)),
                    None => drop(layout.absent.insert(name)),
                }
            }
        }
        layout
    }

    fn members(&self, id: Id, one: &Struct) -> BTreeMap<&'static str, Member> {
        one.members.iter().filter_map(|(path, _)| Some((*path, self.member(id, path)?))).collect()
    }

    /// The member at a path such as `kobj.ktype`. `None` for bit-fields as well: they have no offset in bytes.
    fn member(&self, structure: Id, path: &str) -> Option<Member> {
        let mut offset: u64 = 0;
        let mut at = structure;
        for name in path.split('.') {
            let (further, of) = self.field(at, name)?;
            offset = offset.checked_add(further)?;
            at = of;
        }
        Some(Member { offset: offset.try_into().ok()?, size: self.size(at)? })
    }

    /// Offset and type of a member of a struct, or of an anonymous struct in it.
    fn field(&self, structure: Id, name: &str) -> Option<(u64, Id)> {
        let mut seen = HashSet::new();
        let mut inside = vec![(structure, 0)];
        while let Some((id, base)) = inside.pop() {
            let Some((id, Kind::Struct { fields, .. })) = self.plain(id) else { continue };
            if !seen.insert(id) {
                continue;
            }
            for field in fields {
                match (&field.name, field.offset) {
                    (Some(known), offset) if known == name => {
                        return Some((u64::checked_add(base, offset?)?, field.of));
                    }
                    (None, Some(offset)) => inside.push((field.of, u64::checked_add(base, offset)?)),
                    _ => {}
                }
            }
        }
        None
    }

    /// A type without typedefs and qualifiers.
    fn plain(&self, id: Id) -> Option<(Id, &Kind)> {
        let mut id = id;
        for _ in 0..LONGEST_CHAIN {
            match self.kinds.get(&id)? {
                Kind::Same(other) => id = *other,
                kind => return Some((id, kind)),
            }
        }
        None
    }

    /// The size of a type in bytes.
    fn size(&self, id: Id) -> Option<u32> {
        let mut id = id;
        let mut times: u64 = 1;
        for _ in 0..LONGEST_CHAIN {
            match self.plain(id)?.1 {
                Kind::Array { element, count } => {
                    times = times.checked_mul(*count)?;
                    id = *element;
                }
                Kind::Struct { size, .. } | Kind::Scalar { size } => {
                    return u32::try_from(times.checked_mul(*size)?).ok();
                }
                Kind::Same(_) => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(number: u64) -> Id {
        Id { file: 0, number }
    }

    fn field(name: &str, offset: u64, of: u64) -> Field {
        Field { name: (!name.is_empty()).then(|| name.to_owned()), offset: Some(offset), of: id(of) }
    }

    fn types(kinds: Vec<Kind>, named: &[(&str, &[u64])]) -> Types {
        let kinds = (0..).zip(kinds).map(|(number, kind)| (id(number), kind)).collect();
        let ids = |numbers: &[u64]| numbers.iter().map(|number| id(*number)).collect();
        Types { kinds, named: named.iter().map(|(name, numbers)| ((*name).to_owned(), ids(numbers))).collect() }
    }

    const WANTED: &[Struct] =
        &[Struct { name: "one", about: "", members: &[("a", ""), ("deep.b", ""), ("hidden", "")] }];

    #[test]
    fn members_are_found_through_typedefs_and_anonymous_structs() {
        let types = types(
            vec![
                Kind::Scalar { size: 8 },
                Kind::Struct { size: 40, fields: vec![field("a", 4, 2), field("deep", 8, 3), field("", 24, 4)] },
                Kind::Array { element: id(0), count: 3 },
                Kind::Same(id(4)),
                Kind::Struct { size: 16, fields: vec![field("b", 2, 0), field("hidden", 8, 0)] },
            ],
            &[("one", &[1])],
        );
        let layout = types.layout(WANTED);
        assert_eq!(layout.member("one", "a"), Some(Member { offset: 4, size: 24 }));
        assert_eq!(layout.member("one", "deep.b"), Some(Member { offset: 10, size: 8 }));
        assert_eq!(layout.member("one", "hidden"), Some(Member { offset: 32, size: 8 }));
        assert_eq!(layout.size("one"), Some(40));
        assert_eq!(layout.absent().count(), 0);
    }

    #[test]
    fn of_several_structs_with_one_name_it_takes_the_one_that_has_the_members() {
        let types = types(
            vec![
                Kind::Scalar { size: 4 },
                Kind::Struct { size: 1, fields: vec![] },
                Kind::Struct { size: 2, fields: vec![field("a", 12, 0)] },
                Kind::Struct { size: 3, fields: vec![field("hidden", 16, 0)] },
            ],
            &[("one", &[1, 2, 3])],
        );
        let layout = types.layout(WANTED);
        assert_eq!((layout.offset("one", "a"), layout.size("one")), (Some(12), Some(2)));
        assert_eq!(layout.absent().collect::<Vec<_>>(), ["one.deep.b", "one.hidden"]);
    }

    #[test]
    fn circles_and_sizes_that_fit_nowhere_end_as_absent() {
        let types = types(
            vec![
                Kind::Same(id(0)),
                Kind::Array { element: id(1), count: 2 },
                Kind::Struct { size: 8, fields: vec![field("", 0, 2), field("", 0, 2), field("a", 0, 0)] },
                Kind::Struct { size: 8, fields: vec![field("a", 0, 1), field("", u64::MAX, 2)] },
                Kind::Struct { size: u64::MAX, fields: vec![field("deep", u64::MAX, 2)] },
            ],
            &[("one", &[2, 3, 4])],
        );
        assert_eq!(types.layout(WANTED).absent().count(), 3);
        assert_eq!(types.layout(WANTED).size("one"), Some(8));
    }
}
