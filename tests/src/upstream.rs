//! An HTTP server on loopback for the outgoing requests of plugins. Each test defines its responses.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Certificate;

/// A response of an [`Upstream`].
pub type UpstreamResponse = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// An HTTP/1.1 server. Dropping this value closes its port.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Upstream {
    /// Starts a server that handles each request with `handler`.
    pub async fn start<F>(handler: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = UpstreamResponse> + Send + 'static,
    {
        Self::serve(None, handler).await
    }

    /// [`Upstream::start`] with TLS.
    pub async fn start_tls<F>(
        certificate: &Certificate,
        handler: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = UpstreamResponse> + Send + 'static,
    {
        let chain = CertificateDer::pem_file_iter(&certificate.cert_file).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&certificate.key_file).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self::serve(Some(TlsAcceptor::from(Arc::new(config))), handler).await
    }

    async fn serve<F>(
        tls: Option<TlsAcceptor>,
        handler: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = UpstreamResponse> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, handler) = (tls.clone(), handler.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve_connection(stream, handler).await,
                        // The handshake fails if the client does not trust the certificate.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve_connection(stream, handler).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, serving }
    }

    /// The address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port of the server.
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

/// Serves one connection until it is closed or breaks.
async fn serve_connection<S, F>(stream: S, handler: impl Fn(Request<Incoming>) -> F)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    F: Future<Output = UpstreamResponse>,
{
    let service = service_fn(move |request| {
        let reply = handler(request);
        async move { Ok::<_, Infallible>(reply.await) }
    });
    let _broken = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A response with status 200 and this body.
pub fn ok_response(body: impl Into<Bytes>) -> UpstreamResponse {
    Response::new(Full::new(body.into()).boxed_unsync())
}

/// A body whose chunks come from a channel. It ends when the sender is dropped.
#[derive(Debug)]
pub struct ChannelBody(pub UnboundedReceiver<Bytes>);

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}
