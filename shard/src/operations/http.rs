//! Metrics and health over HTTP/1.1: `/metrics`, `/healthz`, `/readyz`, to be read only, within bounds.

use super::{ACCEPT_AGAIN, Deck, State, metrics};
use crate::events;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Connections at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long the head of a request may take, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(30);
/// The longest life of a connection; a scraper that keeps one comes anew.
const LIFE: Duration = Duration::from_secs(3600);
/// The most that hyper reads ahead.
const BUFFER_BYTES: usize = 16 << 10;

const TEXT: &str = "text/plain; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// Accepts connections for as long as the thread lives.
pub(super) async fn serve(listener: TcpListener, deck: Arc<Deck>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let deck = deck.clone();
                tokio::spawn(async move {
                    // A scraper that goes away or talks nonsense is no event.
                    let _ = timeout(LIFE, attend(stream, deck)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(event = events::OPERATOR_ACCEPT_FAILED, %error, "an operator or a scraper could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn attend(stream: TcpStream, deck: Arc<Deck>) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&deck, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn answer(deck: &Deck, method: &Method, path: &str) -> Answer {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut answer = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n".into());
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match path {
        "/metrics" => respond(StatusCode::OK, metrics::CONTENT_TYPE, metrics::text(deck)),
        "/healthz" => health(alive(deck)),
        "/readyz" => health(ready(deck)),
        _ => respond(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n".into()),
    }
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// What is wrong, a line each, or nothing.
fn health(wrong: Vec<String>) -> Answer {
    if wrong.is_empty() {
        respond(StatusCode::OK, TEXT, "ok\n".into())
    } else {
        respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, wrong.join("\n") + "\n")
    }
}

/// Whether the process should be left alone: every shard works.
fn alive(deck: &Deck) -> Vec<String> {
    deck.silent_shards().iter().map(|shard| format!("shard {} does not move", shard.0)).collect()
}

/// Whether connections should be sent here.
fn ready(deck: &Deck) -> Vec<String> {
    let mut wrong = alive(deck);
    if deck.state() != State::Serving {
        wrong.push(format!("the relay is {}", deck.state().name()));
    }
    if !deck.monitor().intake().newcomers {
        wrong.push("the relay takes no connections: a resource is used up".into());
    }
    wrong
}
