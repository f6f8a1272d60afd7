//! An encoding that refuses what could not be decoded, as far as that shows while it is made.
//!
//! The format is a row of bytes without names: who decodes reads as many fields and elements, in the same order, as the type has. So a value
//! that leaves out a field, or announces other lengths than it has, would be read as something else, or not at all, by somebody
//! who can do nothing about it. Every compound value is counted here, and one that is wrong is an error where it is encoded.
//!
//! What does not show: that a type decodes itself by asking what comes next, as serde's `untagged` and `tag` do. Its
//! encoding looks like any struct's.
//!
//! For a type whose fields are known all of this is known to the compiler, and costs nothing.

use std::fmt::Display;

use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

/// A value that is encoded strictly, with all that is in it.
pub(super) struct Strict<'a, T: ?Sized>(pub(super) &'a T);

impl<T: Serialize + ?Sized> Serialize for Strict<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Checking(serializer))
    }
}

/// Hands on to the format, with what is inside as [`Strict`], and compounds as [`Counted`].
struct Checking<S>(S);

/// A compound value, of which so many parts are still to come.
struct Counted<C> {
    compound: C,
    /// The type's name, if it has one.
    of: &'static str,
    left: usize,
}

impl<C> Counted<C> {
    #[inline]
    fn new(compound: C, of: &'static str, left: usize) -> Counted<C> {
        Counted { compound, of, left }
    }

    #[inline]
    fn count(&mut self) {
        self.left = self.left.wrapping_sub(1);
    }

    #[inline]
    fn whole<E: Error>(self) -> Result<C, E> {
        if self.left == 0 { Ok(self.compound) } else { Err(miscounted(self.of)) }
    }
}

#[cold]
fn miscounted<E: Error>(of: &str) -> E {
    let what = if of.is_empty() { "a sequence or map" } else { of };
    E::custom(super::refuse(format!(
        "{what} says that it has another number of parts than it gives: whoever decodes it goes by that number"
    )))
}

#[cold]
fn left_out<E: Error>(field: &str, of: &str) -> E {
    E::custom(super::refuse(format!(
        "field {field} of {of} is left out (serde's skip_serializing_if), and fields are told by their places; encode it always"
    )))
}

#[cold]
fn unknown_length<E: Error>(what: impl Display) -> E {
    E::custom(super::refuse(format!(
        "a {what} in it does not say how long it is before its parts come (serde's flatten makes a map of a struct), and its length goes first"
    )))
}

macro_rules! hand_on {
    ($($method:ident($kind:ty))*) => {
        $(#[inline]
        fn $method(self, value: $kind) -> Result<S::Ok, S::Error> {
            self.0.$method(value)
        })*
    };
}

impl<S: Serializer> Serializer for Checking<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Counted<S::SerializeSeq>;
    type SerializeTuple = Counted<S::SerializeTuple>;
    type SerializeTupleStruct = Counted<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Counted<S::SerializeTupleVariant>;
    type SerializeMap = Counted<S::SerializeMap>;
    type SerializeStruct = Counted<S::SerializeStruct>;
    type SerializeStructVariant = Counted<S::SerializeStructVariant>;

    hand_on! {
        serialize_bool(bool) serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_u128(u128)
        serialize_f32(f32) serialize_f64(f64) serialize_unit_struct(&'static str)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }

    #[inline]
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.collect_str(value)
    }

    #[inline]
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit()
    }

    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_none()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Strict(value))
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        name: &'static str,
        number: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit_variant(name, number, variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Strict(value))
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        number: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_variant(name, number, variant, &Strict(value))
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let Some(left) = len else { return Err(unknown_length("sequence")) };
        Ok(Counted::new(self.0.serialize_seq(len)?, "", left))
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        Ok(Counted::new(self.0.serialize_tuple(len)?, "", len))
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        Ok(Counted::new(self.0.serialize_tuple_struct(name, len)?, name, len))
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        number: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        Ok(Counted::new(self.0.serialize_tuple_variant(name, number, variant, len)?, variant, len))
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let Some(left) = len else { return Err(unknown_length("map")) };
        Ok(Counted::new(self.0.serialize_map(len)?, "", left))
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        Ok(Counted::new(self.0.serialize_struct(name, len)?, name, len))
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        number: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        Ok(Counted::new(self.0.serialize_struct_variant(name, number, variant, len)?, variant, len))
    }
}

/// Counts each part, and hands it on; one that has a key may not be left out.
macro_rules! counted {
    ($($compound:ident: $part:ident($($key:ident)?);)*) => {
        $(impl<C: $compound> $compound for Counted<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            #[inline]
            fn $part<T: Serialize + ?Sized>(&mut self, $($key: &'static str,)? value: &T) -> Result<(), C::Error> {
                self.count();
                self.compound.$part($($key,)? &Strict(value))
            }

            $(fn skip_field(&mut self, $key: &'static str) -> Result<(), C::Error> {
                Err(left_out($key, self.of))
            })?

            #[inline]
            fn end(self) -> Result<C::Ok, C::Error> {
                self.whole()?.end()
            }
        })*
    };
}

counted! {
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeStruct: serialize_field(key);
    SerializeStructVariant: serialize_field(key);
}

impl<C: SerializeMap> SerializeMap for Counted<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.count();
        self.compound.serialize_key(&Strict(key))
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.compound.serialize_value(&Strict(value))
    }

    #[inline]
    fn end(self) -> Result<C::Ok, C::Error> {
        self.whole()?.end()
    }
}
