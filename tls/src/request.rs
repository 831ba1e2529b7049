//! What can be read from a certificate request (PKCS#10), as values.

use std::net::IpAddr;

use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::{Error, Pin};

/// Of one certificate request whose signature is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// Alternative names of other kinds: mail addresses, URIs.
    pub other_names: usize,
    pub pin: Pin,
}

impl RequestFacts {
    /// Of PEM text. The signature is checked: whoever made the request holds the key.
    pub fn of_pem(pem: &[u8]) -> Result<Self, Error> {
        let parse = |detail: String| Error::Parse { what: "certificate request", detail };
        let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|error| parse(error.to_string()))?;
        let (_, request) = X509CertificationRequest::from_der(&der).map_err(|error| parse(error.to_string()))?;
        request.verify_signature().map_err(|error| parse(error.to_string()))?;
        let info = &request.certification_request_info;
        let common_name = info.subject.iter_common_name().filter_map(|name| name.as_str().ok()).last();
        let organizations = info.subject.iter_organization().filter_map(|name| name.as_str().ok());
        let mut facts = Self {
            common_name: common_name.unwrap_or_default().to_owned(),
            organizations: organizations.map(str::to_owned).collect(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            other_names: 0,
            pin: Pin::of_key(info.subject_pki.raw),
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| facts.add(name));
            }
        }
        Ok(facts)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(dns) => self.dns_names.push((*dns).to_owned()),
            GeneralName::IPAddress(_) => match crate::certificate::name(name).and_then(|text| text.parse().ok()) {
                Some(address) => self.addresses.push(address),
                None => self.other_names += 1,
            },
            _ => self.other_names += 1,
        }
    }

    pub fn has_names(&self) -> bool {
        !self.dns_names.is_empty() || !self.addresses.is_empty() || self.other_names > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_names_and_key_are_read_and_forgeries_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["n1".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:n1");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        let request = params.serialize_request(&key).unwrap();
        let facts = RequestFacts::of_pem(request.pem().unwrap().as_bytes()).unwrap();
        assert_eq!(
            (facts.common_name.as_str(), facts.organizations.as_slice()),
            ("system:node:n1", &["system:nodes".to_owned()][..])
        );
        assert_eq!((facts.dns_names.as_slice(), facts.addresses.len()), (&["n1".to_owned()][..], 1));
        let mut forged = request.der().to_vec();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert!(RequestFacts::of_pem(crate::certificate::block("CERTIFICATE REQUEST", &forged).as_bytes()).is_err());
    }
}
