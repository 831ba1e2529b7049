//! Optional gzip of large answers, block by block, so that a compressed list is never held as a whole.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::BodyExt;

use crate::body::{Body, BoxError};

/// Smaller answers are not compressed (upstream's `defaultGzipThresholdBytes`).
pub const GZIP_BYTES_MIN: usize = 128 * 1024;

/// Upstream's level: speed over size.
const LEVEL: u32 = 1;

/// The response with its body compressed.
pub fn gzipped(response: Response<()>, body: Body) -> Response<Body> {
    let encoder = GzEncoder::new(Vec::new(), Compression::new(LEVEL));
    let mut response = response.map(|()| Gzip { body, encoder: Some(encoder) }.boxed_unsync());
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

struct Gzip {
    body: Body,
    /// Taken when the body has ended.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl http_body::Body for Gzip {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        use std::io::Write;
        loop {
            let Some(mut encoder) = self.encoder.take() else { return Poll::Ready(None) };
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    self.encoder = Some(encoder);
                    return Poll::Pending;
                }
                ready => ready!(ready),
            };
            match frame {
                None => return Poll::Ready(Some(encoder.finish().map(|v| Frame::data(v.into())).map_err(Into::into))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        encoder.write_all(&data)?;
                    }
                    let block = std::mem::take(encoder.get_mut());
                    self.encoder = Some(encoder);
                    if !block.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(block.into()))));
                    }
                }
            }
        }
    }
}
