//! A certificate authority for the tests of TLS. Each test creates its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

/// A certificate authority, and a temporary directory with the certificates it has issued.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its private key. The files are deleted when the [`Authority`] is dropped.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate, in PEM.
    pub cert_file: PathBuf,
    /// The private key, in PEM.
    pub key_file: PathBuf,
}

impl Authority {
    /// Creates an authority with a self-signed certificate and a name of its own: a server that trusts two authorities
    /// of one name looks at one of them only.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("larder tests {}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// The authority's own certificate, in PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The temporary directory, where a test may create files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The options of a server that uses this certificate. With `needs_client_certificate`, the server requires one of
    /// its clients.
    pub fn server_options(&self, certificate: &Certificate, needs_client_certificate: bool) -> Vec<String> {
        let files = [
            ("--tls-cert-file", &certificate.cert_file),
            ("--tls-key-file", &certificate.key_file),
            ("--tls-ca-cert-file", &self.ca_file()),
        ];
        let files = files.map(|(name, file)| [name.to_owned(), file.display().to_string()]);
        let clients = ["--tls-auth-clients", if needs_client_certificate { "yes" } else { "no" }].map(str::to_owned);
        files.into_iter().flatten().chain(clients).collect()
    }

    /// Issues a certificate for a host name or an IP address, for servers and clients. It does not expire before 2500.
    pub fn issue(&self, name: &str) -> Certificate {
        self.issue_until(name, 2500)
    }

    /// Issues a certificate that expires on 1 January of this year.
    pub fn issue_until(&self, name: &str, year: i32) -> Certificate {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |extension: &str| self.folder.path().join(format!("{name}-{year}.{extension}"));
        let files = Certificate { cert_file: file("pem"), key_file: file("key") };
        std::fs::write(&files.cert_file, certificate.pem()).unwrap();
        std::fs::write(&files.key_file, key.serialize_pem()).unwrap();
        files
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
