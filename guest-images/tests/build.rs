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

/// The names of the entries of concatenated newc archives.
fn names(mut bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while !bytes.is_empty() {
        let mut reader = cpio::newc::Reader::new(bytes).unwrap();
        names.push(reader.entry().name().to_owned());
        std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
        bytes = reader.finish().unwrap();
    }
    names
}

#[test]
fn an_image_with_a_shell_has_the_tools_and_their_libraries() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path().join("cache"));
    let agent = Initramfs { path: folder.path().join("agent.cpio"), key: "agent".to_owned() };
    fs::write(&agent.path, "").unwrap();
    let shell = match guest_images::with_shell(&cache, &agent, &CancelToken::new(), |_| {}) {
        Ok(shell) => shell,
        // A machine without the tools and without a mirror. The error must name what is missing.
        Err(error) => return assert!(error.to_string().contains("busybox"), "{error}"),
    };
    let bytes = fs::read(&shell.path).unwrap();
    let names = names(&bytes);
    for name in ["bin/sh", "bin/ip", "bin/lspci", "bin/setpci", "bin/busybox", "bin/cat", "bin/iov", "lib/libc.so.6"] {
        assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
    }
    assert!(names.iter().any(|name| name.starts_with("lib/ld-linux-x86-64")), "{names:?}");
    assert_eq!(names.iter().filter(|name| *name == "bin/ip").count(), 1, "busybox has no `ip` of its own");
    assert!(bytes.len() < 16 << 20, "{} bytes", bytes.len());
    // It is made once.
    let mut said = Vec::new();
    let again =
        guest_images::with_shell(&cache, &agent, &CancelToken::new(), |line| said.push(line.to_owned())).unwrap();
    assert_eq!((again, said), (shell, Vec::new()));
}
