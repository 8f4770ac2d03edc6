//! The layouts of the project's own kernels: those in `tests/layouts/` are what is read from the output trees.

use std::path::{Path, PathBuf};

use kernels::cache::Cache;
use kernels::layout::{Layout, STRUCTS};
use kernels::{BuildEvent, Builder, CancelToken, Manifest};

/// Kernels, with the file for each.
const KERNELS: [(&str, &str); 3] =
    [("stock-6.1", "6.1.192.json"), ("stock", "6.12.117.json"), ("stock-7.3", "7.3.4.json")];

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layouts").join(file)
}

fn read(file: &str) -> (String, Layout) {
    let text = std::fs::read_to_string(path(file)).unwrap();
    let layout = serde_json::from_str(&text).unwrap();
    (text, layout)
}

#[test]
fn a_layout_is_the_same_after_it_was_written_and_read() {
    for (_, file) in KERNELS {
        let (text, layout) = read(file);
        assert_eq!(serde_json::to_string_pretty(&layout).unwrap(), text.trim_end(), "{file}");
    }
}

#[test]
fn every_member_of_the_list_is_there_or_absent() {
    for (_, file) in KERNELS {
        let (_, layout) = read(file);
        for one in STRUCTS {
            for (member, _) in one.members {
                let name = format!("{}.{member}", one.name);
                let is_absent = layout.absent().any(|absent| absent == name);
                assert!(layout.member(one.name, member).is_some() != is_absent, "{file}: {name}");
            }
            let size = layout.size(one.name);
            let ends = one.members.iter().filter_map(|(member, _)| layout.member(one.name, member));
            for member in ends {
                assert!(size.is_some_and(|size| member.offset + member.size <= size), "{file}: {}", one.name);
            }
        }
    }
}

#[test]
fn what_differs_between_versions_is_read() {
    let [_, old, new] = KERNELS.map(|(_, file)| read(file).1);
    // Since 25500ba7e77c ("locking/mutex: Remove the list_head from struct mutex") locks have no list any more.
    assert_eq!((old.offset("mutex", "wait_list"), new.offset("mutex", "wait_list")), (Some(16), None));
    assert_eq!((old.offset("mutex", "first_waiter"), new.offset("mutex", "first_waiter")), (None, Some(16)));
    // 741d8666dd5d ("kernfs: Use RCU to access kernfs_node::parent") renamed it.
    assert_eq!((old.offset("kernfs_node", "parent"), new.offset("kernfs_node", "__parent")), (Some(8), Some(8)));
    let on_cpu = |layout: &Layout| layout.member("task_struct", "on_cpu").map(|member| member.size);
    assert_eq!((on_cpu(&old), on_cpu(&new)), (Some(4), Some(1)));
}

#[test]
#[ignore = "needs the kernels in the user's cache"]
fn the_kernels_of_the_project_are_as_in_the_files() {
    let builder = Builder::new(Manifest::of_project().unwrap(), Cache::of_user().unwrap());
    for (kernel, file) in KERNELS {
        let image = builder.find(kernel).unwrap_or_else(|| panic!("{kernel} is not built: cargo xtask build"));
        let silent = |_: BuildEvent| {};
        let layout = builder.layout(&image, &silent, &CancelToken::new()).unwrap();
        let text = serde_json::to_string_pretty(&layout).unwrap() + "\n";
        if std::env::var_os("WRITE_LAYOUTS").is_some() {
            std::fs::write(path(file), &text).unwrap();
        }
        assert!(read(file).1 == layout, "{kernel} is not as in {file}: WRITE_LAYOUTS=1 writes the file again\n{text}");
    }
}
