//! Certificates for the tests of TLS, made anew for each.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

/// Who issues certificates, and a folder with all it issued.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, in files that last as long as their [`Authority`].
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate in PEM.
    pub cert_file: PathBuf,
    /// Its key in PEM.
    pub key_file: PathBuf,
}

impl Authority {
    /// A new authority.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "larder tests");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// Its own certificate, which those have who trust it.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A folder for files of a test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The options of a server with such a certificate, that asks its clients for one where `asks` says so.
    pub fn server_options(&self, certificate: &Certificate, asks: bool) -> Vec<String> {
        let files = [
            ("--tls-cert-file", &certificate.cert_file),
            ("--tls-key-file", &certificate.key_file),
            ("--tls-ca-cert-file", &self.ca_file()),
        ];
        let files = files.map(|(name, file)| [name.to_owned(), file.display().to_string()]);
        let asks = ["--tls-auth-clients", if asks { "yes" } else { "no" }].map(str::to_owned);
        files.into_iter().flatten().chain(asks).collect()
    }

    /// A certificate for a name or an address, for servers and clients, valid for a long time.
    pub fn issue(&self, name: &str) -> Certificate {
        self.issue_until(name, 2500)
    }

    /// A certificate that was or is valid until the beginning of this year.
    pub fn issue_until(&self, name: &str, year: i32) -> Certificate {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |ending: &str| self.folder.path().join(format!("{name}-{year}.{ending}"));
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
