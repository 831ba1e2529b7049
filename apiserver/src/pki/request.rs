//! Certificates for requests of others (PKCS#10). The subject and the alternative names are taken over byte for byte,
//! as `rcgen` keeps one value per attribute where Kubernetes has users in several groups; all else is ours to say.
//! Whether the request may be granted is the controllers' question.

use jiff::Timestamp;
use rcgen::{KeyPair, SigningKey};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer;
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, DERWriterSeq, Tag};

use super::authority::Authority;
use super::certificate::{Validity, serial};
use super::{Error, certificate};

const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALTERNATIVE_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY_ID: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];

/// Key usages in the order of their bits (RFC 5280, 4.2.1.3), by the names of `certificates.k8s.io`.
const KEY_USAGES: [&[&str]; 9] = [
    &["digital signature", "signing"],
    &["content commitment"],
    &["key encipherment"],
    &["data encipherment"],
    &["key agreement"],
    &["cert sign"],
    &["crl sign"],
    &["encipher only"],
    &["decipher only"],
];

const EXTENDED_KEY_USAGES: [(&str, &[u64]); 13] = [
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113_730, 4, 1]),
];

impl Authority {
    /// The certificate (PEM) for a request (PEM), for the given usages. The request's signature is checked: whoever
    /// asks must hold the key.
    pub fn sign_request<'u>(
        &self,
        request: &[u8],
        usages: impl IntoIterator<Item = &'u str>,
        validity: Validity,
    ) -> Result<String, Error> {
        let parse = |error: &dyn std::fmt::Display| Error::Parse(format!("certificate request: {error}"));
        let der = CertificateSigningRequestDer::from_pem_slice(request).map_err(|e| parse(&e))?;
        let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|e| parse(&e))?;
        parsed.verify_signature().map_err(|e| parse(&e))?;
        let (_, issuer) =
            x509_parser::parse_x509_certificate(self.certificate()).map_err(|e| Error::Parse(e.to_string()))?;
        let algorithm = algorithm(self.key())?;
        let info = &parsed.certification_request_info;
        let names = parsed.requested_extensions().into_iter().flatten();
        let named = names.filter(|e| matches!(e, ParsedExtension::SubjectAlternativeName(_))).count() > 0;
        let names = if named { Some(raw_names(&parsed)?) } else { None };
        let usages: Vec<&str> = usages.into_iter().collect();
        let serial = serial();
        let (from, until) = validity.bounds();
        // No authority can vouch for longer than it lasts itself.
        let until = until.min(issuer.validity().not_after.timestamp());

        let body = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
                writer.next().write_bigint_bytes(&serial, true);
                writer.next().write_der(&algorithm);
                writer.next().write_der(issuer.subject().as_raw());
                writer.next().write_sequence(|writer| {
                    writer.next().write_der(&time(from));
                    writer.next().write_der(&time(until));
                });
                writer.next().write_der(info.subject.as_raw());
                writer.next().write_der(info.subject_pki.raw);
                writer.next().write_tagged(Tag::context(3), |writer| {
                    writer.write_sequence(|writer| {
                        extensions(writer, &usages, self.key_id(), info.subject.as_raw(), names.as_deref());
                    });
                });
            });
        });
        let signature =
            self.key().sign(&body).map_err(|source| Error::Make { what: "signature of a certificate", source })?;
        let certificate = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&body);
                writer.next().write_der(&algorithm);
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        // Read back: what we hand out must be what others can read.
        certificate::Facts::of_der(&certificate)?;
        Ok(tls::certificate::pem(&certificate))
    }
}

fn extensions(writer: &mut DERWriterSeq<'_>, usages: &[&str], key_id: &[u8], subject: &[u8], names: Option<&[u8]>) {
    let bits = KEY_USAGES.map(|names| names.iter().any(|name| usages.contains(name)));
    if bits.contains(&true) {
        extension(writer, KEY_USAGE, true, |writer| {
            let length = bits.iter().rposition(|bit| *bit).map_or(0, |last| last + 1);
            let mut bytes = vec![0_u8; length.div_ceil(8)];
            for (index, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
                bytes[index / 8] |= 0x80 >> (index % 8);
            }
            writer.write_bitvec_bytes(&bytes, length);
        });
    }
    let mut extended: Vec<&[u64]> =
        EXTENDED_KEY_USAGES.iter().filter(|(name, _)| usages.contains(name)).map(|(_, oid)| *oid).collect();
    extended.dedup();
    if !extended.is_empty() {
        extension(writer, EXTENDED_KEY_USAGE, false, |writer| {
            writer.write_sequence(|writer| {
                extended.iter().for_each(|oid| writer.next().write_oid(&ObjectIdentifier::from_slice(oid)));
            });
        });
    }
    // Never an authority: `cA` is false by default.
    extension(writer, BASIC_CONSTRAINTS, true, |writer| writer.write_sequence(|_| {}));
    if !key_id.is_empty() {
        extension(writer, AUTHORITY_KEY_ID, false, |writer| {
            writer.write_sequence(|writer| {
                writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_bytes(key_id));
            });
        });
    }
    if let Some(names) = names {
        // Critical where there is nothing else that names the subject (RFC 5280, 4.2.1.6).
        let nameless = subject == [0x30, 0x00];
        extension(writer, SUBJECT_ALTERNATIVE_NAME, nameless, |writer| writer.write_der(names));
    }
}

fn extension(writer: &mut DERWriterSeq<'_>, oid: &[u64], critical: bool, value: impl FnOnce(DERWriter<'_>)) {
    writer.next().write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(&yasna::construct_der(value));
    });
}

/// The value of the alternative names that a request asks for, as it stands there.
fn raw_names(request: &X509CertificationRequest<'_>) -> Result<Vec<u8>, Error> {
    use x509_parser::cri_attributes::ParsedCriAttribute;
    let attributes = request.certification_request_info.iter_attributes();
    let extensions = attributes.filter_map(|attribute| match attribute.parsed_attribute() {
        ParsedCriAttribute::ExtensionRequest(requested) => Some(&requested.extensions),
        _ => None,
    });
    let found = extensions.flatten().find(|extension| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME);
    found
        .map(|extension| extension.value.to_vec())
        .ok_or_else(|| Error::Parse("certificate request: its alternative names are unreadable".to_owned()))
}

/// The AlgorithmIdentifier of signatures by a key.
fn algorithm(key: &KeyPair) -> Result<Vec<u8>, Error> {
    let known: [(&rcgen::SignatureAlgorithm, &[u64], bool); 4] = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &[1, 2, 840, 10045, 4, 3, 2], false),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &[1, 2, 840, 10045, 4, 3, 3], false),
        (&rcgen::PKCS_ED25519, &[1, 3, 101, 112], false),
        (&rcgen::PKCS_RSA_SHA256, &[1, 2, 840, 113_549, 1, 1, 11], true),
    ];
    let found = known.iter().find(|(algorithm, _, _)| *algorithm == key.algorithm());
    let (_, oid, null) =
        found.ok_or_else(|| Error::Parse("the authority's key is of a kind that nothing is signed with".to_owned()))?;
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
            if *null {
                writer.next().write_null();
            }
        });
    }))
}

/// UTCTime up to 2049, GeneralizedTime after it (RFC 5280, 4.1.2.5).
fn time(seconds: i64) -> Vec<u8> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let at = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    let year = at.to_zoned(jiff::tz::TimeZone::UTC).year();
    let (tag, format) = if year < 2050 { (UTC_TIME, "%y%m%d%H%M%SZ") } else { (GENERALIZED_TIME, "%Y%m%d%H%M%SZ") };
    let text = at.strftime(format).to_string();
    let mut der = vec![tag, u8::try_from(text.len()).unwrap_or_default()];
    der.extend(text.as_bytes());
    der
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, DnType, KeyPair};
    use x509_parser::prelude::FromDer;

    use super::*;
    use crate::authn::certificate::Verifier;

    const NOW: i64 = 1_800_000_000;

    fn validity() -> Validity {
        Validity { now: Timestamp::from_second(NOW).unwrap(), lifetime: Duration::from_secs(3600) }
    }

    fn request(names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), "ops");
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    #[test]
    fn a_signed_request_is_a_good_client_certificate_with_all_groups() {
        let authority = Authority::ephemeral("kubernetes", validity().now).unwrap();
        let usages = ["client auth", "digital signature", "key encipherment"];
        let pem = authority.sign_request(request(&[]).as_bytes(), usages, validity()).unwrap();
        let der = rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let user = Verifier::new(authority.certificate()).unwrap().user(&[der], NOW).unwrap();
        assert_eq!(user.name, "jane");
        assert!(user.in_group("dev") && user.in_group("ops"), "{:?}", user.groups);
    }

    #[test]
    fn usages_and_names_are_those_asked_for_and_no_authority_is_made() {
        let authority = Authority::ephemeral("kubernetes", validity().now).unwrap();
        let request = request(&["n1", "10.0.0.1"]);
        let pem = authority.sign_request(request.as_bytes(), ["server auth", "digital signature"], validity()).unwrap();
        let der = rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let facts = tls::certificate::Facts::of_der(&der).unwrap();
        assert_eq!(facts.names, ["10.0.0.1", "n1"]);
        assert_eq!(facts.not_after, NOW + 3600);
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&der).unwrap();
        assert!(!parsed.is_ca());
        let usage = parsed.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_encipherment() && !usage.key_cert_sign());
        let extended = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && !extended.client_auth);
        let (_, issuer) = x509_parser::parse_x509_certificate(authority.certificate()).unwrap();
        parsed.verify_signature(Some(issuer.public_key())).unwrap();
    }

    #[test]
    fn a_request_with_another_ones_key_is_refused() {
        let authority = Authority::ephemeral("kubernetes", validity().now).unwrap();
        let der = CertificateSigningRequestDer::from_pem_slice(request(&[]).as_bytes()).unwrap();
        let mut bytes = der.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let forged = tls::certificate::block("CERTIFICATE REQUEST", &bytes);
        assert!(authority.sign_request(forged.as_bytes(), ["client auth"], validity()).is_err());
        assert!(authority.sign_request(b"garbage", ["client auth"], validity()).is_err());
    }

    #[test]
    fn times_change_their_form_in_2050() {
        assert_eq!(time(0)[..2], [0x17, 13]);
        assert_eq!(time(2_524_608_000)[..2], [0x18, 15]);
        assert_eq!(&time(0)[2..], b"700101000000Z");
    }
}
