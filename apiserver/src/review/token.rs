//! TokenReview: whose token is this, for whom is it good.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use api::status::Status;

use super::{AUTHENTICATION, Review};
use crate::body::Body;
use crate::endpoint::Answer;
use crate::request::Call;
use crate::server::Server;

pub fn review(server: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move {
        let review = Review::read(&call, body, AUTHENTICATION, "TokenReview").await?;
        let spec = &review.object["spec"];
        let token = spec.get("token").and_then(Value::as_str).unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let asked = spec.get("audiences").and_then(Value::as_array).into_iter().flatten();
        let mut audiences: Vec<String> = asked.filter_map(|a| a.as_str().map(str::to_owned)).collect();
        if audiences.is_empty() {
            audiences = server.authenticator.audiences().to_vec();
        }
        server.cache.fresh().await?;
        let now = Timestamp::now().as_second();
        let status = match server.authenticator.bearer(&server, token, &audiences, now).await {
            Ok(good) => {
                json!({ "authenticated": true, "user": good.user.to_value(), "audiences": good.audiences })
            }
            Err(error) => json!({ "user": {}, "error": error.to_string() }),
        };
        Ok(review.answer(status))
    })
}
