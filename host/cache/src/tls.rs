//! TLS of the host as a client. Certificates are always verified.

use std::sync::Arc;

use tokio_rustls::rustls::client::WantsClientCert;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{self, ClientConfig, ConfigBuilder, RootCertStore};

/// The root certificates of the operating system; empty if it has none. Reads files.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // A certificate that cannot be read or parsed is skipped; the others are still trusted.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// A client configuration that trusts these roots. The caller adds a client certificate, or none.
///
/// # Errors
///
/// The error of rustls if its provider supports none of its default protocol versions.
pub fn client_config(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    // An explicit provider, so that the process needs no default one.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(config.with_safe_default_protocol_versions()?.with_root_certificates(roots))
}
