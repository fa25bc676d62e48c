//! Opens handles and takes vacancies without end, and goes on working after it has let go of some.

use larder::{Cache, Entry, Error, Vacancy};

const LIMIT: usize = 1024;

fn main() -> Result<(), Error> {
    let mut handles = Vec::new();
    let error = loop {
        match Cache::default() {
            Ok(handle) => handles.push(handle),
            Err(error) => break error,
        }
        assert!(handles.len() <= LIMIT, "nobody stops this");
    };
    is_limit(&error);
    assert_eq!(handles.len(), LIMIT);
    let cache = handles.pop().ok_or(error)?;
    assert!(matches!(Cache::default(), Err(Error::Other(_))), "one that is still held counts");

    // Both vacancies and caches count: there is room for as many vacancies as handles are let go of.
    handles.truncate(LIMIT - 11);
    let mut vacancies: Vec<Vacancy> = Vec::new();
    let error = loop {
        match cache.entry(format!("key:{}", vacancies.len())) {
            Ok(Entry::Vacant(vacancy)) => vacancies.push(vacancy),
            Ok(Entry::Occupied(_)) => panic!("nobody filled it"),
            Err(error) => break error,
        }
        assert!(vacancies.len() <= LIMIT, "nobody stops this");
    };
    is_limit(&error);
    assert_eq!(vacancies.len(), 10);

    // The vacancy that could not be handed out is not lost: its key is free for the next who asks.
    vacancies.truncate(9);
    let Entry::Vacant(vacancy) = cache.entry("key:10")? else { panic!("nobody filled it") };
    assert!(vacancy.fill(b"v", larder::Duration::Default)?);
    assert_eq!(cache.get_bytes("key:10")?.as_deref(), Some(b"v".as_slice()));
    handles.clear();
    let again = Cache::default()?;
    assert_eq!(again.get_bytes("key:10")?.as_deref(), Some(b"v".as_slice()));
    println!("bounded");
    Ok(())
}

fn is_limit(error: &Error) {
    match error {
        Error::Other(text) => assert!(text.contains("too many open handles: the limit is 1024"), "{text}"),
        other => panic!("{other:?}"),
    }
}
