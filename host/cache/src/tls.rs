//! TLS as this host speaks it to others: certificates are always verified, and whom it trusts where nobody else is named.

use std::sync::Arc;

use tokio_rustls::rustls::client::WantsClientCert;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{self, ClientConfig, ConfigBuilder, RootCertStore};

/// The authorities that this machine trusts, which may be none. Reads files.
pub fn system_authorities() -> RootCertStore {
    let mut trusted = RootCertStore::empty();
    // One that cannot be read or understood is of no use, but no reason to trust none of the others.
    trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    trusted
}

/// A client that takes the word of these authorities; what is left to say is how it names itself.
pub fn client(trusted: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    // A provider of our own choice, so that none has to be installed for the whole process.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(config.with_safe_default_protocol_versions()?.with_root_certificates(trusted))
}
