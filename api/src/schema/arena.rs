//! Reads the arena in place. The buffers come from [`encode::Writer`](super::encode::Writer) alone, so offsets are
//! trusted; a damaged buffer panics on a bounds check and can't do worse.

use super::encode::{
    AT_CHILD, AT_DESCRIPTION, AT_EXTRA, AT_FIELD_COUNT, AT_FIELDS, AT_FLAGS, AT_FORMAT, AT_KEYS, AT_MERGE_KEY,
    AT_NUMBERS, AT_REQUIRED, AT_TYPE, HEADER_WORDS, NO_NODE, NODE_WORDS,
};
use super::{Schema, Schemas};

/// Where each table starts, in words.
struct Layout {
    fields: usize,
    types: usize,
    type_count: usize,
    lists: usize,
    texts: usize,
}

impl Schemas {
    fn word(&self, at: usize) -> u32 {
        let bytes = &self.words[at * 4..at * 4 + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn layout(&self) -> Layout {
        let fields = HEADER_WORDS + self.word(0) as usize * NODE_WORDS;
        let types = fields + self.word(1) as usize * 2;
        let type_count = self.word(2) as usize;
        let lists = types + type_count * 2;
        Layout { fields, types, type_count, lists, texts: lists + self.word(3) as usize }
    }

    fn text_at(&self, texts: usize, id: u32) -> &str {
        let at = texts + id as usize * 2;
        let (start, len) = (self.word(at) as usize, self.word(at + 1) as usize);
        &self.text[start..start + len]
    }

    fn text(&self, id: u32) -> &str {
        self.text_at(self.layout().texts, id)
    }

    /// Binary search for `name` among `len` (text id, node id) pairs starting at word `base`.
    fn find_pair(&self, base: usize, len: usize, texts: usize, name: &str) -> Option<u32> {
        let (mut low, mut high) = (0, len);
        while low < high {
            let middle = (low + high) / 2;
            match self.text_at(texts, self.word(base + middle * 2)).cmp(name) {
                std::cmp::Ordering::Equal => return Some(self.word(base + middle * 2 + 1)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn pairs(&self, base: usize, len: usize, texts: usize) -> impl Iterator<Item = (&str, u32)> {
        (0..len).map(move |i| (self.text_at(texts, self.word(base + i * 2)), self.word(base + i * 2 + 1)))
    }

    pub(super) fn find_type(&self, name: &str) -> Option<u32> {
        let layout = self.layout();
        self.find_pair(layout.types, layout.type_count, layout.texts, name)
    }

    pub(super) fn type_entries(&self) -> impl Iterator<Item = (&str, u32)> {
        let layout = self.layout();
        self.pairs(layout.types, layout.type_count, layout.texts)
    }

    pub(super) fn find_field(&self, start: usize, len: usize, name: &str) -> Option<u32> {
        let layout = self.layout();
        self.find_pair(layout.fields + start * 2, len, layout.texts, name)
    }

    pub(super) fn field_entries(&self, start: usize, len: usize) -> impl Iterator<Item = (&str, u32)> {
        let layout = self.layout();
        self.pairs(layout.fields + start * 2, len, layout.texts)
    }

    pub(super) fn text_list(&self, list: u32) -> impl Iterator<Item = &str> {
        let layout = self.layout();
        let at = layout.lists + list as usize;
        let count = self.word(at) as usize;
        (0..count).map(move |i| self.text_at(layout.texts, self.word(at + 1 + i)))
    }
}

impl<'a> Schema<'a> {
    fn word(self, at: usize) -> u32 {
        self.schemas.word(HEADER_WORDS + self.node as usize * NODE_WORDS + at)
    }
    pub(super) fn flags(self) -> u32 {
        self.word(AT_FLAGS)
    }
    pub(super) fn field_range(self) -> (usize, usize) {
        (self.word(AT_FIELDS) as usize, self.word(AT_FIELD_COUNT) as usize)
    }
    pub(super) fn child_node(self) -> Option<u32> {
        Some(self.word(AT_CHILD)).filter(|n| *n != NO_NODE)
    }
    pub(super) fn required_list(self) -> u32 {
        self.word(AT_REQUIRED)
    }
    pub(super) fn key_list(self) -> u32 {
        self.word(AT_KEYS)
    }
    pub(super) fn merge_key(self) -> &'a str {
        self.schemas.text(self.word(AT_MERGE_KEY))
    }
    pub(super) fn type_text(self) -> &'a str {
        self.schemas.text(self.word(AT_TYPE))
    }
    pub(super) fn description_text(self) -> &'a str {
        self.schemas.text(self.word(AT_DESCRIPTION))
    }
    pub(super) fn format_text(self) -> &'a str {
        self.schemas.text(self.word(AT_FORMAT))
    }
    pub(super) fn numbers_word(self) -> u32 {
        self.word(AT_NUMBERS)
    }
    pub(super) fn extra_index(self) -> Option<usize> {
        self.word(AT_EXTRA).checked_sub(1).map(|e| e as usize)
    }
}
