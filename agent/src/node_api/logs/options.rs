//! What of a log is asked for: upstream's PodLogOptions in a query string.

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::super::{answer::Refusal, query::Query};
use crate::logs::Stream;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
    /// `None` is both.
    pub stream: Option<Stream>,
}

impl LogOptions {
    pub fn parse(query: &Query) -> Result<Self, Refusal> {
        Self::parse_at(query, Timestamp::now())
    }

    fn parse_at(query: &Query, now: Timestamp) -> Result<Self, Refusal> {
        let undecodable = || Refusal::bad_request(r#"{"message": "Unable to decode query."}"#);
        let invalid = || Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, r#"{"message": "Invalid request."}"#);
        let number = |name: &str| match query.get(name).filter(|text| !text.is_empty()) {
            Some(text) => text.parse::<i64>().map(Some).map_err(|_| undecodable()),
            None => Ok(None),
        };
        let flag = |name: &str| match query.get(name) {
            // Upstream decodes a name without a value, and anything but these, as true.
            Some(text) => !matches!(text, "false" | "0"),
            None => false,
        };
        // The old name; "all" is no limit.
        let tail_lines = match query.get("tail").filter(|text| !text.is_empty()) {
            Some("all") => None,
            Some(_) => number("tail")?,
            None => number("tailLines")?,
        };
        let since_seconds = number("sinceSeconds")?;
        let since_time = match query.get("sinceTime").filter(|text| !text.is_empty()) {
            Some(text) => Some(text.parse::<Timestamp>().map_err(|_| undecodable())?),
            None => None,
        };
        let limit_bytes = number("limitBytes")?;
        let stream = match query.get("stream").unwrap_or_default() {
            "" | "All" => None,
            "Stdout" => Some(Stream::Stdout),
            "Stderr" => Some(Stream::Stderr),
            _ => return Err(invalid()),
        };
        let bad = tail_lines.is_some_and(|lines| lines < 0)
            || limit_bytes.is_some_and(|bytes| bytes < 1)
            || since_seconds.is_some_and(|seconds| seconds < 1)
            || (since_seconds.is_some() && since_time.is_some())
            || (stream.is_some() && tail_lines.is_some());
        if bad {
            return Err(invalid());
        }
        let ago = since_seconds
            .map(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::UNIX_EPOCH));
        Ok(Self {
            follow: flag("follow"),
            previous: flag("previous"),
            timestamps: flag("timestamps"),
            tail_lines: tail_lines.map(i64::unsigned_abs),
            since: ago.or(since_time),
            limit_bytes: limit_bytes.map(i64::unsigned_abs),
            stream,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{LogOptions, Query, Stream};

    fn parse(text: &str) -> Result<LogOptions, u16> {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        LogOptions::parse_at(&Query::parse(text), now).map_err(|refusal| refusal.code.as_u16())
    }

    #[test]
    fn options_are_read() {
        assert_eq!(parse(""), Ok(LogOptions::default()));
        let all = parse("follow=true&timestamps=1&tailLines=0&sinceSeconds=5&limitBytes=9&previous=false").unwrap();
        let expected = LogOptions {
            follow: true,
            timestamps: true,
            tail_lines: Some(0),
            since: Some("2026-01-02T03:04:00Z".parse().unwrap()),
            limit_bytes: Some(9),
            ..LogOptions::default()
        };
        assert_eq!(all, expected);
        assert_eq!(parse("tail=all").unwrap().tail_lines, None);
        assert_eq!(parse("stream=Stderr").unwrap().stream, Some(Stream::Stderr));
    }

    #[test]
    fn contradictions_and_nonsense_are_refused() {
        for text in [
            "tailLines=-1",
            "limitBytes=0",
            "sinceSeconds=0",
            "stream=stdout",
            "stream=Stdout&tailLines=1",
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), Err(422), "{text}");
        }
        for text in ["tailLines=x", "sinceTime=yesterday"] {
            assert_eq!(parse(text), Err(400), "{text}");
        }
    }
}
