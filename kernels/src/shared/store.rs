//! The store behind a shelf: S3, a folder, or a web server.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, RetryConfig};
use tokio::runtime::{Builder, Runtime};

/// How long one request may take with all its tries. A kernel of 13 MB comes in that time at 250 kB/s.
const PATIENCE: Duration = Duration::from_secs(60);

/// The variables with which credentials come from the environment.
const CREDENTIALS: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

#[derive(Debug)]
pub(super) struct Store {
    store: Arc<dyn ObjectStore>,
    /// What the names of objects begin with.
    prefix: Path,
    pub writable: bool,
    runtime: Runtime,
}

impl Store {
    /// The store at an address, or what is wrong with the address.
    pub fn open(url: &str) -> Result<Store, String> {
        let words = |error: Error| chain(&error);
        let (scheme, rest) = url.split_once("://").ok_or("it is no address")?;
        let (store, prefix, writable): (Arc<dyn ObjectStore>, &str, bool) = match scheme {
            "file" => {
                let folder = LocalFileSystem::new_with_prefix(rest).map_err(words)?;
                (Arc::new(folder), "", true)
            }
            "s3" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
                // Without credentials in the environment, the crate would ask the machine's cloud for some.
                let is_signed = CREDENTIALS.iter().any(|name| std::env::var_os(name).is_some());
                let builder =
                    builder.with_skip_signature(!is_signed).with_retry(retry()).with_client_options(options(true));
                (Arc::new(builder.build().map_err(words)?), prefix, true)
            }
            "http" | "https" => {
                let builder = HttpBuilder::new().with_url(url).with_retry(retry());
                let store = builder.with_client_options(options(true)).build().map_err(words)?;
                (Arc::new(store), "", false)
            }
            _ => return Err(format!("`{scheme}` is no kind of shelf")),
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        Ok(Store { store, prefix: Path::from(prefix), writable, runtime })
    }

    /// The bytes of an object; none if there is no such object.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let path = self.path(name);
        self.wait(async {
            match self.store.get(&path).await {
                Ok(found) => Ok(Some(found.bytes().await?.to_vec())),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// Whether there is an object of this name.
    pub fn has(&self, name: &str) -> Result<bool, String> {
        let path = self.path(name);
        self.wait(async {
            match self.store.head(&path).await {
                Ok(_) => Ok(true),
                Err(Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    /// Writes an object. The result is false if there is one of this name already.
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Result<bool, String> {
        let path = self.path(name);
        self.wait(async {
            match self.store.put_opts(&path, bytes.into(), PutMode::Create.into()).await {
                Ok(_) => Ok(true),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    pub fn delete(&self, name: &str) -> Result<(), String> {
        let path = self.path(name);
        self.wait(async { self.store.delete(&path).await })
    }

    fn path(&self, name: &str) -> Path {
        let parts = self.prefix.parts().map(|part| part.as_ref().to_owned());
        parts.chain(name.split('/').map(str::to_owned)).collect()
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
        let ended = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await });
        match ended {
            Ok(result) => result.map_err(|error| chain(&error)),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }
}

fn retry() -> RetryConfig {
    RetryConfig { max_retries: 2, retry_timeout: PATIENCE, ..RetryConfig::default() }
}

/// TLS has no provider of its own in this build: the first use sets that of the process.
fn options(plain: bool) -> ClientOptions {
    // A second call finds the provider of the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientOptions::new().with_allow_http(plain).with_connect_timeout(Duration::from_secs(10)).with_timeout(PATIENCE)
}

/// An error and its causes on one line, each text once.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = Vec::new();
    for text in causes.map(|cause: &dyn std::error::Error| plain(cause)) {
        if !texts.iter().any(|before| before.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

fn plain(text: &dyn Display) -> String {
    text.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
