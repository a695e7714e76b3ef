//! The columns of a shard and the metadata that explains them. `README.md` of this crate says the same in words.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::Arc,
};

use arrow::datatypes::{DataType, Field, Schema};
use monosema_core::{Digest, HookPoint};
use parquet::file::metadata::KeyValue;
use serde::{Deserialize, Serialize};

use crate::{Order, Rows, StoreError, VectorDtype, shard_file::PAGE_BYTES};

/// The version of the layout of shards that is written. Those of version 1 are read too.
pub const VERSION: u32 = 2;

/// The version that knew no order but that of the text.
const FIRST_VERSION: u32 = 1;

/// The column of token ids: u32.
pub const TOKEN_ID: &str = "token_id";
/// The column of document numbers: u64.
pub const DOCUMENT: &str = "document";
/// The column of positions within the context window: u32.
pub const POSITION: &str = "position";
/// The column of the keys by which a shuffled store is sorted: u64.
pub const ORDER: &str = "order";

const VERSION_KEY: &str = "monosema.version";
const DTYPE_KEY: &str = "monosema.dtype";
const LAYOUT_KEY: &str = "monosema.layout";
const HOOKS_KEY: &str = "monosema.hooks";
const ORDER_KEY: &str = "monosema.order";
/// The digest of the work that made a shard.
pub(crate) const WORK_KEY: &str = "monosema.work";

/// How a vector lies in its column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Fixed-size binary, little-endian: reading it is a copy.
    #[default]
    Binary,
    /// A list of floats, for tools that want one; several times slower to read.
    List,
}

impl Layout {
    fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::List => "list",
        }
    }
}

/// The vectors of one hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookColumn {
    /// The hook, which names the column.
    pub hook: HookPoint,
    /// Numbers in a vector.
    pub width: usize,
}

/// What a store holds: one vector of each hook for every token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSchema {
    /// The hooks, in the order of their columns.
    pub hooks: Vec<HookColumn>,
    /// The type of their numbers.
    pub dtype: VectorDtype,
    /// How the vectors lie in their columns.
    pub layout: Layout,
    /// In which order rows are read.
    pub order: Order,
}

impl StoreSchema {
    /// Checks that such a store can be written.
    ///
    /// # Errors
    /// No hook, a hook twice, a vector without numbers or of more than 2 GiB, or bf16 in lists.
    pub fn check(&self) -> Result<(), StoreError> {
        self.fault().map_or(Ok(()), |(key, reason)| Err(StoreError::BadSchema { key, reason }))
    }

    /// The setting of `[harvest]` that is to blame, and what is wrong with it.
    fn fault(&self) -> Option<(&'static str, String)> {
        if self.hooks.is_empty() {
            let reason = "no hook is named; name at least one, for instance blocks.0.hook_resid_post";
            return Some(("hooks", reason.into()));
        }
        let mut seen = BTreeSet::new();
        for HookColumn { hook, width } in &self.hooks {
            if !seen.insert(hook) {
                return Some(("hooks", format!("{hook} is named twice")));
            }
            if *width == 0 || i32::try_from(width * self.dtype.bytes()).is_err() {
                return Some(("hooks", format!("{hook}: a vector of {width} numbers cannot be stored")));
            }
        }
        if self.layout == Layout::List && self.dtype == VectorDtype::BF16 {
            let reason =
                "Arrow has no bf16 for lists; use layout = \"binary\", or dtype = \"f16\" or \"f32\"";
            return Some(("layout", reason.into()));
        }
        None
    }

    /// Checks that `rows` can be stored so.
    pub(crate) fn check_rows(&self, rows: &Rows<'_>) -> Result<(), StoreError> {
        let n = rows.token_ids.len();
        let same = |part: &str, found: usize, expected: usize| {
            if found == expected {
                return Ok(());
            }
            Err(StoreError::WrongRows { part: part.to_owned(), expected, found })
        };
        same(DOCUMENT, rows.documents.len(), n)?;
        same(POSITION, rows.positions.len(), n)?;
        same("places", rows.places.len(), n)?;
        same("vectors", rows.vectors.len(), self.hooks.len())?;
        let dtype = self.dtype;
        for (column, values) in self.hooks.iter().zip(rows.vectors) {
            same(&column.hook.to_string(), values.len(), n * column.width)?;
            let Some(place) = dtype.first_unfit(values) else { continue };
            let row = place / column.width;
            let (hook, value) = (column.hook, values[place]);
            let (document, position, token) = (rows.documents[row], rows.positions[row], rows.token_ids[row]);
            if !value.is_finite() {
                return Err(StoreError::NotFinite { hook, document, position, token, value });
            }
            let instead = if dtype == VectorDtype::F16 { "bf16\" or \"f32" } else { "f32" };
            let limit = dtype.limit();
            return Err(StoreError::Overflow {
                hook,
                document,
                position,
                token,
                value,
                dtype,
                limit,
                instead,
            });
        }
        Ok(())
    }

    /// Bytes of one token's vectors and ids, before compression.
    pub fn token_bytes(&self) -> u64 {
        let numbers: usize = self.hooks.iter().map(|h| h.width).sum();
        let ids = 4 + 8 + 4 + if self.order == Order::Shuffled { 8 } else { 0 };
        (numbers * self.dtype.bytes()) as u64 + ids
    }

    /// Bytes that reading in a random order holds of vectors that do not lie plainly: of each of two hooks in every shard a page
    /// as it lies in the file, decompressed, and decoded.
    pub fn decoding_bytes(&self, shards: u64) -> u64 {
        shards.saturating_mul(3 * PAGE_BYTES as u64 * self.hooks.len().min(2) as u64)
    }

    /// The column of `hook` and its place among the hooks.
    pub fn find(&self, hook: HookPoint) -> Option<(usize, HookColumn)> {
        self.hooks.iter().copied().enumerate().find(|(_, column)| column.hook == hook)
    }

    pub(crate) fn to_arrow(&self) -> Schema {
        let ids = [(TOKEN_ID, DataType::UInt32), (DOCUMENT, DataType::UInt64), (POSITION, DataType::UInt32)];
        let order = (self.order == Order::Shuffled).then_some((ORDER, DataType::UInt64));
        let ids = ids.into_iter().chain(order).map(|(name, data_type)| Field::new(name, data_type, false));
        let vectors =
            self.hooks.iter().map(|h| Field::new(h.hook.to_string(), self.vector_type(h.width), false));
        Schema::new_with_metadata(ids.chain(vectors).collect::<Vec<_>>(), self.metadata())
    }

    /// The Arrow type of a vector of `width` numbers.
    pub(crate) fn vector_type(&self, width: usize) -> DataType {
        let fits = "checked: a vector is smaller than 2 GiB";
        match self.layout {
            Layout::Binary => {
                DataType::FixedSizeBinary(i32::try_from(width * self.dtype.bytes()).expect(fits))
            }
            Layout::List => {
                DataType::FixedSizeList(Arc::new(self.list_item()), i32::try_from(width).expect(fits))
            }
        }
    }

    /// The items of a list column.
    pub(crate) fn list_item(&self) -> Field {
        let data_type = match self.dtype {
            VectorDtype::F32 => DataType::Float32,
            // bf16 lists are refused by `check`.
            VectorDtype::F16 | VectorDtype::BF16 => DataType::Float16,
        };
        Field::new("element", data_type, false)
    }

    fn metadata(&self) -> HashMap<String, String> {
        let hooks = serde_json::to_string(&self.hooks).expect("hooks have string keys only");
        let pairs = [
            (VERSION_KEY, VERSION.to_string()),
            (DTYPE_KEY, self.dtype.name().into()),
            (LAYOUT_KEY, self.layout.name().into()),
            (ORDER_KEY, self.order.name().into()),
            (HOOKS_KEY, hooks),
        ];
        pairs.map(|(key, value)| (key.to_owned(), value)).into()
    }

    /// The metadata as Parquet has it, for programs that do not read the Arrow schema within.
    pub(crate) fn parquet_metadata(&self, work: &Digest) -> Vec<KeyValue> {
        let mut sorted: BTreeMap<_, _> = self.metadata().into_iter().collect();
        sorted.insert(WORK_KEY.to_owned(), work.to_string());
        sorted.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect()
    }

    /// Reads the metadata of a shard and holds its columns against it.
    pub(crate) fn of_shard(file: &Path, arrow: &Schema) -> Result<Self, StoreError> {
        let wrong = |reason: String| StoreError::WrongShard { file: file.to_owned(), reason };
        let get = |key: &str| {
            let value = arrow.metadata().get(key);
            value.ok_or_else(|| {
                wrong(format!("expected metadata `{key}`, found none; monosema did not write this"))
            })
        };
        let version = get(VERSION_KEY)?;
        if ![FIRST_VERSION, VERSION].map(|known| known.to_string()).contains(version) {
            let expected = format!("version {FIRST_VERSION} or {VERSION} of the layout");
            return Err(wrong(format!("expected {expected}, found {version}; a newer monosema reads it")));
        }
        let order = match version == &FIRST_VERSION.to_string() {
            true => Order::Text.name(),
            false => get(ORDER_KEY)?,
        };
        let order = [Order::Shuffled, Order::Text]
            .into_iter()
            .find(|o| o.name() == order)
            .ok_or_else(|| wrong(format!("{ORDER_KEY}: expected shuffled or text, found `{order}`")))?;
        let (dtype, layout, hooks) = (get(DTYPE_KEY)?, get(LAYOUT_KEY)?, get(HOOKS_KEY)?);
        let dtype = VectorDtype::from_name(dtype)
            .ok_or_else(|| wrong(format!("{DTYPE_KEY}: expected f32, f16 or bf16, found `{dtype}`")))?;
        let layout = [Layout::Binary, Layout::List]
            .into_iter()
            .find(|l| l.name() == layout)
            .ok_or_else(|| wrong(format!("{LAYOUT_KEY}: expected binary or list, found `{layout}`")))?;
        let hooks = serde_json::from_str(hooks).map_err(|e| wrong(format!("{HOOKS_KEY}: {e}: `{hooks}`")))?;
        let schema = Self { hooks, dtype, layout, order };
        if let Some((_, reason)) = schema.fault() {
            return Err(wrong(format!("{HOOKS_KEY}, {DTYPE_KEY} and {LAYOUT_KEY}: {reason}")));
        }
        schema.check_columns(arrow).map_err(wrong)?;
        Ok(schema)
    }

    /// Other programs may rewrite shards and change what does not matter here: the order of columns,
    /// nullability, the name of list items, lists of fixed or of any length.
    fn check_columns(&self, arrow: &Schema) -> Result<(), String> {
        for expected in self.to_arrow().fields() {
            let name = expected.name();
            let Some((_, found)) = arrow.column_with_name(name) else {
                return Err(format!("expected a column `{name}`, found none"));
            };
            let matches = match (expected.data_type(), found.data_type()) {
                (DataType::FixedSizeList(item, _), DataType::List(found) | DataType::LargeList(found)) => {
                    item.data_type() == found.data_type()
                }
                (DataType::FixedSizeList(item, n), DataType::FixedSizeList(found, m)) => {
                    item.data_type() == found.data_type() && n == m
                }
                (expected, found) => expected == found,
            };
            if !matches {
                let (expected, found) = (expected.data_type(), found.data_type());
                return Err(format!("column `{name}`: expected {expected}, found {found}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use monosema_core::BlockHook;

    fn schema(dtype: VectorDtype, layout: Layout) -> StoreSchema {
        let hook = |layer| HookPoint::block(layer, BlockHook::ResidPost);
        let hooks = vec![HookColumn { hook: hook(9), width: 576 }, HookColumn { hook: hook(2), width: 8 }];
        StoreSchema { hooks, dtype, layout, order: Order::Shuffled }
    }

    fn with_metadata(schema: &StoreSchema, change: impl FnOnce(&mut HashMap<String, String>)) -> Schema {
        let mut pairs = schema.metadata();
        change(&mut pairs);
        schema.to_arrow().with_metadata(pairs)
    }

    #[test]
    fn a_schema_is_read_back_from_its_metadata() {
        for (dtype, layout) in [
            (VectorDtype::F32, Layout::Binary),
            (VectorDtype::BF16, Layout::Binary),
            (VectorDtype::F16, Layout::List),
        ] {
            let schema = schema(dtype, layout);
            let arrow = with_metadata(&schema, |_| {});
            assert_eq!(StoreSchema::of_shard(Path::new("x"), &arrow).unwrap(), schema);
        }
        assert_eq!(schema(VectorDtype::F16, Layout::Binary).token_bytes(), 2 * 584 + 24);
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        let refused = |schema: StoreSchema| schema.check().unwrap_err().to_string();
        assert!(
            refused(schema(VectorDtype::BF16, Layout::List))
                .starts_with("[harvest] layout: Arrow has no bf16")
        );
        let mut twice = schema(VectorDtype::F32, Layout::Binary);
        twice.hooks[1] = twice.hooks[0];
        assert!(refused(twice.clone()).contains("[harvest] hooks: blocks.9.hook_resid_post is named twice"));
        twice.hooks.truncate(1);
        twice.hooks[0].width = 0;
        assert!(refused(twice.clone()).contains("0 numbers"));
        twice.hooks.clear();
        assert!(refused(twice).contains("no hook is named"));
    }

    #[test]
    fn foreign_shards_are_told_apart() {
        let schema = schema(VectorDtype::F32, Layout::Binary);
        let error =
            |arrow: Schema| StoreSchema::of_shard(Path::new("x.parquet"), &arrow).unwrap_err().to_string();
        let changed = |key: &'static str, value: &'static str| {
            error(with_metadata(&schema, |m| drop(m.insert(key.into(), value.into()))))
        };
        assert!(
            error(with_metadata(&schema, HashMap::clear))
                .contains("expected metadata `monosema.version`, found none")
        );
        assert!(changed(VERSION_KEY, "3").contains("expected version 1 or 2 of the layout, found 3"));
        assert!(changed(ORDER_KEY, "sorted").contains("expected shuffled or text, found `sorted`"));
        assert!(changed(DTYPE_KEY, "f64").contains("expected f32, f16 or bf16, found `f64`"));
        assert!(
            changed(DTYPE_KEY, "f16").contains("expected FixedSizeBinary(1152), found FixedSizeBinary(2304)")
        );
        assert!(changed(LAYOUT_KEY, "rows").contains("expected binary or list"));
        assert!(changed(HOOKS_KEY, "[]").contains("no hook is named"));
        assert!(changed(HOOKS_KEY, "[{\"hook\":\"x\",\"width\":1}]").contains("unknown hook `x`"));
        let other = changed(HOOKS_KEY, "[{\"hook\":\"hook_embed\",\"width\":1}]");
        assert!(other.contains("x.parquet: expected a column `hook_embed`, found none"), "{other}");
    }
}
