//! Kinds of dictionaries from Python: dicts of settings.
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::engine::{Activation, Aux, Kind, Penalty};
use crate::error::{Error, Result};

fn wrong(why: &str) -> Error {
    Error::InvalidArgument(format!("engine: kind {why}"))
}

/// The value of a key, which is removed; None where it is absent or None.
fn take<'py, T>(from: &Bound<'py, PyDict>, key: &str) -> Result<Option<T>>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    let unread = |_| wrong(&format!("has a '{key}' that cannot be read"));
    let Some(value) = from.get_item(key).map_err(unread)? else { return Ok(None) };
    from.del_item(key).map_err(unread)?;
    if value.is_none() {
        Ok(None)
    } else {
        value.extract().map(Some).map_err(|_| wrong(&format!("has a '{key}' that cannot be read")))
    }
}

fn needed<'py, T>(from: &Bound<'py, PyDict>, key: &str) -> Result<T>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    take(from, key)?.ok_or_else(|| wrong(&format!("needs '{key}'")))
}

/// A kind from its settings.
///
/// # Errors
/// `InvalidArgument`: a name or key that is unknown, or a value that cannot be.
pub fn kind(settings: &Bound<'_, PyDict>) -> Result<Kind> {
    let from = &settings.copy().map_err(|_| wrong("is no dict"))?;
    let name: String = needed(from, "name")?;
    let (activation, penalty) = match name.as_str() {
        "relu" => (Activation::Relu, Penalty::L1),
        "panneal" => (Activation::Relu, Penalty::Power),
        "gated" => (Activation::Gated, Penalty::L1),
        "topk" => (Activation::TopK { k: needed(from, "k")? }, Penalty::None),
        "batchtopk" => (Activation::BatchTopK { k: needed(from, "k")? }, Penalty::None),
        "jumprelu" => {
            let (window, to_input) = (needed(from, "window")?, needed(from, "to_input")?);
            (Activation::Jump { window, to_input }, jump_penalty(from)?)
        }
        _ => return Err(wrong(&format!("'{name}' is unknown"))),
    };
    let aux = match take(from, "aux")? {
        None => None,
        Some(alpha) => Some(Aux { alpha, k: needed(from, "aux_k")?, dead_after: needed(from, "dead_after")? }),
    };
    let found = Kind {
        activation,
        penalty,
        strength: take(from, "strength")?.unwrap_or(0.0),
        pre_activation: take(from, "pre_activation")?.unwrap_or(0.0),
        groups: take(from, "groups")?.unwrap_or_default(),
        aux,
    };
    if from.is_empty() { Ok(found) } else { Err(wrong(&format!("'{name}' has settings that it does not know"))) }
}

fn jump_penalty(from: &Bound<'_, PyDict>) -> Result<Penalty> {
    let penalty: String = needed(from, "penalty")?;
    match penalty.as_str() {
        "step" => Ok(Penalty::L0),
        "target" => Ok(Penalty::Target { l0: needed(from, "l0")? }),
        "quadratic" => Ok(Penalty::Rows { l0: needed(from, "l0")? }),
        "tanh" => Ok(Penalty::Tanh { steepness: needed(from, "steepness")? }),
        _ => Err(wrong(&format!("has an unknown penalty '{penalty}'"))),
    }
}
