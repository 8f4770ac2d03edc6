use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::cache::KeyMaker;

fn key(name: &str) -> Key {
    KeyMaker::new().with("name", name).finish()
}

/// A shelf in a folder, and an entry to put there.
fn folder_and_entry() -> (TempDir, SharedShelf, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let shelf = SharedShelf::at(&format!("file://{}", folder.path().display()));
    let entry = tempfile::tempdir().unwrap();
    fs::write(entry.path().join("vmlinux"), [7; 100_000]).unwrap();
    fs::create_dir(entry.path().join("modules")).unwrap();
    fs::write(entry.path().join("modules/a.ko"), "module").unwrap();
    (folder, shelf, entry)
}

/// Takes an entry into a new folder.
fn taken(shelf: &SharedShelf, name: &str) -> (Result<bool, SharedError>, TempDir) {
    let into = tempfile::tempdir().unwrap();
    (shelf.take("images", &key(name), into.path()), into)
}

fn file(folder: &TempDir, name: &str) -> PathBuf {
    folder.path().join(format!("images/{}.tar.zst", key(name).as_str()))
}

#[test]
fn an_entry_is_taken_as_it_was_put_and_put_once() {
    let (folder, shelf, entry) = folder_and_entry();
    assert!(!taken(&shelf, "a").0.unwrap());
    assert!(shelf.put("images", &key("a"), entry.path()).unwrap());
    fs::write(entry.path().join("vmlinux"), "other").unwrap();
    assert!(!shelf.put("images", &key("a"), entry.path()).unwrap(), "who comes second keeps his own");
    let (result, into) = taken(&shelf, "a");
    assert!(result.unwrap());
    assert_eq!(fs::read(into.path().join("vmlinux")).unwrap(), [7; 100_000]);
    assert_eq!(fs::read_to_string(into.path().join("modules/a.ko")).unwrap(), "module");
    assert!(fs::metadata(file(&folder, "a")).unwrap().len() < 10_000, "it is not compressed");
    assert!(shelf.check().unwrap().ends_with("can be read and written"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the probe is left");
}

#[test]
fn of_many_who_put_an_entry_one_does() {
    let (_folder, shelf, entry) = folder_and_entry();
    let put = || usize::from(shelf_again(&shelf).put("images", &key("a"), entry.path()).unwrap());
    let times: usize = std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(put)).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert_eq!(times, 1);
}

fn shelf_again(shelf: &SharedShelf) -> SharedShelf {
    SharedShelf::at(shelf.url())
}

#[test]
fn a_garbled_object_is_not_believed() {
    let (folder, shelf, entry) = folder_and_entry();
    shelf.put("images", &key("a"), entry.path()).unwrap();
    let whole = fs::read(file(&folder, "a")).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for wrong in [&flipped[..], &whole[..whole.len() - 1], &whole[..10], b"", b"\n", b"<html>\n</html>"] {
        fs::write(file(&folder, "a"), wrong).unwrap();
        let (result, into) = taken(&shelf, "a");
        let error = result.unwrap_err();
        assert!(matches!(error, SharedError::Garbled { .. }), "{error}");
        assert_eq!(fs::read_dir(into.path()).unwrap().count(), 0, "it was unpacked before it was checked");
        assert!(!shelf.has_failed(), "other objects are good");
    }
}

#[test]
fn a_folder_without_permission_or_that_is_not_there_fails() {
    let shelf = SharedShelf::at("file:///no/such/folder");
    let error = taken(&shelf, "a").0.unwrap_err().to_string();
    assert!(error.starts_with("IOV_REGRESS_SHELF=file:///no/such/folder: ") && shelf.has_failed(), "{error}");
    for wrong in ["", "shelf", "ftp://host/x"] {
        assert!(SharedShelf::at(wrong).check().is_err(), "{wrong}");
    }
    let (folder, shelf, entry) = folder_and_entry();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
    // Root may write anywhere.
    if fs::write(folder.path().join("try"), "").is_err() {
        let error = shelf.put("images", &key("a"), entry.path()).unwrap_err().to_string();
        assert!(error.starts_with("cannot write images/") && shelf.has_failed(), "{error}");
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

/// A web server that gives each connection to `answer` after its request.
fn server(answer: impl Fn(TcpStream, &str) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/shelf", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            answer(stream, request.split(' ').nth(1).unwrap_or_default());
        }
    });
    url
}

fn respond(stream: &mut TcpStream, status: &str, length: usize, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nLast-Modified: Sun, 29 Nov 2026 00:00:00 GMT\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

#[test]
fn a_web_server_is_read_and_not_written() {
    let (folder, shelf, entry) = folder_and_entry();
    shelf.put("images", &key("a"), entry.path()).unwrap();
    let root = folder.path().to_owned();
    let url = server(move |mut stream, path| match fs::read(root.join(path.trim_start_matches("/shelf/"))) {
        Ok(bytes) => respond(&mut stream, "200 OK", bytes.len(), &bytes),
        Err(_) => respond(&mut stream, "404 Not Found", 0, b""),
    });
    let web = SharedShelf::at(&url);
    assert!(taken(&web, "a").0.unwrap());
    assert!(!taken(&web, "b").0.unwrap());
    assert!(!web.put("images", &key("b"), entry.path()).unwrap());
    assert!(web.check().unwrap().ends_with("can be read"));
}

#[test]
fn a_server_that_cuts_connections_refuses_or_is_gone_fails() {
    let cutting = server(|mut stream, _| respond(&mut stream, "200 OK", 1_000_000, b"iov-regress 1 sha256 "));
    let refusing = server(|mut stream, _| respond(&mut stream, "403 Forbidden", 0, b""));
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [cutting, refusing, format!("http://{gone}/shelf")] {
        let shelf = SharedShelf::at(&url);
        let error = taken(&shelf, "a").0.unwrap_err().to_string();
        assert!(error.starts_with("cannot read images/") && shelf.has_failed(), "{error}");
    }
}

/// With a real server of S3, whose empty bucket `IOV_REGRESS_TEST_S3=s3://BUCKET` names; without one, nothing is tested:
///
/// ```text
/// python3 -m venv v && v/bin/pip install 'moto[server]' && v/bin/moto_server -p 5111 &
/// curl -X PUT http://127.0.0.1:5111/iov
/// export AWS_ENDPOINT=http://127.0.0.1:5111 AWS_ACCESS_KEY_ID=k AWS_SECRET_ACCESS_KEY=s AWS_REGION=us-east-1
/// IOV_REGRESS_TEST_S3=s3://iov cargo test -p kernels --lib s3
/// ```
#[test]
fn s3_keeps_one_of_four_that_are_put_at_once() {
    let Ok(bucket) = std::env::var("IOV_REGRESS_TEST_S3") else {
        let _ = std::io::stderr().write_all(b"skipped: no server of S3, IOV_REGRESS_TEST_S3 is not set\n");
        return;
    };
    let (_folder, _shelf, entry) = folder_and_entry();
    let url = format!("{bucket}/below/{}", std::process::id());
    assert!(!taken(&SharedShelf::at(&url), "a").0.unwrap());
    let put = || usize::from(SharedShelf::at(&url).put("images", &key("a"), entry.path()).unwrap());
    let times: usize = std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(put)).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert_eq!(times, 1);
    let (result, into) = taken(&SharedShelf::at(&url), "a");
    assert!(result.unwrap());
    assert_eq!(fs::read(into.path().join("vmlinux")).unwrap(), [7; 100_000]);
    assert!(SharedShelf::at(&url).check().unwrap().ends_with("can be read and written"));
    let error = taken(&SharedShelf::at("s3://no-such-bucket-here/x"), "a").0;
    assert!(!error.is_ok_and(|taken| taken), "there is no such bucket");
}
