//! What is refused where it is encoded, what only where it is decoded, and that all else is encoded as ever.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::ser::{SerializeMap, SerializeSeq, SerializeStruct};
use serde::{Deserialize, Serialize, Serializer};

/// What its producer is told.
fn refused(value: &impl Serialize) -> String {
    super::explain(&super::to_vec(value).unwrap_err())
}

fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let bytes = super::to_vec(value).unwrap();
    assert_eq!(bytes, postcard::to_stdvec(value).unwrap(), "the encoding itself is the same");
    assert_eq!(&postcard::from_bytes::<T>(&bytes).unwrap(), value);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pair(u128, i128);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Nothing,
    One(Unit),
    Two(f32, f64),
    Named { letter: char, of: Option<Box<Kind>> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    small: (bool, i8, i16, i32, i64),
    plain: (u8, u16, u32, u64, ()),
    pair: Pair,
    kinds: Vec<Kind>,
    map: BTreeMap<String, [u16; 3]>,
    // Neither side knows of it.
    #[serde(skip)]
    cached: u32,
    address: std::net::IpAddr,
}

#[test]
fn what_can_be_decoded_is_encoded_as_ever() {
    let named = Kind::Named { letter: 'ß', of: Some(Box::new(Kind::Two(0.5, -0.25))) };
    there_and_back(&Everything {
        small: (true, -1, -300, -70_000, i64::MIN),
        plain: (255, 300, 70_000, u64::MAX, ()),
        pair: Pair(u128::MAX, i128::MIN),
        kinds: vec![Kind::Nothing, Kind::One(Unit), named],
        map: [("a".to_owned(), [1, 2, 3]), (String::new(), [0; 3])].into(),
        cached: 0,
        address: [127, 0, 0, 1].into(),
    });
    there_and_back(&Vec::<Unit>::new());
    there_and_back(&vec![Unit; 1000]);
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Sparse {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<u32>,
    number: u32,
}

#[derive(Serialize)]
enum Holds {
    Sparse(Sparse),
    Inside {
        #[serde(skip_serializing_if = "String::is_empty")]
        text: String,
    },
}

#[test]
fn a_field_that_is_left_out_is_named() {
    let text = refused(&Sparse { hint: None, number: 7 });
    assert!(text.contains("field hint of Sparse is left out"), "{text}");
    // However deep it is.
    let deep = vec![(1, Some(Holds::Sparse(Sparse::default())))];
    assert_eq!(refused(&deep), text);
    let map: BTreeMap<_, _> = [(1, Sparse::default())].into();
    assert_eq!(refused(&map), text);
    let text = refused(&Holds::Inside { text: String::new() });
    assert!(text.contains("field text of Inside"), "{text}");

    let whole = super::to_vec(&Sparse { hint: Some(3), number: 7 }).unwrap();
    let got: Sparse = postcard::from_bytes(&whole).unwrap();
    assert_eq!((got.hint, got.number), (Some(3), 7));
}

#[derive(Debug, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
}

#[test]
fn what_does_not_know_its_length_is_refused() {
    let text = refused(&Flat { rest: BTreeMap::new() });
    assert!(text.contains("flatten"), "{text}");

    struct Odd;
    impl Serialize for Odd {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq((0..9).filter(|number| number % 2 == 1))
        }
    }
    let text = refused(&Odd);
    assert!(text.contains("a sequence in it does not say how long it is"), "{text}");
}

/// Says that it has so many parts, and gives others.
#[derive(Clone, Copy)]
enum Miscounts {
    Struct,
    Seq(usize),
    Map(usize),
}

impl Serialize for Miscounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Miscounts::Struct => {
                let mut fields = serializer.serialize_struct("Name", 2)?;
                fields.serialize_field("first", &1)?;
                fields.end()
            }
            Miscounts::Seq(given) => {
                let mut elements = serializer.serialize_seq(Some(2))?;
                (0..*given).try_for_each(|number| elements.serialize_element(&number))?;
                elements.end()
            }
            Miscounts::Map(given) => {
                let mut entries = serializer.serialize_map(Some(2))?;
                (0..*given).try_for_each(|number| entries.serialize_entry(&number, "value"))?;
                entries.end()
            }
        }
    }
}

#[test]
fn a_wrong_count_is_refused() {
    let text = refused(&Miscounts::Struct);
    assert!(text.contains("Name says that it has another number of parts"), "{text}");
    for given in [0, 1, 3] {
        let text = refused(&(1, Miscounts::Seq(given)));
        assert!(text.contains("a sequence or map says"), "{text}");
        assert_eq!(refused(&Miscounts::Map(given)), text);
    }
    assert!(super::to_vec(&[Miscounts::Seq(2), Miscounts::Map(2)]).is_ok());
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Guessed {
    Number(u8),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is")]
enum Within {
    One { number: u8 },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", content = "with")]
enum Beside {
    One { number: u8 },
}

/// Their encodings look like any other's: it shows where they are decoded.
#[test]
fn what_asks_what_comes_next_is_told_why_it_gets_no_answer() {
    let told = |error: &postcard::Error| super::explain(error);
    let guessed = super::to_vec(&Guessed::Number(1)).unwrap();
    let within = super::to_vec(&Within::One { number: 1 }).unwrap();
    let beside = super::to_vec(&Beside::One { number: 1 }).unwrap();
    let text = told(&postcard::from_bytes::<Guessed>(&guessed).unwrap_err());
    assert!(text.contains("untagged"), "{text}");
    assert_eq!(told(&postcard::from_bytes::<Within>(&within).unwrap_err()), text);
    assert_eq!(told(&postcard::from_bytes::<Beside>(&beside).unwrap_err()), text);
}
