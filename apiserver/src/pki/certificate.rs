//! What goes into a certificate and what can be read back from one.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::AttributeTypeAndValue;

use super::Error;

/// Room for clocks that run behind the issuer's, as joining machines' often do.
const BACKDATED: Duration = Duration::from_secs(60 * 60);
/// 16 bytes with a clear top bit: positive, within the 20 bytes of RFC 5280, unguessable.
const SERIAL_BYTES: usize = 16;

/// Who a client certificate speaks for: the user name and its group. One group, because `rcgen` writes one value per
/// attribute type and nothing of ours needs more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    /// Empty for none.
    pub organization: String,
}

impl Subject {
    pub fn new(common_name: impl Into<String>, organization: &str) -> Self {
        Self { common_name: common_name.into(), organization: organization.to_owned() }
    }
}

/// From when until when, starting `BACKDATED` before `now`.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    pub now: Timestamp,
    pub lifetime: Duration,
}

impl Validity {
    /// Seconds since the epoch. Short lives (in tests) are backdated less, so that they still end after they begin to
    /// be renewed.
    pub(super) fn bounds(&self) -> (i64, i64) {
        let backdated = BACKDATED.min(self.lifetime / 8);
        let start = self.now.as_second().saturating_sub_unsigned(backdated.as_secs()).max(0);
        let end = self.now.as_second().saturating_add_unsigned(self.lifetime.as_secs()).max(0);
        (start, end)
    }
}

/// A certificate with its private key, both in PEM.
#[derive(Clone)]
pub struct Credential {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Credential {
    /// Without the key: credentials end up in logged options.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

impl Credential {
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| Error::Parse(e.to_string()))
    }
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|e| Error::Parse(e.to_string()))
    }
}

/// What a certificate is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Authority,
    Client,
    Server,
}

/// The parameters of a certificate, with the extensions Go's `x509.CreateCertificate` writes for the same template:
/// critical key usage and basic constraints, subject and authority key identifiers.
pub(super) fn params(
    purpose: Purpose,
    subject: &Subject,
    names: &[String],
    validity: Validity,
) -> Result<CertificateParams, Error> {
    let make = |source| Error::Make { what: "certificate", source };
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    if !subject.organization.is_empty() {
        name.push(DnType::OrganizationName, subject.organization.as_str());
    }
    name.push(DnType::CommonName, subject.common_name.as_str());
    params.distinguished_name = name;
    let (start, end) = validity.bounds();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(start.unsigned_abs());
    params.not_after = epoch + Duration::from_secs(end.unsigned_abs());
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    params.use_authority_key_identifier_extension = true;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    match purpose {
        Purpose::Authority => {
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        }
        Purpose::Client => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        // Not for clients too: a stolen serving key must not speak for anybody.
        Purpose::Server => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
    }
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(make)?),
        });
    }
    Ok(params)
}

pub(super) fn serial() -> [u8; SERIAL_BYTES] {
    let mut serial: [u8; SERIAL_BYTES] = rand::random();
    serial[0] &= 0x7f;
    serial
}

pub(super) fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|source| Error::Make { what: "key", source })
}

/// What a start must know of a certificate found on disk.
pub(super) struct Facts {
    pub not_before: i64,
    pub not_after: i64,
    /// DNS names and addresses, sorted.
    pub names: Vec<String>,
    pub is_ca: bool,
    pub subject: Subject,
    pub public_key: Vec<u8>,
    pub authority_key_id: Vec<u8>,
    pub subject_key_id: Vec<u8>,
}

impl Facts {
    pub(super) fn of_pem(pem: &str) -> Result<Self, Error> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| Error::Parse(e.to_string()))?;
        Self::of_der(&der)
    }

    pub(super) fn of_der(der: &[u8]) -> Result<Self, Error> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|e| Error::Parse(e.to_string()))?;
        let mut facts = Self {
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            names: Vec::new(),
            is_ca: certificate.is_ca(),
            subject: {
                let (common_name, organizations) = names_of(&certificate);
                Subject { common_name, organization: organizations.join(",") }
            },
            public_key: certificate.public_key().raw.to_vec(),
            authority_key_id: Vec::new(),
            subject_key_id: Vec::new(),
        };
        for extension in certificate.iter_extensions() {
            use x509_parser::extensions::ParsedExtension as Parsed;
            match extension.parsed_extension() {
                Parsed::SubjectAlternativeName(san) => {
                    facts.names = san.general_names.iter().filter_map(name).collect()
                }
                Parsed::AuthorityKeyIdentifier(id) => {
                    facts.authority_key_id = id.key_identifier.as_ref().map(|k| k.0.to_vec()).unwrap_or_default();
                }
                Parsed::SubjectKeyIdentifier(id) => facts.subject_key_id = id.0.to_vec(),
                _ => {}
            }
        }
        facts.names.sort();
        Ok(facts)
    }

    /// Whether the certificate is valid now and for more than a fifth of its life to come.
    pub(super) fn fresh(&self, now: Timestamp) -> bool {
        let now = now.as_second();
        let reserve = (self.not_after - self.not_before) / 5;
        self.not_before <= now && now < self.not_after - reserve
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
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

/// The common name and the organizations of a certificate: user and groups, as Kubernetes reads them.
pub(crate) fn names_of(certificate: &X509Certificate<'_>) -> (String, Vec<String>) {
    let text = |a: &AttributeTypeAndValue<'_>| a.as_str().map(str::to_owned).ok();
    // The last common name wins, as in Go's `pkix.Name.FillFromRDNSequence`.
    let common_name = certificate.subject().iter_common_name().filter_map(text).last().unwrap_or_default();
    (common_name, certificate.subject().iter_organization().filter_map(text).collect())
}
