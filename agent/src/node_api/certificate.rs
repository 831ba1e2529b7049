//! The node API's own certificate: given by the operator or made here, and the TLS side of the port.
//!
//! A client certificate is asked for, never required, and only its possession is proven in the handshake; whether it
//! is good is `access`'s question, so that a bad one gets a 401 and not a torn connection.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tls::{Current, Identity};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::access::Access;
use crate::Options;

/// How long a certificate of our own lasts; the kubelet's self-made one lasts a year as well.
const LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
/// One that ends sooner is replaced at start.
const RENEW: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Clocks of other machines may be behind.
const SKEW: SignedDuration = SignedDuration::from_hours(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("client authority {}: {problem}", path.display())]
    Authority { path: PathBuf, problem: String },
    #[error("a serving certificate needs a serving key and the other way round")]
    Half,
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("make a serving certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("serving certificate: {0}")]
    Tls(#[from] tls::Error),
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// TLS for the port: our certificate as it is at each handshake, both HTTP versions, client certificates that are
/// asked for.
pub fn config(options: &Options, access: &Access) -> Result<ServerConfig, Error> {
    let current = match (&options.certificates, &options.serving_certificate, &options.serving_key) {
        // Asked for after registration; handshakes fail until it is there.
        (Some(certificates), _, _) => Current::awaiting(certificates.files.serving().identity()),
        (None, Some(certificate), Some(key)) => Current::following(Identity::files(certificate, key))?,
        (None, None, None) => {
            let files = own(options)?;
            Current::following(Identity::files(files.certificate, files.key))?
        }
        _ => return Err(Error::Half),
    };
    Ok(tls::server_config(current, access.verifier().cloned())?)
}

/// Our own certificate, made when there is none that will do.
fn own(options: &Options) -> Result<Files, Error> {
    let directory = options.state_dir.join("pki");
    let files = Files { certificate: directory.join("kubelet.crt"), key: directory.join("kubelet.key") };
    let now = Timestamp::now();
    if files.key.exists() && will_do(&files.certificate, options, now) {
        return Ok(files);
    }
    let failed = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    };
    std::fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
    let key = KeyPair::generate()?;
    let certificate = params(options, now)?.self_signed(&key)?;
    write(&files.key, &key.serialize_pem()).map_err(failed("write", &files.key))?;
    write(&files.certificate, &certificate.pem()).map_err(failed("write", &files.certificate))?;
    Ok(files)
}

fn params(options: &Options, now: Timestamp) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(vec![options.node_name.clone(), "localhost".to_owned()])?;
    let addresses = options.node_ip.into_iter().chain([IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    params.subject_alt_names.extend(addresses.map(SanType::IpAddress));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{}", options.node_name));
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let day = |at: Timestamp| {
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = day(now - SKEW);
    params.not_after = day(now + LIFETIME);
    Ok(params)
}

/// Is there a certificate for this node and its address that lasts for a while?
fn will_do(path: &Path, options: &Options, now: Timestamp) -> bool {
    let Ok(certificate) = CertificateDer::from_pem_file(path) else { return false };
    let Ok((_, certificate)) = X509Certificate::from_der(&certificate) else { return false };
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|extension| extension.value.general_names.clone()).unwrap_or_default();
    let has_name = names.iter().any(|name| matches!(name, GeneralName::DNSName(name) if *name == options.node_name));
    let has_address = options.node_ip.is_none_or(|ip| {
        let bytes = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        names.iter().any(|name| matches!(name, GeneralName::IPAddress(own) if *own == bytes))
    });
    has_name && has_address && certificate.validity().not_after.timestamp() > (now + RENEW).as_second()
}

/// Private, and whole or not there.
fn write(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let fresh = path.with_extension("new");
    let mut file = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(fresh, path)
}

#[cfg(test)]
mod tests {
    use super::{Access, Options, config};

    #[test]
    fn a_certificate_is_made_once_and_again_for_another_address() {
        let directory = tempfile::tempdir().unwrap();
        let mut options = Options::new("n1");
        options.state_dir = directory.path().to_owned();
        let access = Access::new(None).unwrap();
        let made = |options: &Options| {
            config(options, &access).unwrap();
            std::fs::read_to_string(directory.path().join("pki/kubelet.crt")).unwrap()
        };
        let first = made(&options);
        assert_eq!(made(&options), first);
        options.node_ip = Some("192.0.2.7".parse().unwrap());
        let second = made(&options);
        assert_ne!(second, first);
        assert_eq!(made(&options), second);
    }
}
