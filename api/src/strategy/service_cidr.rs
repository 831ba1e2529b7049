//! ServiceCIDR, the ranges Services get addresses from, and IPAddress, one address taken from them.

use super::place::{Errors, Place};
use super::{Context, NameRule, Strategy, Verb, address, format};
use crate::name::path_segment;

const RANGES_MAX: usize = 2;
const IMMUTABLE: &str = "field is immutable";

pub struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn rules(&self, object: &Place, ctx: &Context, errors: &mut Errors) {
        if ctx.verb == Verb::Create {
            let spec = object.field("spec");
            ranges(&spec.field("cidrs"), errors);
        }
    }

    /// A range stays; one of the other family may join it.
    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        let (spec, before) = (new.field("spec"), old.field("spec"));
        let (cidrs, before) = (spec.field("cidrs"), before.field("cidrs").list());
        let joined = before.len() == 1 && cidrs.list().len() == 2;
        if cidrs.list().len() != before.len() && !joined {
            errors.push(cidrs.invalid(IMMUTABLE));
            return;
        }
        let changed = cidrs.items().zip(before).filter(|(cidr, before)| cidr.value != *before);
        errors.extend(changed.map(|(cidr, _)| cidr.invalid(IMMUTABLE)));
        if joined {
            ranges(&cidrs, errors);
        }
    }
}

fn ranges(cidrs: &Place, errors: &mut Errors) {
    match cidrs.list().len() {
        0 => return errors.push(cidrs.required("at least one CIDR required")),
        1..=RANGES_MAX => {}
        _ => return errors.push(cidrs.invalid("may only hold up to 2 values")),
    }
    for cidr in cidrs.items() {
        format::check(&cidr, address::canonical_cidr, errors);
    }
    let families: Vec<bool> =
        cidrs.items().filter_map(|cidr| address::parse_range(cidr.str())).map(|range| range.0.is_ipv4()).collect();
    if matches!(families[..], [first, second] if first == second) {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(cidrs.invalid(detail));
    }
}

pub struct IpAddress;

impl Strategy for IpAddress {
    fn name_rule(&self) -> NameRule {
        NameRule::Own
    }

    fn rules(&self, object: &Place, ctx: &Context, errors: &mut Errors) {
        if ctx.verb == Verb::Update {
            return;
        }
        let (metadata, spec) = (object.field("metadata"), object.field("spec"));
        format::check(&metadata.field("name"), address::canonical_ip, errors);
        let parent = spec.field("parentRef");
        if !parent.require(errors) {
            return;
        }
        let group = parent.field("group");
        if !group.is_empty() {
            format::check(&group, format::subdomain, errors);
        }
        for (field, required) in [("resource", true), ("name", true), ("namespace", false)] {
            let part = parent.field(field);
            if !part.is_empty() {
                format::check(&part, path_segment, errors);
            } else if required {
                errors.push(part.required(""));
            }
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        let (spec, before) = (new.field("spec"), old.field("spec"));
        spec.field("parentRef").immutable(&before.field("parentRef"), errors);
    }
}
