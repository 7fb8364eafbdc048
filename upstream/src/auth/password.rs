//! Argon2id off the async threads, a bounded number at a time: each hash takes 19 MiB and tens of
//! milliseconds, so a flood of logins waits here instead of taking the process down.

use std::{sync::Arc, time::Duration};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    error::{ApiError, ApiResult},
    kernel::secret::Secret,
};

const HASHES_AT_ONCE_MIN: usize = 2;
const WAIT_MAX: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Passwords {
    permits: Arc<Semaphore>,
    /// Verified against when there is no such user, so that both cases take the same time.
    nobody: Arc<str>,
}

impl Passwords {
    pub(crate) async fn open() -> ApiResult<Self> {
        let parallel = std::thread::available_parallelism().map_or(1, usize::from);
        let permits = Arc::new(Semaphore::new(parallel.max(HASHES_AT_ONCE_MIN)));
        let mut passwords = Self {
            permits,
            nobody: Arc::from(""),
        };
        passwords.nobody = passwords
            .hash(Secret::new("nobody has this".to_owned()))
            .await?
            .into();
        Ok(passwords)
    }

    pub(crate) async fn hash(&self, password: Secret) -> ApiResult<String> {
        self.run(move || {
            Argon2::default()
                .hash_password(password.expose().as_bytes())
                .map(|hash| hash.to_string())
                .map_err(|error| anyhow::anyhow!("hashing a password: {error}").into())
        })
        .await
    }

    /// `stored` is `None` for an unknown user: the same work, and always `false`.
    pub(crate) async fn verify(&self, password: Secret, stored: Option<String>) -> ApiResult<bool> {
        let known = stored.is_some();
        let text = stored.unwrap_or_else(|| self.nobody.to_string());
        self.run(move || {
            let hash = PasswordHash::new(&text)
                .map_err(|error| anyhow::anyhow!("a stored password hash: {error}"))?;
            let right = Argon2::default().verify_password(password.expose().as_bytes(), &hash);
            Ok(right.is_ok() && known)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> ApiResult<T> + Send + 'static,
    ) -> ApiResult<T> {
        let permit = match timeout(WAIT_MAX, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) | Err(_) => {
                return Err(ApiError::Unavailable {
                    detail: "too many logins at once; try again",
                });
            }
        };
        // The permit moves into the thread: a caller that goes away does not free it early.
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        })
        .await
        .map_err(|error| ApiError::Internal(error.into()))?
    }
}
