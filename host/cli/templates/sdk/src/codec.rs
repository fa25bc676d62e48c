//! The encoding of the typed API: JSON, which plugins in other languages and an operator's client can read.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// Encodes a value. Fails if JSON cannot represent it, for instance a map whose keys are not strings.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Codec(error.to_string()))
}

/// Decodes a value. Fails if the bytes are not valid JSON of a `T`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Codec(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: Serialize + DeserializeOwned>(value: &T) -> T {
        decode(&encode(value).unwrap()).unwrap()
    }

    #[test]
    fn true_false_null_empty_and_zero_survive() {
        assert!(round_trip(&true));
        assert!(!round_trip(&false));
        assert_eq!(round_trip(&None::<u8>), None);
        assert_eq!(round_trip(&String::new()), "");
        assert_eq!(round_trip(&0_i64), 0);
    }

    #[test]
    fn bytes_of_another_type_are_a_codec_error() {
        assert!(matches!(decode::<u32>(b"\"text\""), Err(Error::Codec(_))));
        assert!(matches!(decode::<u32>(b"\xff"), Err(Error::Codec(_))));
    }
}
