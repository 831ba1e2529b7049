//! The arena's form and its writer. Also compiled into the build script, so it knows nothing of the rest of the crate.
//!
//! Words are little-endian `u32`. Header, then four tables: nodes, fields (text id, node id; sorted by name within an
//! object), types (text id, node id; sorted by name), lists (a count followed by text ids), and texts (offset, length
//! in the text buffer). Text id 0 is the empty text; list 0 is the empty list.

use std::collections::HashMap;

/// How a list is merged by server-side apply (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    Map,
}

/// What values a node admits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// Named fields; see `Schema::fields`.
    Object,
    /// String keys, values of `Schema::values`.
    Map,
    /// Items of `Schema::items`.
    List,
    String,
    Integer,
    Number,
    Boolean,
    /// `x-kubernetes-int-or-string`; also quantities, which accept a number or a string.
    IntOrString,
    /// Anything: raw extensions, `x-kubernetes-preserve-unknown-fields`, JSON.
    #[default]
    Any,
}

/// What upstream's types do with a zero value (empty text, 0, false, empty list or map) when an object passes through
/// them: the `omitempty` of the Go field and whether it is a pointer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zero {
    /// A pointer, or a schema without Go types: present stays present, absent stays absent.
    #[default]
    Keep,
    /// A plain value with `omitempty`: a zero value disappears.
    Drop,
    /// Written always: absence becomes the zero value.
    Emit,
    /// A pointer, list, map or time that is written always: absence becomes null.
    Null,
}

const SHAPES: [Shape; 9] = [
    Shape::Object,
    Shape::Map,
    Shape::List,
    Shape::String,
    Shape::Integer,
    Shape::Number,
    Shape::Boolean,
    Shape::IntOrString,
    Shape::Any,
];

// Bits of a node's flags word: shape in 0..4, list type in 4..6, zero in 6..8, then one bit each.
pub const ATOMIC: u32 = 1 << 8;
pub const PATCH_MERGE: u32 = 1 << 9;
pub const PATCH_REPLACE: u32 = 1 << 10;
pub const PATCH_RETAIN_KEYS: u32 = 1 << 11;
pub const PRESERVES_UNKNOWN: u32 = 1 << 12;
pub const EMBEDDED: u32 = 1 << 13;
pub const NULLABLE: u32 = 1 << 14;
pub const QUANTITY: u32 = 1 << 15;
/// The list or map says its list type or map type itself (for OpenAPI output).
pub const MERGE_TYPE_STATED: u32 = 1 << 16;
/// Raw JSON that must be an object.
pub const RAW_OBJECT: u32 = 1 << 17;

impl Shape {
    pub fn from_bits(flags: u32) -> Self {
        SHAPES.get((flags & 0xf) as usize).copied().unwrap_or(Shape::Any)
    }
    fn bits(self) -> u32 {
        SHAPES.iter().position(|s| *s == self).unwrap_or(0) as u32
    }
}

impl ListType {
    pub fn from_bits(flags: u32) -> Self {
        match (flags >> 4) & 3 {
            1 => Self::Set,
            2 => Self::Map,
            _ => Self::Atomic,
        }
    }
    fn bits(self) -> u32 {
        (self as u32) << 4
    }
}

impl Zero {
    pub fn from_bits(flags: u32) -> Self {
        match (flags >> 6) & 3 {
            1 => Self::Drop,
            2 => Self::Emit,
            3 => Self::Null,
            _ => Self::Keep,
        }
    }
    fn bits(self) -> u32 {
        (self as u32) << 6
    }
}

/// Words of the header: counts of nodes, fields, types, list words and texts.
pub const HEADER_WORDS: usize = 5;
/// Words of a node record.
pub const NODE_WORDS: usize = 12;
/// "No node" in a node-id word.
pub const NO_NODE: u32 = u32::MAX;

// Word positions in a node record.
pub const AT_FLAGS: usize = 0;
pub const AT_TYPE: usize = 1;
pub const AT_DESCRIPTION: usize = 2;
pub const AT_FORMAT: usize = 3;
pub const AT_FIELDS: usize = 4;
pub const AT_FIELD_COUNT: usize = 5;
pub const AT_REQUIRED: usize = 6;
pub const AT_CHILD: usize = 7;
pub const AT_KEYS: usize = 8;
pub const AT_MERGE_KEY: usize = 9;
/// Index into the arena's side tables plus one; 0 is none.
pub const AT_EXTRA: usize = 10;
/// Protobuf field numbers from the outermost message inwards, [`NUMBER_BITS`] bits each from the low end; 0 is none.
pub const AT_NUMBERS: usize = 11;
/// Bits of one field number in the numbers word.
pub const NUMBER_BITS: u32 = 10;

/// A node before it is written. Node ids in `fields` and `child` are those [`Writer::reserve`] gave out.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub shape: Shape,
    pub list_type: ListType,
    pub zero: Zero,
    pub flags: u32,
    pub type_name: String,
    pub description: String,
    pub format: String,
    pub fields: Vec<(String, u32)>,
    /// Shares the field table of another node instead of having its own (`fields` is empty then).
    pub fields_of: Option<u32>,
    pub required: Vec<String>,
    pub child: Option<u32>,
    pub keys: Vec<String>,
    pub merge_key: String,
    pub extra: Option<u32>,
    pub numbers: u32,
}

/// Collects nodes and writes the two buffers.
#[derive(Default)]
pub struct Writer {
    nodes: Vec<Option<Node>>,
    types: Vec<(String, u32)>,
    text: String,
    texts: Vec<(u32, u32)>,
    text_ids: HashMap<String, u32>,
    lists: Vec<u32>,
    list_ids: HashMap<Vec<u32>, u32>,
}

impl Writer {
    /// A node id to be filled by [`Writer::set`].
    pub fn reserve(&mut self) -> u32 {
        self.nodes.push(None);
        self.nodes.len() as u32 - 1
    }
    pub fn set(&mut self, id: u32, node: Node) {
        self.nodes[id as usize] = Some(node);
    }
    pub fn add(&mut self, node: Node) -> u32 {
        let id = self.reserve();
        self.set(id, node);
        id
    }
    /// A node set before.
    pub fn node(&self, id: u32) -> Option<&Node> {
        self.nodes.get(id as usize)?.as_ref()
    }
    pub fn node_mut(&mut self, id: u32) -> Option<&mut Node> {
        self.nodes.get_mut(id as usize)?.as_mut()
    }
    /// The id of a field of a node set before.
    pub fn field(&self, id: u32, name: &str) -> Option<u32> {
        self.node(id)?.fields.iter().find(|(n, _)| n == name).map(|(_, id)| *id)
    }
    pub fn add_type(&mut self, name: &str, id: u32) {
        self.types.push((name.to_owned(), id));
    }

    fn text(&mut self, s: &str) -> u32 {
        if let Some(id) = self.text_ids.get(s) {
            return *id;
        }
        let id = self.texts.len() as u32;
        self.texts.push((self.text.len() as u32, s.len() as u32));
        self.text.push_str(s);
        self.text_ids.insert(s.to_owned(), id);
        id
    }

    fn list(&mut self, items: &[String]) -> u32 {
        let ids: Vec<u32> = items.iter().map(|s| self.text(s)).collect();
        if let Some(at) = self.list_ids.get(&ids) {
            return *at;
        }
        let at = self.lists.len() as u32;
        self.lists.push(ids.len() as u32);
        self.lists.extend(&ids);
        self.list_ids.insert(ids, at);
        at
    }

    /// The words and the text. Reserved nodes that were never set admit anything.
    pub fn finish(mut self) -> (Vec<u8>, String) {
        self.text("");
        self.list(&[]);
        let nodes: Vec<Node> = std::mem::take(&mut self.nodes).into_iter().map(Option::unwrap_or_default).collect();
        let mut field_words: Vec<u32> = Vec::new();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for node in &nodes {
            let mut fields = node.fields.clone();
            fields.sort();
            ranges.push((field_words.len() as u32 / 2, fields.len() as u32));
            for (name, id) in fields {
                let name = self.text(&name);
                field_words.extend([name, id]);
            }
        }
        let mut node_words: Vec<u32> = Vec::with_capacity(nodes.len() * NODE_WORDS);
        for (at, node) in nodes.iter().enumerate() {
            let range = ranges[node.fields_of.map_or(at, |other| other as usize)];
            node_words.extend(self.record(node, range));
        }
        let mut types = std::mem::take(&mut self.types);
        types.sort();
        let type_words: Vec<u32> = types.iter().flat_map(|(name, id)| [self.text(name), *id]).collect();
        let text_words: Vec<u32> = self.texts.iter().flat_map(|(at, len)| [*at, *len]).collect();
        let header = [
            nodes.len() as u32,
            field_words.len() as u32 / 2,
            types.len() as u32,
            self.lists.len() as u32,
            self.texts.len() as u32,
        ];
        let words = header.iter().chain(&node_words).chain(&field_words).chain(&type_words).chain(&self.lists);
        let bytes = words.chain(&text_words).flat_map(|w| w.to_le_bytes()).collect();
        (bytes, self.text)
    }

    fn record(&mut self, node: &Node, (start, count): (u32, u32)) -> [u32; NODE_WORDS] {
        let mut record = [0; NODE_WORDS];
        record[AT_FLAGS] = node.flags | node.shape.bits() | node.list_type.bits() | node.zero.bits();
        record[AT_TYPE] = self.text(&node.type_name);
        record[AT_DESCRIPTION] = self.text(&node.description);
        record[AT_FORMAT] = self.text(&node.format);
        record[AT_FIELDS] = start;
        record[AT_FIELD_COUNT] = count;
        record[AT_REQUIRED] = self.list(&node.required);
        record[AT_CHILD] = node.child.unwrap_or(NO_NODE);
        record[AT_KEYS] = self.list(&node.keys);
        record[AT_MERGE_KEY] = self.text(&node.merge_key);
        record[AT_EXTRA] = node.extra.map_or(0, |e| e + 1);
        record[AT_NUMBERS] = node.numbers;
        record
    }
}
