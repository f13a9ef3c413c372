//! Request bodies: bounded in size, in time and in sum.

use crate::{api::App, error::ApiError};
use axum::{
    extract::{FromRequest, Request},
    http::StatusCode,
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

/// A body must have come within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// A body, and the room that it takes of what all bodies together may take.
#[derive(Debug)]
pub(crate) struct Received {
    text: Bytes,
    room: OwnedSemaphorePermit,
}

impl Received {
    /// The value that the body is; keep the room until the request is answered.
    pub(crate) fn json<T: DeserializeOwned>(self) -> Result<(T, OwnedSemaphorePermit), ApiError> {
        let value = serde_json::from_slice(&self.text);
        let value = value.map_err(|error| ApiError::bad(format!("the body is not what is asked for: {error}")))?;
        Ok((value, self.room))
    }
}

impl FromRequest<App> for Received {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let body = request.into_body();
        let most = app.largest_body;
        let told = axum::body::HttpBody::size_hint(&body).upper();
        // What does not tell its length has room for the largest.
        let size = told.map_or(most, |size| usize::try_from(size).unwrap_or(usize::MAX));
        if size > most {
            return Err(too_large(most));
        }
        let room = u32::try_from(size).unwrap_or(u32::MAX);
        let room = app.bodies.clone().try_acquire_many_owned(room).map_err(|_| ApiError::busy())?;
        let body = timeout(PATIENCE, Limited::new(body, most).collect()).await;
        let body = body.map_err(|_| {
            let message = format!("the body did not come within {} s", PATIENCE.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
        })?;
        let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => too_large(most),
            None => ApiError::bad(format!("the body broke off: {error}")),
        })?;
        Ok(Received { text: body.to_bytes(), room })
    }
}

fn too_large(most: usize) -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body may have {most} bytes"))
}
