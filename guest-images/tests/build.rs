//! The real build: cargo, the agent, the archive, the cache.

use std::fs;

use kernels::CancelToken;
use kernels::cache::Cache;

#[test]
fn built_once_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let first = guest_images::build(&cache, &CancelToken::new(), |_| {}).unwrap();
    let bytes = fs::read(&first.path).unwrap();
    assert!(bytes.starts_with(b"070701"), "a newc archive");
    let written = fs::metadata(&first.path).unwrap().modified().unwrap();

    let mut said = Vec::new();
    let again = guest_images::build(&cache, &CancelToken::new(), |line| said.push(line.to_owned())).unwrap();
    assert_eq!(again, first);
    assert_eq!(fs::metadata(&again.path).unwrap().modified().unwrap(), written);
    said.retain(|line| line.starts_with("Compiling"));
    assert_eq!(said, Vec::<String>::new(), "nothing is compiled twice");
}
