//! Selectors of devices: CEL expressions over `device` (`k8s.io/dynamic-resource-allocation/cel`). Compiled once, when
//! the claim or class is read; a device is made a value once, when its slice is.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use cel::{Budget, Env, Key, Map, Program, Scope, Type, Value};
use serde_json::Value as Json;

/// What a selector may cost on one device (`CELSelectorExpressionMaxCost`).
const COST_MAX: u64 = 1_000_000;
/// Of an attribute's name and domain (`DeviceMaxIDLength`, `DeviceMaxDomainLength`).
const ID_MAX: u64 = 32;
const DOMAIN_MAX: u64 = 63;
/// Of a device (`ResourceSliceMaxAttributesAndCapacitiesPerDevice`).
const ATTRIBUTES_MAX: u64 = 32;

#[derive(Clone, Debug)]
pub struct Selector {
    pub expression: Arc<str>,
    program: Result<Arc<Program>, Arc<str>>,
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression
    }
}

fn env() -> &'static Env {
    static ENV: OnceLock<Env> = OnceLock::new();
    ENV.get_or_init(|| {
        let by_domain = |value: Type| {
            let inner = Type::map(Type::String.sized(Some(ID_MAX)), value).sized(Some(ATTRIBUTES_MAX));
            Type::map(Type::String.sized(Some(DOMAIN_MAX)), inner).sized(Some(ATTRIBUTES_MAX))
        };
        let device = Type::object(
            "kubernetes.DRADevice",
            [
                ("driver", Type::String.sized(Some(DOMAIN_MAX))),
                ("allowMultipleAllocations", Type::Bool),
                ("attributes", by_domain(Type::Dyn)),
                ("capacity", by_domain(Type::named("kubernetes.Quantity"))),
            ],
        );
        Env::default().with("device", device).with_bindings()
    })
}

impl Selector {
    pub fn new(expression: &str) -> Self {
        let program = env().compile(expression).map_err(|error| Arc::from(format!("compilation failed: {error}")));
        let program = program.and_then(|program| match program.result_type() {
            Type::Bool | Type::Dyn => Ok(Arc::new(program)),
            other => Err(Arc::from(format!("must evaluate to bool or the unknown type, not {other}"))),
        });
        Self { expression: expression.into(), program }
    }

    /// Whether it wants the device. An expression that fails on a device stops the allocation, as upstream.
    pub fn matches(&self, device: &Seen) -> Result<bool, String> {
        let program = self.program.as_ref().map_err(|error| error.to_string())?;
        let value = device.0.as_ref().map_err(ToString::to_string)?;
        let names = [("device", value)];
        match program.evaluate(&Scope::new(&names), &mut Budget::new(COST_MAX)) {
            Ok(Value::Bool(wanted)) => Ok(wanted),
            Ok(other) => Err(format!("CEL result of type {} could not be converted to bool", other.type_name())),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A device as selectors see it, or what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen(Result<Value, Arc<str>>);

impl Default for Seen {
    fn default() -> Self {
        Self(Ok(Value::Null))
    }
}

impl Seen {
    pub fn new(
        driver: &str,
        multiple: bool,
        attributes: &BTreeMap<String, Json>,
        capacity: &BTreeMap<String, Json>,
    ) -> Self {
        let device = by_domain(driver, attributes, attribute).and_then(|attributes| {
            let capacity = by_domain(driver, capacity, |entry| of_library("quantity", &entry["value"]))?;
            Ok(Value::map([
                (Key::from("driver"), Value::text(driver)),
                (Key::from("allowMultipleAllocations"), Value::Bool(multiple)),
                (Key::from("attributes"), attributes),
                (Key::from("capacity"), capacity),
            ]))
        });
        Self(device.map_err(Arc::from))
    }
}

/// Names without a domain are in the driver's. A domain nobody knows reads as an empty map.
fn by_domain(
    driver: &str,
    entries: &BTreeMap<String, Json>,
    read: impl Fn(&Json) -> Result<Value, String>,
) -> Result<Value, String> {
    let mut domains: BTreeMap<Key, BTreeMap<Key, Value>> = BTreeMap::new();
    for (name, entry) in entries {
        let (domain, id) = name.split_once('/').unwrap_or((driver, name));
        let value = read(entry).map_err(|error| format!("attribute {name}: {error}"))?;
        domains.entry(Key::from(domain)).or_default().insert(Key::from(id), value);
    }
    let entries = domains.into_iter().map(|(domain, inner)| (domain, Value::map(inner))).collect();
    Ok(Value::Map(Arc::new(Map { entries, default: Some(Value::map([])), type_name: None })))
}

fn attribute(entry: &Json) -> Result<Value, String> {
    let fields = entry.as_object().into_iter().flatten();
    let Some((kind, value)) = fields.into_iter().find(|(_, value)| !value.is_null()) else {
        return Err("unsupported attribute value".to_owned());
    };
    match kind.as_str() {
        "int" | "bool" | "string" | "ints" | "bools" | "strings" => Ok(Value::from_json(value)),
        "version" => of_library("semver", value),
        "versions" => {
            let all = value.as_array().into_iter().flatten().map(|one| of_library("semver", one));
            all.collect::<Result<Vec<_>, _>>().map(Value::list)
        }
        _ => Err("unsupported attribute value".to_owned()),
    }
}

/// The value that a function of the language makes of a text.
fn of_library(function: &str, text: &Json) -> Result<Value, String> {
    let text = match text {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    cel::convert(function, &text).map_err(|error| error.to_string())
}
