//! Error answers.

use crate::writer::Refused;
use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use vibra_model::{Rejection, api::ErrorBody};

/// Goes with [`ApiError::busy`].
static SOON: (HeaderName, HeaderValue) = (header::RETRY_AFTER, HeaderValue::from_static("1"));
/// Goes with [`ApiError::unauthorized`].
static HOW: (HeaderName, HeaderValue) = (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));

/// An error answer: a status, an [`ErrorBody`], and at most one header.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
    header: Option<&'static (HeaderName, HeaderValue)>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError { status, body: ErrorBody { message: message.into(), rejection: None }, header: None }
    }

    /// The request is at fault.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// More was asked at once than can be done: try again soon.
    pub(crate) fn busy() -> Self {
        let message = "the directory has too many requests in hand: try again in a second";
        ApiError { header: Some(&SOON), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// No token, or an unknown one.
    pub(crate) fn unauthorized(message: &str) -> Self {
        ApiError { header: Some(&HOW), ..Self::new(StatusCode::UNAUTHORIZED, message) }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Forbidden(forbidden) => Self::new(StatusCode::FORBIDDEN, forbidden.to_string()),
            Refused::Failed(message) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, message),
            Refused::Busy => Self::busy(),
            Refused::Ended => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the directory is stopping, or its store failed")
            }
            Refused::Rejected(rejection) => {
                let status = match rejection {
                    Rejection::Stale { .. } => StatusCode::CONFLICT,
                    Rejection::Refused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
                };
                let message = rejection.to_string();
                ApiError { status, body: ErrorBody { message, rejection: Some(rejection) }, header: None }
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body)).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }
}
