//! A [`Place`] is a value together with where it stands in its object. Moving down costs nothing: the path is a chain
//! of borrowed steps, written out only when an error is reported.

use serde_json::{Map, Value};

use crate::field::{Error, ErrorKind};

pub type Errors = Vec<Error>;

static NULL: Value = Value::Null;

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Field(&'p str),
    Index(usize),
    Key(&'p str),
}

/// `'v` is the object's lifetime, `'p` that of the chain of places above.
#[derive(Clone, Copy)]
pub struct Place<'v, 'p> {
    /// Null when the field is absent.
    pub value: &'v Value,
    step: Step<'p>,
    parent: Option<&'p Place<'v, 'p>>,
}

impl<'v, 'p> Place<'v, 'p> {
    pub fn root(value: &'v Value) -> Self {
        Place { value, step: Step::Root, parent: None }
    }

    pub fn field<'a>(&'a self, name: &'a str) -> Place<'v, 'a> {
        self.named(name, self.value.get(name).unwrap_or(&NULL))
    }

    /// A child reported under `name`, whatever its value really is. Some of upstream's paths are not where the value is.
    pub fn named<'a>(&'a self, name: &'a str, value: &'v Value) -> Place<'v, 'a> {
        Place { value, step: Step::Field(name), parent: Some(self) }
    }

    /// The same place with another value.
    pub fn with_value(self, value: &'v Value) -> Self {
        Self { value, ..self }
    }

    /// The entry of a map, reported as `path[key]`.
    pub fn key<'a>(&'a self, key: &'a str) -> Place<'v, 'a> {
        Place { value: self.value.get(key).unwrap_or(&NULL), step: Step::Key(key), parent: Some(self) }
    }

    pub fn index<'a>(&'a self, index: usize) -> Place<'v, 'a> {
        Place { value: self.value.get(index).unwrap_or(&NULL), step: Step::Index(index), parent: Some(self) }
    }

    /// The items of a list; none when it is absent.
    pub fn items<'a>(&'a self) -> impl Iterator<Item = Place<'v, 'a>> {
        let items = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().enumerate().map(move |(i, value)| Place { value, step: Step::Index(i), parent: Some(self) })
    }

    /// The entries of a map; none when it is absent.
    pub fn entries<'a>(&'a self) -> impl Iterator<Item = (&'v str, Place<'v, 'a>)>
    where
        'v: 'a,
    {
        let entries = self.value.as_object().into_iter().flatten();
        entries.map(move |(key, value)| (key.as_str(), Place { value, step: Step::Key(key), parent: Some(self) }))
    }

    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }
    /// The text, empty when absent.
    pub fn str(&self) -> &'v str {
        self.value.as_str().unwrap_or_default()
    }
    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }
    pub fn is_true(&self) -> bool {
        self.value.as_bool() == Some(true)
    }
    pub fn list(&self) -> &'v [Value] {
        self.value.as_array().map(Vec::as_slice).unwrap_or_default()
    }
    pub fn map(&self) -> Option<&'v Map<String, Value>> {
        self.value.as_object()
    }
    /// Absent, or a text, list or map without content.
    pub fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(s) => s.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        }
    }

    /// The path as upstream writes it: `spec.containers[0].resources.limits[cpu]`.
    pub fn path(&self) -> String {
        let mut out = String::new();
        self.write_path(&mut out);
        out
    }

    fn write_path(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.write_path(out);
        }
        match self.step {
            Step::Root => {}
            Step::Field(name) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            Step::Index(index) => out.push_str(&format!("[{index}]")),
            Step::Key(key) => out.push_str(&format!("[{key}]")),
        }
    }

    pub fn required(&self, detail: impl Into<String>) -> Error {
        Error::required(self.path(), detail)
    }
    pub fn invalid(&self, detail: impl Into<String>) -> Error {
        Error::invalid(self.path(), self.value.clone(), detail)
    }
    pub fn forbidden(&self, detail: impl Into<String>) -> Error {
        Error::forbidden(self.path(), detail)
    }
    pub fn duplicate(&self) -> Error {
        Error::duplicate(self.path(), self.value.clone())
    }
    pub fn not_found(&self) -> Error {
        Error::new(ErrorKind::NotFound, self.path(), self.value.clone(), "")
    }
    pub fn not_supported(&self, supported: &[&str]) -> Error {
        Error::not_supported(self.path(), self.value.clone(), supported)
    }
    /// `limit` in bytes.
    pub fn too_long(&self, limit: usize) -> Error {
        Error::new(ErrorKind::TooLong, self.path(), Value::Null, format!("may not be more than {limit} bytes"))
    }
    pub fn too_many(&self, limit: usize) -> Error {
        let detail = format!("must have at most {limit} items");
        Error::new(ErrorKind::TooMany, self.path(), self.list().len(), detail)
    }

    // Checks that most kinds need.

    /// Required when absent or empty.
    pub fn require(&self, errors: &mut Errors) -> bool {
        if self.is_empty() {
            errors.push(self.required(""));
        }
        !self.is_empty()
    }
    /// Absent or one of `supported`. An empty text counts as given.
    pub fn one_of(&self, supported: &[&str], errors: &mut Errors) {
        if self.is_set() && !supported.contains(&self.str()) {
            errors.push(self.not_supported(supported));
        }
    }
    /// Required and one of `supported`.
    pub fn require_one_of(&self, supported: &[&str], errors: &mut Errors) {
        if self.require(errors) {
            self.one_of(supported, errors);
        }
    }
    pub fn nonnegative(&self, errors: &mut Errors) {
        if self.int().is_some_and(|n| n < 0) {
            errors.push(self.invalid("must be greater than or equal to 0"));
        }
    }
    pub fn positive(&self, errors: &mut Errors) {
        if self.int().is_some_and(|n| n <= 0) {
            errors.push(self.invalid("must be greater than 0"));
        }
    }
    pub fn in_range(&self, low: i64, high: i64, errors: &mut Errors) {
        if self.int().is_some_and(|n| n < low || n > high) {
            errors.push(self.invalid(format!("must be between {low} and {high}, inclusive")));
        }
    }
    /// The value equals that of `old`; absent equals empty.
    pub fn immutable(&self, old: &Place, errors: &mut Errors) {
        if !self.same(old) {
            errors.push(self.invalid("field is immutable"));
        }
    }
    /// Equal in upstream's semantic sense: absent, empty list and empty map are the same.
    pub fn same(&self, old: &Place) -> bool {
        self.value == old.value || (self.is_empty() && old.is_empty())
    }
}
