//! HTTP as management servers speak it: any path, POST, a Content-Type. Owns sockets, sizes and times; what a body says is
//! for [`super::operations`].

use super::operations::{Answer, Operations};
use crate::events;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use relay_core::spmr::{self, SpmrError};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio::task::{JoinSet, LocalSet};

/// How long to wait after an accept that failed, for example for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Header bytes that are read of a request.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Sizes and times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    body_bytes: usize,
    connections: usize,
    timeout: Duration,
}

impl Limits {
    pub(super) fn of(settings: &tuning::Management) -> Self {
        Self {
            body_bytes: settings.body_bytes as usize,
            connections: settings.clients,
            timeout: settings.timeout,
        }
    }
}

/// Serves until told to stop, and then to the end of the request that is being done.
pub(super) async fn serve(
    listeners: Vec<std::net::TcpListener>,
    limits: Limits,
    operations: Operations,
    stopped: oneshot::Receiver<()>,
) {
    let operations = Rc::new(Mutex::new(operations));
    let places = Arc::new(Semaphore::new(limits.connections));
    let local = LocalSet::new();
    for listener in listeners {
        local.spawn_local(accept(listener, limits, operations.clone(), places.clone()));
    }
    // Whoever stops may as well have gone.
    local.run_until(async { drop(stopped.await) }).await;
    // The runtime has one thread, so nothing is being done now but what waits for shards; that has to end.
    local.run_until(async { drop(operations.lock().await) }).await;
}

async fn accept(
    listener: std::net::TcpListener,
    limits: Limits,
    operations: Rc<Mutex<Operations>>,
    places: Arc<Semaphore>,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            return tracing::error!(event = events::MANAGERS_NOT_SERVED, %error, "management servers cannot be served");
        }
    };
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, peer)) => {
                let operations = operations.clone();
                connections.spawn_local(async move {
                    converse(socket, peer, limits, operations).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(event = events::MANAGER_NOT_ACCEPTED, %error, "a management server's connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(socket: TcpStream, peer: SocketAddr, limits: Limits, operations: Rc<Mutex<Operations>>) {
    let service = service_fn(|request| answer(request, peer, limits, &operations));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.timeout)
        .max_header_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(socket), service);
    if let Err(error) = connection.await {
        tracing::debug!(event = events::MANAGER_GONE, %peer, %error, "a management server's connection ended");
    }
}

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    limits: Limits,
    operations: &Mutex<Operations>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::POST {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return Ok(response);
    }
    let content_type = request.headers().get(CONTENT_TYPE).cloned();
    let body = Limited::new(request.into_body(), limits.body_bytes).collect();
    let answer = match tokio::time::timeout(limits.timeout, body).await {
        Ok(Ok(body)) => {
            let content_type = content_type.as_ref().map(HeaderValue::as_bytes);
            operations.lock().await.answer(peer, content_type, &body.to_bytes()).await
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let error = SpmrError::TooLong(limits.body_bytes);
            Answer::Fault(spmr::write_fault(error.fault_code(), &error.to_string()))
        }
        _ => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
            return Ok(response);
        }
    };
    let (status, body) = match answer {
        Answer::Response(body) => (StatusCode::OK, body),
        Answer::Fault(body) => (StatusCode::INTERNAL_SERVER_ERROR, body),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(spmr::CONTENT_TYPE));
    Ok(response)
}
