//! Tests the real build with cargo, and adding modules to its result.

use std::fs;

use guest_images::Initramfs;
use kernels::CancelToken;
use kernels::cache::Cache;

#[test]
fn modules_follow_the_agent_in_an_initramfs_of_its_own_key() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path().join("cache"));
    let agent = Initramfs { path: folder.path().join("agent.cpio"), key: "agent".to_owned() };
    fs::write(&agent.path, "the agent's archive").unwrap();
    let module = folder.path().join("00-igb.ko");
    let with = |content: &str| {
        fs::write(&module, content).unwrap();
        guest_images::with_modules(&cache, &agent, std::slice::from_ref(&module)).unwrap()
    };
    let first = with("first");
    let bytes = fs::read(&first.path).unwrap();
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(bytes.starts_with(b"the agent's archive070701"));
    assert!(has(b"modules/00-igb.ko") && has(b"first"));
    assert_eq!(with("first"), first);
    let second = with("second");
    assert!(second.key != first.key && first.key != agent.key);

    fs::remove_file(&module).unwrap();
    let error = guest_images::with_modules(&cache, &agent, std::slice::from_ref(&module)).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read {}", module.display()));
}

#[test]
fn an_initramfs_is_built_once_and_then_found() {
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
