//! torch's part of a pickle: the storages that its persistent ids name, and the calls that rebuild a tensor in one.

use std::rc::Rc;

use candle_core::DType;

use super::machine::{Item, Step};
use super::place::Place;
use crate::models::json::one_line;

/// Most dimensions of a tensor.
const RANK_LIMIT: usize = 8;

/// A storage's key, and the type its elements have unless the tensor says another.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    pub key: Rc<str>,
    pub dtype: DType,
}

/// What torch's function `name` makes of `arguments`; every other function is refused.
pub(super) fn call(name: &str, arguments: &[Item]) -> Step<Item> {
    match (name, arguments) {
        ("torch.Size", [size @ Item::Tuple(..)]) => Ok(size.clone()),
        (
            "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2",
            [Item::Storage(storage), Item::Int(offset), shape, strides, ..],
        ) => tensor(storage, storage.dtype, *offset, shape, strides),
        (
            "torch._utils._rebuild_tensor_v3",
            [Item::Storage(storage), Item::Int(offset), shape, strides, _, _, Item::Callable(of), ..],
        ) => tensor(storage, dtype(of)?, *offset, shape, strides),
        (
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
            [Item::Tensor(place), ..],
        ) => Ok(Item::Tensor(place.clone())),
        (other, _) => Err(format!("a call of {} is refused (expected the calls of a state dict)", one_line(other))),
    }
}

/// A tensor in `storage`.
fn tensor(storage: &Storage, dtype: DType, offset: i64, shape: &Item, strides: &Item) -> Step<Item> {
    let sizes = |item: &Item| -> Option<Vec<usize>> {
        let Item::Tuple(items, _) = item else { return None };
        items.iter().map(|i| if let Item::Int(n) = i { usize::try_from(*n).ok() } else { None }).collect()
    };
    let offset = usize::try_from(offset).map_err(|_| "a negative offset")?;
    let (shape, strides) = (sizes(shape).ok_or("a shape of no sizes")?, sizes(strides).ok_or("strides of no sizes")?);
    if shape.len() != strides.len() || shape.len() > RANK_LIMIT {
        return Err(format!(
            "{} sizes with {} strides (expected as many, at most {RANK_LIMIT})",
            shape.len(),
            strides.len()
        ));
    }
    Ok(Item::Tensor(Rc::new(Place { storage: storage.key.to_string(), dtype, offset, shape, strides })))
}

/// The storage a persistent id names: ("storage", type, key, location, number of elements), in older files with a view
/// of another storage behind them.
pub(super) fn storage(id: &Item) -> Step<Storage> {
    let Item::Tuple(parts, _) = id else { return Err("a persistent id that is no storage".into()) };
    match &**parts {
        [Item::Text(kind), Item::Callable(of), Item::Text(key), _, _, rest @ ..] if &**kind == "storage" => {
            match rest {
                [] | [Item::Opaque] => Ok(Storage { key: key.clone(), dtype: dtype(of)? }),
                _ => Err("a storage that is a view of another is not supported".into()),
            }
        }
        _ => Err("a persistent id that is no storage".into()),
    }
}

/// The type of a storage's class, or of torch's name for it.
fn dtype(name: &str) -> Step<DType> {
    Ok(match name.trim_start_matches("torch.") {
        "FloatStorage" | "float32" => DType::F32,
        "HalfStorage" | "float16" => DType::F16,
        "BFloat16Storage" | "bfloat16" => DType::BF16,
        "DoubleStorage" | "float64" => DType::F64,
        "LongStorage" | "int64" => DType::I64,
        "IntStorage" | "int32" => DType::I32,
        // Booleans are bytes that only legacy buffers hold; an untyped storage's tensors say their type themselves.
        "BoolStorage" | "ByteStorage" | "bool" | "uint8" | "storage.UntypedStorage" => DType::U8,
        _ => return Err(format!("{} is not supported", one_line(name))),
    })
}
