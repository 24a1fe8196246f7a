//! JSON that refuses what most parsers let pass: duplicate keys, deep nesting, numbers that change when read.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::HeaderFault;

/// Deepest nesting of objects and arrays that is read.
pub const MAX_DEPTH: usize = 16;

/// A JSON value whose objects keep their keys in order and hold none twice.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number from 0 to 2^64 - 1.
    Unsigned(u64),
    /// A whole number below zero.
    Negative(i64),
    /// Any other number; whole numbers beyond 64 bits come as these.
    Float(f64),
    /// Text.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses `bytes`, which must be one JSON object with nothing but spaces after it.
    ///
    /// # Errors
    /// A [`HeaderFault`]: `NotUtf8`, `NotJson`, `DuplicateKey`, `TooDeep`.
    pub fn parse_object(bytes: &[u8]) -> Result<Vec<(String, Self)>, HeaderFault> {
        let text = std::str::from_utf8(bytes).map_err(|e| HeaderFault::NotUtf8(e.valid_up_to()))?;
        if !text.starts_with('{') {
            return Err(HeaderFault::NotJson("does not begin with '{'".to_owned()));
        }
        let fault = std::cell::RefCell::new(None);
        let mut parser = serde_json::Deserializer::from_str(text.trim_end_matches(' '));
        let seed = Seed { depth: 0, fault: &fault };
        let parsed = seed.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
        match (parsed, fault.into_inner()) {
            (Ok(Self::Object(entries)), None) => Ok(entries),
            (_, Some(fault)) => Err(fault),
            (Ok(_), None) => Err(HeaderFault::NotJson("not an object".to_owned())),
            (Err(error), None) => Err(HeaderFault::NotJson(error.to_string())),
        }
    }

    /// The value as a size or offset called `name`.
    ///
    /// # Errors
    /// `Negative`, `Overflow` or `Shape` where it is not a whole number of 64 bits.
    pub fn size(&self, name: &str) -> Result<u64, HeaderFault> {
        match self {
            Self::Unsigned(value) => Ok(*value),
            Self::Negative(value) => Err(HeaderFault::Negative(format!("{name} {value}"))),
            Self::Float(value) if value.fract() == 0.0 && *value < 0.0 => {
                Err(HeaderFault::Negative(format!("{name} {value}")))
            }
            Self::Float(value) if value.fract() == 0.0 => Err(HeaderFault::Overflow(format!("{name} {value}"))),
            other => Err(HeaderFault::Shape(format!("{name} must be a whole number, not {other}"))),
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => write!(f, "null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Unsigned(value) => write!(f, "{value}"),
            Self::Negative(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:.60?}"),
            Self::List(_) => write!(f, "an array"),
            Self::Object(_) => write!(f, "an object"),
        }
    }
}

/// Builds a `Json`, counting levels; the first fault found is left in `fault`, since serde's errors carry only text.
#[derive(Clone, Copy)]
struct Seed<'a> {
    depth: usize,
    fault: &'a std::cell::RefCell<Option<HeaderFault>>,
}

impl Seed<'_> {
    fn refuse<E: de::Error>(self, fault: HeaderFault) -> E {
        let error = E::custom(&fault);
        self.fault.borrow_mut().get_or_insert(fault);
        error
    }

    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.refuse(HeaderFault::TooDeep(MAX_DEPTH)));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(u64::try_from(value).map_or(Json::Negative(value), Json::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let inner = self.deeper()?;
        let mut seen = std::collections::HashSet::new();
        let mut object = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(self.refuse(HeaderFault::DuplicateKey(key)));
            }
            object.push((key, entries.next_value_seed(inner)?));
        }
        Ok(Json::Object(object))
    }
}
