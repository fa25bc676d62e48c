//! Opens handles and takes vacancies up to their limits, and asserts that the cache still works after it drops some.

use larder::{Cache, Entry, Error, Vacancy};

const MAX_HANDLES: usize = 1024;
const MAX_VACANCIES: usize = 256;

fn main() -> Result<(), Error> {
    let mut handles = Vec::new();
    let error = loop {
        match Cache::default() {
            Ok(handle) => handles.push(handle),
            Err(error) => break error,
        }
        assert!(handles.len() <= MAX_HANDLES, "the host enforces no limit");
    };
    is_limit(&error, "too many open handles: the limit is 1024");
    assert_eq!(handles.len(), MAX_HANDLES);
    let cache = handles.pop().ok_or(error)?;
    assert!(matches!(Cache::default(), Err(Error::Other(_))), "a handle counts until it is dropped");

    let mut vacancies: Vec<Vacancy> = Vec::new();
    let error = loop {
        match cache.entry(format!("key:{}", vacancies.len())) {
            Ok(Entry::Vacant(vacancy)) => vacancies.push(vacancy),
            Ok(Entry::Occupied(_)) => panic!("a key has a value before it is filled"),
            Err(error) => break error,
        }
        assert!(vacancies.len() <= MAX_VACANCIES, "the host enforces no limit");
    };
    is_limit(&error, "too many vacancies: the limit is 256");
    assert_eq!(vacancies.len(), MAX_VACANCIES);

    // The vacancy that exceeded the limit was released, so the next caller for its key gets it.
    vacancies.pop();
    let Entry::Vacant(vacancy) = cache.entry("key:256")? else { panic!("`key:256` has a value before it is filled") };
    assert!(vacancy.fill(b"v", larder::Duration::Default)?);
    assert_eq!(cache.get_bytes("key:256")?.as_deref(), Some(b"v".as_slice()));
    handles.clear();
    let again = Cache::default()?;
    assert_eq!(again.get_bytes("key:256")?.as_deref(), Some(b"v".as_slice()));
    println!("bounded");
    Ok(())
}

fn is_limit(error: &Error, words: &str) {
    match error {
        Error::Other(text) => assert_eq!(text, words),
        other => panic!("{other:?}"),
    }
}
