//! What can be read from a certificate, as values.

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::{Error, Pin};

/// Of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// DNS names and addresses, sorted.
    pub names: Vec<String>,
    /// Seconds since the epoch.
    pub not_before: i64,
    pub not_after: i64,
    pub pin: Pin,
}

impl Facts {
    /// Of the first certificate in PEM text.
    pub fn of_pem(pem: &[u8]) -> Result<Self, Error> {
        let der = CertificateDer::from_pem_slice(pem)
            .map_err(|error| Error::Parse { what: "certificate", detail: error.to_string() })?;
        Self::of_der(&der)
    }

    pub fn of_der(der: &[u8]) -> Result<Self, Error> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| Error::Parse { what: "certificate", detail: error.to_string() })?;
        let subject = certificate.subject();
        // The last common name wins, as in Go's `pkix.Name.FillFromRDNSequence`.
        let common_name = subject.iter_common_name().filter_map(|name| name.as_str().ok()).last().unwrap_or_default();
        let organizations = subject.iter_organization().filter_map(|name| name.as_str().ok().map(str::to_owned));
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let mut names: Vec<String> =
            alternative.iter().flat_map(|extension| &extension.value.general_names).filter_map(name).collect();
        names.sort();
        Ok(Self {
            common_name: common_name.to_owned(),
            organizations: organizations.collect(),
            names,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            pin: Pin::of_key(certificate.public_key().raw),
        })
    }

    /// When to ask for the next one: at 70 to 90 % of its life, `random` (0 to 1) choosing where (upstream's
    /// `jitteryDuration`), so that the nodes of a cluster do not come all at once.
    pub fn renew_at(&self, random: f64) -> i64 {
        let life = (self.not_after - self.not_before).max(0) as f64;
        self.not_before + (life * (0.7 + 0.2 * random.clamp(0.0, 1.0))).round() as i64
    }

    /// Whether the certificate is good at `now`, in seconds since the epoch.
    pub fn valid_at(&self, now: i64) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

/// A DNS name or address as text.
pub fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(dns) => Some((*dns).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// PEM text of a certificate.
pub fn pem(der: &[u8]) -> String {
    block("CERTIFICATE", der)
}

/// PEM text of any DER.
pub fn block(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        // Base64 is ASCII.
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_and_pem_of_a_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["b.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:a");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 11);
        let certificate = params.self_signed(&key).unwrap();
        let facts = Facts::of_pem(pem(certificate.der()).as_bytes()).unwrap();
        assert_eq!(facts.common_name, "system:node:a");
        assert_eq!(facts.organizations, ["system:nodes"]);
        assert_eq!(facts.names, ["10.0.0.1", "b.example"]);
        let days = |at: i64| (at - facts.not_before) / (24 * 60 * 60);
        assert_eq!((days(facts.renew_at(0.0)), days(facts.renew_at(1.0))), (7, 9));
        assert!(facts.valid_at(facts.not_before) && !facts.valid_at(facts.not_after));
    }
}
